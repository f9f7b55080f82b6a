"""Tunnels of every type between every pair of families, as ip_vs builds them; with checksums or none."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, PadN
from scapy.layers.l2 import GRE
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import Tunnel, TunnelChecksum, TunnelType
from tests.packets.bench import TUNNEL, Bench
from tests.packets.checksums import GUE_PORT, ones_complement, transport_sum
from tests.packets.traffic import answer, tcp, udp
from tests.packets.wire import CLIENT, CLIENT6, SERVER6, SERVER_MAC, VIP, VIP6

pytestmark = pytest.mark.root
SERVER = "198.51.100.11"
TUNNELS = {
    "ipip": Tunnel(TunnelType.IPIP),
    "gue": Tunnel(TunnelType.GUE, GUE_PORT),
    "gue-csum": Tunnel(TunnelType.GUE, GUE_PORT, TunnelChecksum.FULL),
    "gue-remcsum": Tunnel(TunnelType.GUE, GUE_PORT, TunnelChecksum.REMOTE),
    "gre": Tunnel(TunnelType.GRE),
    "gre-csum": Tunnel(TunnelType.GRE, 0, TunnelChecksum.FULL),
}
OVERHEAD = {"ipip": 0, "gue": 12, "gue-csum": 12, "gue-remcsum": 12, "gre": 4, "gre-csum": 8}
VIPS = {4: VIP, 6: VIP6}
SERVERS = {4: SERVER, 6: SERVER6}
# (family inside, outside, whether the next hop is cached); where it is not, no outer source is known either
WAYS = [(4, 4, True), (6, 6, True), (6, 4, True), (4, 6, True), (4, 4, False), (6, 6, False)]
OWN = {4: "198.51.100.1", 6: "2001:db8:b::1"}


def service(bench: Bench, name: str, inner: int, outer: int, protocol: str = "tcp", *, hop: bool = True) -> None:
    vip, server = ((f"[{one}]" if ":" in one else one) for one in (VIPS[inner], SERVERS[outer]))
    bench.server(bench.service(f"{protocol}:{vip}:80"), f"{server}:80", TUNNEL, tunnel=TUNNELS[name], hop=hop)


def opened(packet: Packet, name: str, inner: int) -> Packet:
    """The packet in a tunnel; its header is checked."""
    outer = packet.nh if packet.version == 6 else packet.proto
    data = bytes(packet.payload)
    if name == "ipip":
        assert outer == (41 if inner == 6 else 4)
    elif name.startswith("gue"):
        header = UDP(data)
        assert outer == 17 and header.dport == GUE_PORT and header.sport >= 0xC000
        assert (header.chksum != 0) == (name == "gue-csum")
        if header.chksum:
            assert transport_sum(bytes(packet)) == 0xFFFF
        # version 0, data, no optional words; then the protocol of what is inside (draft-ietf-intarea-gue 3.1)
        assert data[8:12] == bytes([0, 41 if inner == 6 else 4, 0, 0])
        data = data[12:]
    else:
        assert outer == 47
        header = GRE(data)
        assert header.proto == (0x86DD if inner == 6 else 0x0800) and header.chksum_present == (name == "gre-csum")
        if header.chksum_present:
            assert ones_complement(data) == 0xFFFF
        data = data[8 if header.chksum_present else 4 :]
    return IPv6(data) if inner == 6 else IP(data)


def aged(packet: Packet) -> bytes:
    """As it leaves: one hop older."""
    again = type(packet)(bytes(packet))
    if isinstance(again, IPv6):
        again.hlim -= 1
    else:
        again.ttl -= 1
        del again.chksum
    return bytes(again)


@pytest.mark.parametrize(("inner", "outer", "hop"), WAYS)
@pytest.mark.parametrize("name", TUNNELS)
def test_every_tunnel(bench: Bench, name: str, inner: int, outer: int, hop: bool) -> None:
    service(bench, name, inner, outer, hop=hop)
    fields = {"tc": 0xB8, "hlim": 20, "fl": 7} if inner == 6 else {"tos": 0xB8, "ttl": 20, "id": 513}
    packet = tcp(vip=VIPS[inner], data=b"odd", **fields)
    if inner == 4:
        packet.flags = "DF"
    out = bench.send(packet)
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    assert out.eth.type == (0x86DD if outer == 6 else 0x0800)
    assert (out.ip.src, out.ip.dst) == (OWN[outer] if hop else packet.src, SERVERS[outer])
    size = len(packet) + OVERHEAD[name]
    if outer == 6:
        assert (out.ip.hlim, out.ip.tc, out.ip.fl, out.ip.plen) == (64, 0xB8, 0, size)
    else:
        assert (out.ip.ttl, out.ip.tos, out.ip.flags, out.ip.len) == (64, 0xB8, "DF", size + 20)
        assert out.ip.id == (513 if inner == 4 else 0)
    assert len(out.frame) == 14 + size + (40 if outer == 6 else 20)
    assert bytes(opened(out.ip, name, inner)) == aged(packet)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("name", TUNNELS)
@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 128, 1000])
def test_what_carries_no_checksum_inside(bench: Bench, name: str, outer: int, size: int) -> None:
    """UDP without one (RFC 768): the outer checksum is summed up over the whole packet."""
    service(bench, name, 4, outer, "udp")
    packet = IP(src=CLIENT, dst=VIP) / UDP(sport=7, dport=80, chksum=0) / bytes(n % 251 for n in range(size))
    out = bench.send(packet)
    assert out.verdict == "send" and bytes(opened(out.ip, name, 4)) == aged(packet)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("name", ["gue-csum", "gre-csum", "ipip"])
@pytest.mark.parametrize("size", [8, 64, 72, 208])
def test_extension_headers_inside(bench: Bench, name: str, outer: int, size: int) -> None:
    service(bench, name, 6, outer)
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(n % 251 for n in range(size - 4)))])
    packet = IPv6(src=CLIENT6, dst=VIP6) / options / TCP(sport=40000, dport=80) / b"data"
    out = bench.send(packet)
    assert out.verdict == "send" and bytes(opened(out.ip, name, 6)) == aged(packet)


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("name", TUNNELS)
def test_errors_about_what_the_server_said_reach_it(bench: Bench, name: str, inner: int, outer: int) -> None:
    service(bench, name, inner, outer)
    asked = tcp(vip=VIPS[inner])
    bench.send(asked)
    told = bytes(answer(asked, "A", data=b"y" * 40))
    if inner == 6:
        error: Packet = IPv6(src="2001:db8::99", dst=VIP6) / ICMPv6PacketTooBig(mtu=1400) / told
    else:
        error = IP(src="192.0.2.99", dst=VIP) / ICMP(type=3, code=4, nexthopmtu=1400) / told
    out = bench.send(error)
    assert out.verdict == "send" and bytes(opened(out.ip, name, inner)) == aged(error)


@pytest.mark.parametrize(("inner", "outer", "hop"), WAYS)
@pytest.mark.parametrize("name", TUNNELS)
def test_too_big_names_what_fits_into_the_tunnel(bench: Bench, name: str, inner: int, outer: int, hop: bool) -> None:
    service(bench, name, inner, outer, "udp", hop=hop)
    fits = 1500 - (40 if outer == 6 else 20) - OVERHEAD[name]
    header = 48 if inner == 6 else 28
    fields = {} if inner == 6 else {"flags": "DF"}
    out = bench.send(udp(vip=VIPS[inner], dport=80, data=b"x" * (fits - header), **fields))
    assert (out.verdict, len(out.frame)) == ("send", 1514)
    told = bench.send(udp(vip=VIPS[inner], dport=80, data=b"x" * (fits - header + 1), **fields))
    assert (told.verdict, told.ip.src) == ("send", VIPS[inner])
    mtu = told.ip[ICMPv6PacketTooBig].mtu if inner == 6 else told.ip[ICMP].nexthopmtu
    assert mtu == fits and bench.events() == {Event.DROP_TOO_BIG: 1, Event.ICMP_SENT: 1}


def test_mixed_families_without_an_own_address_are_dropped_and_counted(bench: Bench) -> None:
    service(bench, "ipip", 6, 4, hop=False)
    assert bench.send(tcp(vip=VIP6)).verdict == "drop"
    assert bench.events() == {Event.DROP_NO_ROUTE: 1}


def test_flows_have_their_own_source_ports(bench: Bench) -> None:
    """So that receivers spread them over their CPUs (RFC 7510 section 3)."""
    service(bench, "gue", 4, 4)
    ports = [bench.send(tcp(port)).ip[UDP].sport for port in range(40000, 40040) for _ in range(2)]
    assert ports[::2] == ports[1::2] and len(set(ports)) > 30


def test_jumbo_frame_is_summed_up_whole(bench: Bench) -> None:
    bench.hops.mtu = 9000
    service(bench, "gre-csum", 4, 4, "udp")
    packet = IP(src=CLIENT, dst=VIP) / UDP(sport=7, dport=80, chksum=0) / bytes(n % 251 for n in range(3000))
    out = bench.send(packet)
    assert out.verdict == "send" and bytes(opened(out.ip, "gre-csum", 4)) == aged(packet)
