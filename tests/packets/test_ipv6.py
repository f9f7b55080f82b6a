"""IPv6 services: masquerade, direct routing, extension headers (RFC 8200), ICMPv6 (RFC 4443)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event
from lbnode.errors import DataPlaneError
from lbnode.model import ServiceId
from tests.packets.bench import DIRECT, MASQUERADE, Bench
from tests.packets.traffic import answer, ether, patched, tcp, udp
from tests.packets.wire import CLIENT6, CLIENT_ROUTER_MAC, SERVER6, SERVER_MAC, VIP6

pytestmark = pytest.mark.root
ROUTER = "2001:db8:b::200"  # somewhere between


def service(bench: Bench, text: str = f"tcp:[{VIP6}]:80", port: int = 8080, forward: str = MASQUERADE) -> ServiceId:
    service_id = bench.service(text)
    bench.server(service_id, f"[{SERVER6}]:{port}", forward)
    return service_id


def options(size: int) -> list[PadN]:
    """Padding for an options header of `size` bytes."""
    return [PadN(optdata=bytes(size - 4))]


EXTENSIONS = {
    "hop-by-hop": IPv6ExtHdrHopByHop(options=options(8)),
    "destination": IPv6ExtHdrDestOpt(options=options(24)),
    "routing": IPv6ExtHdrRouting(type=2, segleft=0, addresses=[VIP6]),
    "several": IPv6ExtHdrHopByHop(options=options(8)) / IPv6ExtHdrDestOpt(options=options(16))
    / IPv6ExtHdrRouting(type=2, segleft=0, addresses=[VIP6]) / IPv6ExtHdrDestOpt(options=options(8)),
    "208 bytes": IPv6ExtHdrDestOpt(options=options(208)),
}  # fmt: skip


# --- masquerade -----------------------------------------------------------------------------------------------------


def test_tcp_both_directions(bench: Bench) -> None:
    service(bench)
    out = bench.send(tcp(40000, "S", vip=VIP6, hlim=50, tc=0x28, fl=0x12345))
    assert out.verdict == "send" and not out.reflected
    assert (out.eth.src, out.eth.dst, out.eth.type) == (bench.wire.mac("back"), SERVER_MAC, 0x86DD)
    assert (out.ip.src, out.ip.dst, out.ip.hlim, out.ip.tc, out.ip.fl) == (CLIENT6, SERVER6, 49, 0x28, 0x12345)
    assert (out.ip[TCP].sport, out.ip[TCP].dport, out.ip[TCP].seq) == (40000, 8080, 1000)

    back = bench.send(answer(out.ip, hlim=64, data=b"hello"), "back")
    assert back.verdict == "send"
    assert (back.eth.src, back.eth.dst) == (bench.wire.mac("front"), CLIENT_ROUTER_MAC)
    assert (back.ip.src, back.ip.dst, back.ip.hlim) == (VIP6, CLIENT6, 63)
    assert (back.ip[TCP].sport, back.ip[TCP].dport, back.ip[Raw].load) == (80, 40000, b"hello")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 1400, 1452])
def test_udp_of_every_parity(bench: Bench, size: int) -> None:
    service(bench, f"udp:[{VIP6}]:53", 5353)
    out = bench.send(udp(1234, vip=VIP6, data=b"x" * size))
    assert (out.verdict, out.ip.dst, out.ip[UDP].dport) == ("send", SERVER6, 5353)
    back = bench.send(answer(out.ip, data=b"y" * size), "back")
    assert (back.verdict, back.ip.src, back.ip[UDP].sport, back.ip[UDP].dport) == ("send", VIP6, 53, 1234)


def test_udp_checksum_that_becomes_zero_is_sent_as_ffff(bench: Bench) -> None:
    """RFC 8200 8.1: zero is not a checksum in IPv6."""
    service(bench, f"udp:[{VIP6}]:53", 5353)
    translated = bytes(IPv6(src=CLIENT6, dst=SERVER6) / UDP(sport=9, dport=5353) / b"\0\0")
    packet = IPv6(src=CLIENT6, dst=VIP6) / UDP(sport=9, dport=53) / translated[46:48]
    out = bench.send(packet)
    assert (out.verdict, out.ip[UDP].chksum) == ("send", 0xFFFF)


def test_next_hop_from_the_kernels_routes(bench: Bench) -> None:
    bench.server(bench.service(f"tcp:[{VIP6}]:80"), "[2001:db8:b::12]:80", hop=False)
    out = bench.send(tcp(vip=VIP6))
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    assert out.ip.dst == "2001:db8:b::12"


def test_unresolved_neighbour_is_handed_over(bench: Bench) -> None:
    bench.server(bench.service(f"tcp:[{VIP6}]:80"), "[2001:db8:b::77]:80", DIRECT, hop=False)
    out = bench.send(tcp(vip=VIP6))
    assert (out.verdict, out.handover) == (("pass", True) if bench.entry == "xdp" else ("send", False))
    assert out.ip.dst == VIP6 and bench.events() == {Event.NO_NEIGHBOUR: 1}


def test_families_are_apart(bench: Bench) -> None:
    """A service of one family never gets the other's packets, with connections of both in the table."""
    service(bench)
    bench.server(bench.service(), "198.51.100.11:8080")
    assert bench.send(tcp(vip=VIP6)).ip.dst == SERVER6
    assert bench.send(tcp()).ip.dst == "198.51.100.11"
    assert {str(record.inward.target) for record in bench.records()} == {VIP6, "192.0.2.10"}
    assert bench.send(tcp(vip="2001:db8::11")).verdict == "pass"
    mapped = tcp(vip="::ffff:192.0.2.10", client="::ffff:203.0.113.5")
    assert bench.send(mapped).verdict == "pass", "not IPv4's connection"


def test_states_and_counters(bench: Bench) -> None:
    web = service(bench)
    last = bench.establish(vip=VIP6)
    assert last.dst == SERVER6 and bench.record().state.name == "ESTABLISHED"
    counters = bench.counters(web)
    assert (counters.packets_in, counters.bytes_in, counters.packets_out, counters.bytes_out) == (2, 120, 1, 60)
    assert bench.gauges() == (1, 0)


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_hashing_keeps_a_client_on_its_server(bench: Bench, scheduler: str) -> None:
    web = bench.service(f"tcp:[{VIP6}]:80", scheduler)
    for last in (11, 12, 13):
        bench.server(web, f"[2001:db8:b::{last}]:80")
    clients = [f"2001:db8:c::{n:x}:5" for n in range(40)]
    chosen = [{bench.connect(port, vip=VIP6, client=client).ip.dst for port in (1, 2)} for client in clients]
    assert {len(servers) for servers in chosen} == {1} and len(set.union(*chosen)) == 3


# --- direct routing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hop", [True, False], ids=["cached", "routes"])
def test_direct_changes_the_macs_alone(bench: Bench, hop: bool) -> None:
    bench.server(bench.service(f"tcp:[{VIP6}]:80"), f"[{SERVER6}]:80", DIRECT, hop=hop)
    packet = tcp(40000, "S", vip=VIP6, hlim=33, data=b"early")
    out = bench.send(packet)
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    expected = IPv6(bytes(packet))
    expected.hlim = 32
    assert bytes(out.ip) == bytes(expected)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_too_big_with_extension_headers_is_told_too(bench: Bench, name: str) -> None:
    bench.hops.mtu = 1300
    service(bench, port=80, forward=DIRECT)
    packet = IPv6(src=CLIENT6, dst=VIP6) / EXTENSIONS[name] / TCP(sport=40000, dport=80) / bytes(1250)
    told = bench.send(packet)
    assert (told.verdict, told.ip.src, told.ip[ICMPv6PacketTooBig].mtu) == ("send", VIP6, 1300)
    quote = bytes(told.ip[ICMPv6PacketTooBig].payload)
    assert quote == bytes(packet)[: 40 + len(EXTENSIONS[name]) + 8]


@pytest.mark.parametrize("hop", [True, False], ids=["cached", "routes"])
def test_too_big_is_told_to_the_sender(bench: Bench, hop: bool) -> None:
    bench.hops.mtu = 1400
    bench.server(bench.service(f"udp:[{VIP6}]:53"), f"[{SERVER6}]:53", DIRECT, hop=hop)
    size = 1400 if hop else 1500  # the interface's
    assert bench.send(udp(vip=VIP6, data=b"x" * (size - 48))).verdict == "send"
    told = bench.send(udp(vip=VIP6, data=b"x" * (size - 47)))
    assert (told.verdict, told.ip.src, told.ip.dst) == ("send", VIP6, CLIENT6)
    assert told.ip[ICMPv6PacketTooBig].mtu == size
    quote = IPv6(bytes(told.ip[ICMPv6PacketTooBig].payload))
    assert (quote.src, quote.dst, quote.plen, quote[UDP].sport, quote[UDP].dport) == (
        CLIENT6,
        VIP6,
        size - 39,
        40000,
        53,
    )
    assert (told.eth.src, told.eth.dst) == (bench.wire.mac("front"), "02:00:00:00:00:99")
    assert bench.events() == {Event.DROP_TOO_BIG: 1, Event.ICMP_SENT: 1}


def test_hop_limit_that_runs_out_is_answered(bench: Bench) -> None:
    service(bench)
    out = bench.send(tcp(vip=VIP6, hlim=1))
    assert (out.verdict, out.ip.src, out.ip.dst) == ("send", VIP6, CLIENT6)
    assert out.ip[ICMPv6TimeExceeded].code == 0 and bench.drops() == 1


def test_without_a_server_it_is_refused(bench: Bench) -> None:
    bench.service(f"udp:[{VIP6}]:53")
    out = bench.send(udp(vip=VIP6))
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip[ICMPv6DestUnreach].code) == ("send", VIP6, CLIENT6, 4)
    assert bench.events() == {Event.DROP_NO_SERVER: 1, Event.ICMP_SENT: 1}


# --- extension headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT])
@pytest.mark.parametrize("name", EXTENSIONS)
def test_extension_headers_are_passed_over_and_kept(bench: Bench, name: str, forward: str) -> None:
    port = 8080 if forward is MASQUERADE else 80
    service(bench, port=port, forward=forward)
    packet = IPv6(src=CLIENT6, dst=VIP6) / EXTENSIONS[name] / TCP(sport=40000, dport=80) / b"data"
    size = len(EXTENSIONS[name])
    out = bench.send(packet)
    assert out.verdict == "send" and out.ip.dst == (SERVER6 if forward is MASQUERADE else VIP6)
    assert bytes(out.ip)[40 : 40 + size] == bytes(packet)[40 : 40 + size]
    assert (out.ip[TCP].dport, bytes(out.ip[TCP].payload)) == (port, b"data")


@pytest.mark.parametrize(
    "extension",
    [
        IPv6ExtHdrRouting(type=2, segleft=1, addresses=["2001:db8::99"]),
        IPv6ExtHdrDestOpt(options=options(216)),
        IPv6ExtHdrDestOpt(options=options(8)) / IPv6ExtHdrDestOpt(options=options(8))
        / IPv6ExtHdrDestOpt(options=options(8)) / IPv6ExtHdrDestOpt(options=options(8))
        / IPv6ExtHdrDestOpt(options=options(8)) / IPv6ExtHdrDestOpt(options=options(8))
        / IPv6ExtHdrDestOpt(options=options(8)),
    ],
    ids=["not at its target", "too long", "too many"],
)  # fmt: skip
def test_what_is_not_looked_at_passes(bench: Bench, extension: Packet) -> None:
    service(bench)
    packet = IPv6(src=CLIENT6, dst=VIP6) / extension / TCP(sport=40000, dport=80)
    out = bench.send(packet)
    assert (out.verdict, bytes(out.ip)) == ("pass", bytes(packet)) and bench.records() == []


# --- bad packets ------------------------------------------------------------------------------------------------


BAD: dict[str, tuple[Event, bytes]] = {
    "version 5": (Event.DROP_IP_HEADER, patched(tcp(vip=VIP6), 0, b"\x50")),
    "length beyond the frame": (Event.DROP_IP_HEADER, patched(tcp(vip=VIP6), 4, b"\x00\x15")),
    "no room for TCP": (Event.DROP_L4_HEADER, patched(tcp(vip=VIP6), 4, b"\x00\x13")),
    "TCP header of 16 bytes": (Event.DROP_L4_HEADER, patched(tcp(vip=VIP6), 52, b"\x40")),
    "TCP header beyond the packet": (Event.DROP_L4_HEADER, patched(tcp(vip=VIP6), 52, b"\x60")),
    "UDP length of 7": (Event.DROP_L4_HEADER, patched(udp(vip=VIP6), 44, b"\x00\x07")),
    "UDP length beyond the packet": (Event.DROP_L4_HEADER, patched(udp(vip=VIP6), 44, b"\x00\x0e")),
    "extension beyond the packet": (
        Event.DROP_IP_HEADER,
        patched(IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrDestOpt(options=options(8)) / TCP(dport=80), 41, b"\x04"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_is_dropped_and_counted(bench: Bench, name: str) -> None:
    service(bench)
    service(bench, f"udp:[{VIP6}]:53")
    frame = ether(IPv6(), target=bench.wire.mac("front"))[:14] + BAD[name][1]
    assert bench.send(frame).verdict == "drop"
    assert bench.events() == {BAD[name][0]: 1} and bench.records() == []


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT])
@pytest.mark.parametrize(
    "packet",
    [
        tcp(vip=VIP6, data=b"0123456789"),
        udp(vip=VIP6, dport=80, data=b"01234567"),
        IPv6(src=CLIENT6, dst=VIP6) / ICMPv6EchoRequest(data=b"abcdefgh"),
        IPv6(src=CLIENT6, dst=VIP6) / IPv6ExtHdrDestOpt(options=options(16)) / TCP(sport=40000, dport=80) / b"abc",
    ],
    ids=["tcp", "udp", "icmp", "extension"],
)
def test_truncated_at_every_byte(bench: Bench, packet: Packet, forward: str) -> None:
    for protocol in ("tcp", "udp"):
        service(bench, f"{protocol}:[{VIP6}]:80", 80, forward)
    whole = ether(packet, target=bench.wire.mac("front"))
    for length in range(14, len(whole)):
        try:
            verdict = bench.send(whole[:length]).verdict
        except DataPlaneError:
            assert length < 54  # the kernel makes no socket buffer of less than an IP header
            continue
        assert verdict == ("pass" if length < 54 else "drop"), length
    assert bench.events() == {Event.DROP_IP_HEADER: len(whole) - 54}
    assert bench.records() == []
    assert bench.send(whole).verdict == "send"


# --- ICMPv6 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [None, "destination"])
@pytest.mark.parametrize("size", [0, 1, 56, 1400])
def test_echo_to_a_vip_is_answered(bench: Bench, size: int, extension: str | None) -> None:
    service(bench)
    head = IPv6(src=CLIENT6, dst=VIP6, hlim=3)
    request = (head / EXTENSIONS[extension] if extension else head) / ICMPv6EchoRequest(id=7, seq=2, data=b"p" * size)
    out = bench.send(request)
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.hlim) == ("send", VIP6, CLIENT6, 64)
    reply = out.ip[ICMPv6EchoReply]
    assert (reply.id, reply.seq, reply.data) == (7, 2, b"p" * size)
    assert (out.eth.src, out.eth.dst) == (bench.wire.mac("front"), "02:00:00:00:00:99")
    assert bench.events() == {Event.ECHO: 1}


def test_neighbour_discovery_is_the_stacks_business(bench: Bench) -> None:
    service(bench)
    packet = IPv6(src=CLIENT6, dst=VIP6, hlim=255) / ICMPv6ND_NS(tgt=VIP6)
    assert bench.send(packet).verdict == "pass" and bench.events() == {}


ERRORS = {
    "no route": ICMPv6DestUnreach(code=0),
    "port": ICMPv6DestUnreach(code=4),
    "too big": ICMPv6PacketTooBig(mtu=1300),
    "hop limit": ICMPv6TimeExceeded(code=0),
    "parameter": ICMPv6ParamProblem(code=1, ptr=6),
}


def quoted(packet: Packet, size: int | None) -> bytes:
    """`size` bytes of L4 (None: all of it)."""
    data = bytes(packet)
    return data if size is None else data[: len(data) - len(packet[TCP]) + size]


@pytest.mark.parametrize("extension", [None, "several"])
@pytest.mark.parametrize("size", [8, 20, None])
@pytest.mark.parametrize("name", ERRORS)
def test_error_about_what_the_server_got(bench: Bench, name: str, size: int | None, extension: str | None) -> None:
    service(bench)
    head = IPv6(src=CLIENT6, dst=VIP6)
    original = (head / EXTENSIONS[extension] if extension else head) / TCP(sport=40000, dport=80) / b"payload"
    sent = bench.send(original).ip
    error = IPv6(src=ROUTER, dst=CLIENT6, hlim=9) / ERRORS[name] / quoted(sent, size)
    out = bench.send(error, "back")
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.hlim) == ("send", VIP6, CLIENT6, 8)
    assert (
        bytes(out.ip.payload)[:2] + bytes(out.ip.payload)[4:8] == bytes(error.payload)[:2] + bytes(error.payload)[4:8]
    )
    inner, before = bytes(out.ip.payload)[8:], bytes(original)
    # as the client sent it, but for the hop limit; the TCP checksum too where it is quoted
    assert inner[:7] == before[:7] and inner[8:] == before[8 : len(inner)]
    assert bench.event(Event.ICMP_TRANSLATED) == 1


@pytest.mark.parametrize("size", [8, 20, None])
def test_error_about_what_the_client_got(bench: Bench, size: int | None) -> None:
    service(bench)
    reply = answer(bench.send(tcp(vip=VIP6)).ip, "SA", data=b"y" * 20)
    back = bench.send(reply, "back").ip
    out = bench.send(IPv6(src=CLIENT6, dst=VIP6, hlim=9) / ICMPv6PacketTooBig(mtu=1300) / quoted(back, size))
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.hlim) == ("send", CLIENT6, SERVER6, 8)
    assert (out.eth.dst, out.ip[ICMPv6PacketTooBig].mtu) == (SERVER_MAC, 1300)
    inner = bytes(out.ip.payload)[8:]
    assert inner[8:] == bytes(reply)[8 : len(inner)]


def test_error_about_a_datagram(bench: Bench) -> None:
    service(bench, f"udp:[{VIP6}]:53", 5353)
    query = udp(4000, vip=VIP6)
    sent = bench.send(query).ip
    out = bench.send(IPv6(src=SERVER6, dst=CLIENT6) / ICMPv6DestUnreach(code=4) / bytes(sent), "back")
    inner = bytes(out.ip.payload)[8:]
    assert (out.ip.src, inner[8:]) == (VIP6, bytes(query)[8:])


def test_error_about_a_direct_reply_goes_to_its_server(bench: Bench) -> None:
    service(bench, port=80, forward=DIRECT)
    bench.send(tcp(vip=VIP6))
    reply = IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=40000, flags="A") / (b"z" * 30)
    out = bench.send(IPv6(src=ROUTER, dst=VIP6) / ICMPv6PacketTooBig(mtu=1400) / bytes(reply))
    assert (out.verdict, out.eth.dst, out.ip.src, out.ip.dst) == ("send", SERVER_MAC, ROUTER, VIP6)
    assert bytes(out.ip.payload)[8:] == bytes(reply)


@pytest.mark.parametrize(
    "quote",
    [b"", b"\x60", bytes(40), bytes(IPv6(src=VIP6, dst=CLIENT6) / TCP(sport=80, dport=9)),
     bytes(IPv6(src=VIP6, dst=CLIENT6) / IPv6ExtHdrFragment(offset=10) / bytes(20))],
)  # fmt: skip
def test_error_about_nothing_known_passes(bench: Bench, quote: bytes) -> None:
    service(bench)
    bench.send(tcp(vip=VIP6))
    error = IPv6(src=ROUTER, dst=VIP6) / ICMPv6DestUnreach(code=1) / Raw(quote)
    assert bench.send(error).verdict == "pass" and bench.event(Event.ICMP_TRANSLATED) == 0
