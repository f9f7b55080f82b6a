"""Echo to VIPs, and ICMP errors about balanced connections, which are translated outside and inside (RFC 5508)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6TimeExceeded
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from tests.packets.bench import DIRECT, TUNNEL, Bench
from tests.packets.traffic import answer, ether, ip, tcp, udp
from tests.packets.wire import CLIENT, CLIENT6, SERVER6, SERVER_MAC, VIP, VIP6

pytestmark = pytest.mark.root
ROUTER = "198.51.100.200"  # somewhere between
SERVER, OTHER = "198.51.100.11", "192.0.2.77"


@pytest.mark.parametrize("size", [0, 1, 56, 1400])
def test_echo_to_a_vip_is_answered(bench: Bench, size: int) -> None:
    bench.service()
    request = IP(src=CLIENT, dst=VIP, ttl=3, id=9) / ICMP(id=7, seq=2) / (b"p" * size)
    out = bench.send(request)
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.ttl) == ("send", VIP, CLIENT, 64)
    assert (out.ip[ICMP].type, out.ip[ICMP].id, out.ip[ICMP].seq) == (0, 7, 2)
    assert bytes(out.ip[ICMP].payload) == b"p" * size
    assert (out.eth.src, out.eth.dst) == (bench.wire.mac("front"), "02:00:00:00:00:99")
    assert bench.events() == {Event.ECHO: 1}


def test_echo_of_zeros(bench: Bench) -> None:
    """The reply is all zeros: its checksum is 0xffff, not the other zero of one's complement arithmetic."""
    bench.service()
    assert bench.send(IP(src=CLIENT, dst=VIP) / ICMP(id=0, seq=0) / bytes(8)).ip[ICMP].chksum == 0xFFFF


def test_echo_with_a_code_is_no_request(bench: Bench) -> None:
    bench.service()
    bench.service(f"tcp:[{VIP6}]:80")
    for packet in (ip(CLIENT, VIP) / ICMP(code=1), ip(CLIENT6, VIP6) / ICMPv6EchoRequest(code=1)):
        assert bench.send(packet).verdict == "pass"
    assert bench.events() == {}


@pytest.mark.parametrize("address", ["192.0.2.1", "198.51.100.11", "192.0.2.99"])
def test_echo_to_others_passes(bench: Bench, address: str) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    assert bench.send(IP(src=CLIENT, dst=address) / ICMP()).verdict == "pass"


def test_echo_stops_with_the_last_service_of_the_address(bench: Bench) -> None:
    one, two = bench.service(), bench.service(f"udp:{VIP}:53")
    for service, verdict in ((one, "send"), (two, "pass")):
        bench.remove(service)
        assert bench.send(IP(src=CLIENT, dst=VIP) / ICMP()).verdict == verdict


def quoted(packet: Packet, size: int | None) -> bytes:
    """`size` bytes of L4 (None: all of it)."""
    data = bytes(packet)
    return data if size is None else data[: packet.ihl * 4 + size]


@pytest.mark.parametrize("size", [8, 20, None])
@pytest.mark.parametrize(("kind", "code"), [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)])
def test_error_about_what_the_server_got(bench: Bench, kind: int, code: int, size: int | None) -> None:
    bench.server(bench.service(), "198.51.100.11:8080")
    sent = bench.send(tcp(data=b"payload")).ip
    error = IP(src=ROUTER, dst=CLIENT, ttl=9) / ICMP(type=kind, code=code, nexthopmtu=1400) / quoted(sent, size)
    out = bench.send(error, "back")
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.ttl) == ("send", VIP, CLIENT, 8)
    assert (out.ip[ICMP].type, out.ip[ICMP].code) == (kind, code)
    assert bytes(out.ip)[24:28] == bytes(error)[24:28]  # unused, next-hop MTU
    inner = IP(bytes(out.ip[ICMP].payload))
    assert (inner.src, inner.dst) == (CLIENT, VIP)
    assert bytes(inner.payload)[:8] == bytes(tcp(data=b"payload")[TCP])[:8]
    if size != 8:
        assert inner[TCP].chksum == IP(bytes(tcp(data=b"payload")))[TCP].chksum
    assert bench.event(Event.ICMP_TRANSLATED) == 1


@pytest.mark.parametrize("size", [8, 20, None])
def test_error_about_what_the_client_got(bench: Bench, size: int | None) -> None:
    bench.server(bench.service(), "198.51.100.11:8080")
    sent = bench.send(tcp()).ip
    reply = answer(sent, "SA", data=b"y" * 20)
    back = bench.send(reply, "back").ip
    out = bench.send(IP(src=CLIENT, dst=VIP, ttl=9) / ICMP(type=3, code=4, nexthopmtu=1300) / quoted(back, size))
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.ttl) == ("send", CLIENT, "198.51.100.11", 8)
    assert (out.eth.dst, out.ip[ICMP].nexthopmtu) == (SERVER_MAC, 1300)
    inner = IP(bytes(out.ip[ICMP].payload))
    assert (inner.src, inner.dst) == ("198.51.100.11", CLIENT)
    assert bytes(inner.payload)[:4] == (8080).to_bytes(2, "big") + (40000).to_bytes(2, "big")
    if size != 8:
        assert inner[TCP].chksum == IP(bytes(reply))[TCP].chksum


@pytest.mark.parametrize("checksum", [None, 0])
def test_error_about_a_datagram(bench: Bench, checksum: int | None) -> None:
    bench.server(bench.service(f"udp:{VIP}:53"), "198.51.100.11:5353")
    query = IP(src=CLIENT, dst=VIP) / UDP(sport=4000, dport=53, chksum=checksum) / b"query"
    sent = bench.send(query).ip
    # the server itself: port unreachable
    out = bench.send(IP(src="198.51.100.11", dst=CLIENT) / ICMP(type=3, code=3) / bytes(sent), "back")
    inner = IP(bytes(out.ip[ICMP].payload))
    assert (out.ip.src, inner.dst, inner[UDP].dport) == (VIP, VIP, 53)
    assert inner[UDP].chksum == IP(bytes(query))[UDP].chksum


def test_error_with_options_in_the_quoted_header(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:8080")
    sent = bench.send(
        IP(src=CLIENT, dst=VIP, options=[IPOption_RR(length=11, pointer=4)]) / TCP(sport=40000, dport=80)
    ).ip
    assert sent.ihl > 5
    out = bench.send(IP(src=ROUTER, dst=CLIENT) / ICMP(type=11) / bytes(sent), "back")
    inner = IP(bytes(out.ip[ICMP].payload))
    assert (out.verdict, inner.dst, inner[TCP].dport) == ("send", VIP, 80)


@pytest.mark.parametrize("forward", [DIRECT, TUNNEL])
def test_error_about_a_direct_reply_goes_to_its_server(bench: Bench, forward: str) -> None:
    bench.server(bench.service(), "198.51.100.11:80", forward)
    bench.send(tcp())
    reply = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000, flags="A") / (b"z" * 30)
    error = IP(src=ROUTER, dst=VIP) / ICMP(type=3, code=4, nexthopmtu=1400) / bytes(reply)
    out = bench.send(error)
    assert (out.verdict, out.eth.dst) == ("send", SERVER_MAC)
    innermost = out.ip.payload if forward is TUNNEL else out.ip
    assert (innermost.src, innermost.dst) == (ROUTER, VIP)
    assert bytes(innermost[ICMP].payload) == bytes(reply)


@pytest.mark.parametrize("quote", [b"", b"\x45", bytes(20), bytes(IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=9))])
def test_error_about_nothing_known_passes(bench: Bench, quote: bytes) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    bench.send(tcp())
    assert bench.send(IP(src=ROUTER, dst=VIP) / ICMP(type=3, code=3) / quote).verdict == "pass"
    assert bench.event(Event.ICMP_TRANSLATED) == 0


def test_error_does_not_keep_a_connection_alive(bench: Bench) -> None:
    bench.server(bench.service(f"udp:{VIP}:53"), "198.51.100.11:53")
    sent = bench.send(udp()).ip
    bench.advance(299)
    bench.send(IP(src=ROUTER, dst=CLIENT) / ICMP(type=3, code=1) / bytes(sent), "back")
    assert bench.advance(2) == 1


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_error_to_another_host_is_not_ours(bench: Bench, vip: str) -> None:
    """Whatever it quotes: errors go to the sender of what they quote (RFC 792, RFC 4443 2.4)."""
    text, server, other = ("[" + VIP6 + "]", f"[{SERVER6}]", "2001:db8::77") if vip == VIP6 else (VIP, SERVER, OTHER)
    bench.server(bench.service(f"tcp:{text}:80"), f"{server}:8080")
    reached = bench.send(tcp(vip=vip)).ip
    seen = bench.send(answer(reached), "back").ip
    kinds = (ICMPv6DestUnreach(), ICMPv6TimeExceeded()) if vip == VIP6 else (ICMP(type=3), ICMP(type=11))
    for interface, error, about in zip(("front", "back"), kinds, (seen, reached), strict=True):
        frame = ether(ip("2001:db8::99" if vip == VIP6 else ROUTER, other) / error / bytes(about))
        out = bench.send(frame, interface)
        assert (out.verdict, out.frame) == ("pass", frame)
