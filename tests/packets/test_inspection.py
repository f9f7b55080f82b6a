"""What is dropped though it parses: packets from the VIP itself, and on request IP options and bad L4 checksums.

And a first packet whose time to live is over: answered, and nothing is remembered of it.
"""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import DropRules
from tests.packets.bench import DIRECT, Bench
from tests.packets.traffic import client_of, fragment6, ip, patched, tcp, udp
from tests.packets.wire import CLIENT, VIP, VIP6

pytestmark = pytest.mark.root
both_families = pytest.mark.parametrize("vip", [VIP, VIP6])


def services(bench: Bench, vip: str, **fields: int) -> None:
    text, server = (vip, "198.51.100.11") if ":" not in vip else (f"[{vip}]", "[2001:db8:b::11]")
    for protocol in ("tcp", "udp"):
        bench.server(bench.service(f"{protocol}:{text}:80", **fields), f"{server}:8080")


# --- LAND -----------------------------------------------------------------------------------------------------------


@both_families
@pytest.mark.parametrize("served", [True, False])
def test_a_packet_from_the_vip_itself_is_dropped(bench: Bench, vip: str, *, served: bool) -> None:
    if served:
        services(bench, vip)
    else:
        bench.service(f"tcp:{vip if ':' not in vip else f'[{vip}]'}:80")
    assert bench.send(tcp(80, vip=vip, client=vip)).verdict == "drop"
    assert bench.events() == {Event.DROP_LAND: 1} and bench.records() == []


@both_families
def test_a_datagram_and_an_echo_request_too(bench: Bench, vip: str) -> None:
    services(bench, vip)
    echo = ICMPv6EchoRequest() if ":" in vip else ICMP()
    for packet in (udp(80, vip=vip, client=vip, dport=80), ip(vip, vip) / echo):
        assert bench.send(packet).verdict == "drop"
    assert bench.events() == {Event.DROP_LAND: 2} and bench.records() == []


# --- time to live ---------------------------------------------------------------------------------------------------


@both_families
@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("persistent_s", [0, 60])
@pytest.mark.parametrize("layer", [TCP, UDP])
def test_a_first_packet_whose_time_is_over_leaves_nothing(
    bench: Bench, vip: str, ttl: int, persistent_s: int, layer: type[Packet]
) -> None:
    services(bench, vip, persistent_s=persistent_s)
    hops = {"hlim": ttl} if ":" in vip else {"ttl": ttl}
    out = bench.send(ip(client_of(vip), vip, **hops) / layer(sport=40000, dport=80))
    assert (out.verdict, out.ip.src, out.ip.dst) == ("send", vip, client_of(vip))
    if ":" in vip:
        assert out.ip[ICMPv6TimeExceeded].code == 0
    else:
        assert (out.ip[ICMP].type, out.ip[ICMP].code) == (11, 0)
    assert bench.records() == [] and bench.gauges() == (0, 0)
    assert bench.events() == {Event.DROP_TTL: 1, Event.ICMP_SENT: 1}


def test_the_nodes_own_server_takes_it(bench: Bench) -> None:
    service = bench.service()
    server = bench.server(service, f"{VIP}:80", DIRECT)
    bench.hops.own.add(server.address)
    bench.tables.hop_changed(server.address)
    assert bench.send(tcp(ttl=1)).verdict == "pass" and len(bench.records()) == 1


# --- IP options -----------------------------------------------------------------------------------------------------

PADDING = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
WITH_OPTIONS = {
    "options": IP(src=CLIENT, dst=VIP, options=[IPOption_NOP()]) / TCP(sport=1, dport=80),
    "destination": ip(client_of(VIP6), VIP6) / PADDING / TCP(sport=1, dport=80),
    "hop by hop": ip(client_of(VIP6), VIP6)
    / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])
    / UDP(sport=1, dport=80),
    "routing": ip(client_of(VIP6), VIP6)
    / IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=0)
    / TCP(sport=1, dport=80),
}


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_options_pass_unless_the_settings_drop_them(bench: Bench, name: str) -> None:
    services(bench, VIP)
    services(bench, VIP6)
    assert bench.send(WITH_OPTIONS[name]).verdict == "send" and bench.events() == {}
    bench.configure(drop=DropRules(ip_options=True))
    assert bench.send(WITH_OPTIONS[name]).verdict == "drop"
    assert bench.events() == {Event.DROP_IP_OPTIONS: 1}
    other = WITH_OPTIONS[name].copy()
    other.dst = "2001:db8::77" if ":" in other.dst else "192.0.2.77"
    assert bench.send(other).verdict == "pass" and bench.events() == {Event.DROP_IP_OPTIONS: 1}


@both_families
def test_without_options_nothing_changes(bench: Bench, vip: str) -> None:
    """Neither for whole packets nor for fragments."""
    services(bench, vip)
    bench.configure(drop=DropRules(ip_options=True, bad_checksums=True))
    bench.establish(vip=vip)
    large = udp(vip=vip, dport=80, data=bytes(400))
    for piece in fragment6(large, 200) if ":" in vip else fragment(IP(bytes(large)), 200):
        assert bench.send(piece, check="ip").verdict == "send"
    assert bench.events() == {}


# --- checksums ------------------------------------------------------------------------------------------------------


@both_families
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1400])
@pytest.mark.parametrize("make", [tcp, udp])
def test_bad_checksums_on_request(bench: Bench, vip: str, size: int, make: type) -> None:
    services(bench, vip)
    packet = make(vip=vip, dport=80, data=bytes(range(7)) * (size // 7) + bytes(size % 7))
    at = (40 if ":" in vip else 20) + (16 if make is tcp else 6)
    check = int.from_bytes(bytes(packet)[at : at + 2], "big")
    wrong = type(packet)(patched(packet, at, (check ^ 1).to_bytes(2, "big")))
    assert bench.send(wrong, check="ip").verdict == "send" and bench.events() == {}
    bench.configure(drop=DropRules(bad_checksums=True))
    assert bench.send(wrong).verdict == "drop" and bench.events() == {Event.DROP_L4_CHECKSUM: 1}
    assert bench.send(packet).verdict == "send" and bench.events() == {Event.DROP_L4_CHECKSUM: 1}


@both_families
def test_a_datagram_without_checksum(bench: Bench, vip: str) -> None:
    """Legal over IPv4 (RFC 768), not over IPv6 (RFC 8200 section 8.1)."""
    services(bench, vip)
    bench.configure(drop=DropRules(bad_checksums=True))
    out = bench.send(ip(client_of(vip), vip) / UDP(sport=1, dport=80, chksum=0) / b"data")
    assert out.verdict == ("drop" if ":" in vip else "send")


def test_a_datagram_shorter_than_its_packet(bench: Bench) -> None:
    services(bench, VIP)
    bench.configure(drop=DropRules(bad_checksums=True))
    whole = udp(dport=80, data=b"data")
    padded = IP(src=CLIENT, dst=VIP, proto=17) / (bytes(whole.payload) + b"junk")
    assert bench.send(padded, check="ip").verdict == "send" and bench.events() == {}


def test_a_checksum_that_the_device_fills_in(bench: Bench) -> None:
    """A socket buffer that never was on a wire: the field holds the pseudo header's sum (CHECKSUM_PARTIAL)."""
    services(bench, VIP)
    bench.configure(drop=DropRules(bad_checksums=True))
    packet = tcp(data=b"never on a wire")
    words = bytes(packet)[12:20] + bytes([0, 6]) + (len(packet) - 20).to_bytes(2, "big")
    total = sum(int.from_bytes(words[n : n + 2], "big") for n in range(0, len(words), 2))
    pseudo = (total & 0xFFFF) + (total >> 16)
    out = bench.send(IP(patched(packet, 36, pseudo.to_bytes(2, "big"))), check="ip")
    assert out.verdict == ("drop" if bench.entry == "xdp" else "send")
