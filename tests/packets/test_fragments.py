"""Fragments (RFC 791, RFC 8200): the first one is balanced, the others follow it, in both directions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import ServerId, ServiceId, Tunnel, TunnelChecksum, TunnelType
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, Bench, Out
from tests.packets.checksums import transport, transport_sum
from tests.packets.traffic import answer, fragment6, tcp, udp
from tests.packets.wire import CLIENT, CLIENT6, SERVER6, VIP, VIP6

pytestmark = pytest.mark.root
VIPS = {4: VIP, 6: VIP6}
SERVERS = {4: "198.51.100.11", 6: SERVER6}
DATA = bytes(n % 251 for n in range(3000))


def service(
    bench: Bench, family: int, forward: str, port: int = 53, tunnel: Tunnel | None = None
) -> tuple[ServiceId, ServerId]:
    vip, server = ((f"[{one}]" if family == 6 else one) for one in (VIPS[family], SERVERS[family]))
    service_id = bench.service(f"udp:{vip}:53")
    return service_id, bench.server(service_id, f"{server}:{port}", forward, **({"tunnel": tunnel} if tunnel else {}))


def pieces(packet: Packet, size: int = 1000, fragment_id: int = 77) -> list[Packet]:
    if isinstance(packet, IPv6):
        return fragment6(packet, size, fragment_id)
    packet.id = fragment_id
    return [IP(bytes(one)) for one in fragment(packet, size)]


def whole(parts: Sequence[bytes]) -> bytes:
    """The packet that a receiver makes of fragments; they may come in any order."""
    placed = {}
    for part in parts:
        _, at, length, fragmented = transport(part)
        assert fragmented
        word = int.from_bytes(part[6:8] if part[0] >> 4 == 4 else part[at - 6 : at - 4], "big")
        placed[(word & 0x1FFF) * 8 if part[0] >> 4 == 4 else word & 0xFFF8] = part[at:length]
    data = b""
    for at, part in sorted(placed.items()):
        assert at == len(data)
        data += part
    head = bytearray(parts[0][: 20 if parts[0][0] >> 4 == 4 else 40])
    if head[0] >> 4 == 4:
        head[2:4], head[6:8] = (20 + len(data)).to_bytes(2, "big"), b"\0\0"
    else:
        head[4:6], head[6] = len(data).to_bytes(2, "big"), 17
    return bytes(head) + data


def sent(bench: Bench, parts: Sequence[Packet], interface: str = "front") -> list[Out]:
    outs = [bench.send(part, interface) for part in parts]
    assert [out.verdict for out in outs] == ["send"] * len(parts)
    return outs


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("port", [53, 5353])
def test_masquerade_both_directions(bench: Bench, family: int, port: int) -> None:
    service_id, server_id = service(bench, family, MASQUERADE, port)
    asked = pieces(udp(4000, vip=VIPS[family], data=DATA))
    assert len(asked) == 4
    # the first one first, the others in any order
    outs = sent(bench, [asked[0], asked[3], asked[1], asked[2]])
    got = whole([bytes(out.ip) for out in outs])
    assert transport_sum(got) == 0xFFFF and got[-3000:] == DATA
    request = (IPv6 if family == 6 else IP)(got)
    assert (request.dst, request[UDP].sport, request[UDP].dport) == (SERVERS[family], 4000, port)
    assert {out.ip.hlim if family == 6 else out.ip.ttl for out in outs} == {63}

    outs = sent(bench, pieces(answer(request, data=DATA[::-1])), "back")
    back = whole([bytes(out.ip) for out in outs])
    reply = (IPv6 if family == 6 else IP)(back)
    assert transport_sum(back) == 0xFFFF and back[-3000:] == DATA[::-1]
    assert (reply.src, reply.dst, reply[UDP].sport) == (VIPS[family], request.src, 53)
    counters = bench.counters(service_id, server_id)
    assert (counters.connections, counters.packets_in, counters.packets_out) == (1, 4, 4)
    assert bench.events() == {} and len(bench.records()) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_direct(bench: Bench, family: int) -> None:
    service(bench, family, DIRECT)
    asked = pieces(udp(4000, vip=VIPS[family], data=DATA))
    for part, out in zip(asked, sent(bench, asked), strict=True):
        expected = type(part)(bytes(part))
        if family == 6:
            expected.hlim -= 1
        else:
            expected.ttl -= 1
            del expected.chksum
        assert bytes(out.ip) == bytes(expected)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("tunnel", "size"),
    [
        (Tunnel(), 0),
        (Tunnel(TunnelType.GUE, 6080, TunnelChecksum.FULL), 12),
        (Tunnel(TunnelType.GRE, 0, TunnelChecksum.FULL), 8),
    ],
    ids=["ipip", "gue", "gre"],
)
def test_tunnel(bench: Bench, family: int, tunnel: Tunnel, size: int) -> None:
    service(bench, family, TUNNEL, tunnel=tunnel)
    asked = pieces(udp(4000, vip=VIPS[family], data=DATA))
    outs = sent(bench, asked)  # each outer checksum is right: the bench looks
    got = whole([bytes(out.ip)[(40 if family == 6 else 20) + size :] for out in outs])
    assert transport_sum(got) == 0xFFFF and got[-3000:] == DATA


@pytest.mark.parametrize("family", [4, 6])
def test_what_overtakes_the_first_is_counted(bench: Bench, family: int) -> None:
    service(bench, family, MASQUERADE)
    asked = pieces(udp(vip=VIPS[family], data=DATA))
    out = bench.send(asked[1])
    assert (out.verdict, bytes(out.ip)) == ("pass", bytes(asked[1]))
    assert bench.events() == {Event.FRAGMENT: 1} and bench.records() == []
    sent(bench, asked)
    # another datagram is another identification
    assert bench.send(pieces(udp(vip=VIPS[family], data=DATA), fragment_id=78)[2]).verdict == "pass"
    assert bench.event(Event.FRAGMENT) == 2


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_are_waited_for_30_seconds(bench: Bench, family: int) -> None:
    service(bench, family, MASQUERADE)
    asked = pieces(udp(vip=VIPS[family], data=DATA))
    sent(bench, asked[:1])
    bench.advance(30)
    sent(bench, asked[1:2])
    bench.advance(0.001)
    assert bench.send(asked[2]).verdict == "pass"


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_to_a_deleted_server_are_dropped(bench: Bench, family: int) -> None:
    service_id, server_id = service(bench, family, MASQUERADE)
    asked = pieces(udp(vip=VIPS[family], data=DATA))
    sent(bench, asked[:1])
    bench.remove(service_id, server_id)
    assert bench.send(asked[1]).verdict == "drop" and bench.events() == {Event.DROP_SERVER_GONE: 1}


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_without_a_service_pass(bench: Bench, family: int) -> None:
    service(bench, family, MASQUERADE)
    for part in pieces(udp(vip=VIPS[family], dport=54, data=DATA)):
        assert bench.send(part).verdict == "pass"
    for part in pieces(udp(vip="2001:db8::77" if family == 6 else "192.0.2.77", data=DATA)):
        assert bench.send(part).verdict == "pass"
    assert bench.events() == {Event.FRAGMENT: 3}


@pytest.mark.parametrize("family", [4, 6])
def test_a_tcp_header_in_two_pieces_is_malformed(bench: Bench, family: int) -> None:
    """RFC 1858, RFC 7112: a way round filters, nobody's real traffic."""
    bench.server(bench.service(f"tcp:[{VIP6}]:80" if family == 6 else f"tcp:{VIP}:80"),
                 f"[{SERVER6}]:80" if family == 6 else "198.51.100.11:80")  # fmt: skip
    first = pieces(tcp(vip=VIPS[family], data=b"x" * 100), 8)[0]
    assert bench.send(first).verdict == "drop" and bench.events() == {Event.DROP_L4_HEADER: 1}


@pytest.mark.parametrize("family", [4, 6])
def test_a_fragmented_ping_is_the_stacks_business(bench: Bench, family: int) -> None:
    service(bench, family, MASQUERADE)
    ping = ICMPv6EchoRequest(data=DATA) if family == 6 else ICMP() / DATA
    packet = (IPv6(src=CLIENT6, dst=VIP6) if family == 6 else IP(src=CLIENT, dst=VIP)) / ping
    for part in pieces(type(packet)(bytes(packet))):
        assert bench.send(part).verdict == "pass"
    assert bench.events() == {Event.FRAGMENT: 3}  # the first one is not missed


def test_a_first_fragment_of_another_protocol_follows_none(bench: Bench) -> None:
    """With the identification of a known datagram: what the first fragment says is what counts (RFC 8200 4.5)."""
    service(bench, 6, MASQUERADE)
    first, *_ = pieces(IPv6(src=CLIENT6, dst=VIP6) / UDP(sport=4000, dport=53) / DATA)
    assert bench.send(first).verdict == "send"
    first[IPv6ExtHdrFragment].nh = 2
    out = bench.send(first)
    assert out.verdict == "pass" and IPv6(out.frame[14:]).dst == VIP6


def test_an_atomic_fragment_is_a_whole_packet(bench: Bench) -> None:
    """RFC 6946"""
    service(bench, 6, MASQUERADE, 5353)
    packet = IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrFragment(id=5) / UDP(sport=4000, dport=53) / b"query"
    out = bench.send(packet)
    assert (out.verdict, out.ip.dst, out.ip[UDP].dport) == ("send", SERVER6, 5353)
    assert transport_sum(bytes(out.ip)) == 0xFFFF


def test_extension_headers_around_the_fragment_header(bench: Bench) -> None:
    service(bench, 6, MASQUERADE, 5353)
    before = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    asked = IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]) / UDP(sport=1, dport=53)
    parts = fragment6(IPv6(bytes(asked / Raw(DATA))), 1000, 9, before)
    outs = sent(bench, parts)
    assert outs[0].ip[UDP].dport == 5353 and {out.ip.dst for out in outs} == {SERVER6}


def test_a_sender_of_too_big_fragments_is_told(bench: Bench) -> None:
    bench.hops.mtu = 1280
    service(bench, 6, DIRECT)
    asked = pieces(udp(vip=VIP6, data=DATA), 1400)
    told = bench.send(asked[0])
    assert (told.verdict, told.ip.dst, told.ip[ICMPv6PacketTooBig].mtu) == ("send", CLIENT6, 1280)
    quote = IPv6(bytes(told.ip[ICMPv6PacketTooBig].payload))
    assert (quote[IPv6ExtHdrFragment].id, quote[UDP].sport, quote[UDP].dport) == (77, 40000, 53)
    assert bench.send(asked[1]).verdict == "drop", "about a later one nobody is told (RFC 1122 3.2.2)"
    assert bench.events() == {Event.DROP_TOO_BIG: 2, Event.ICMP_SENT: 1}
