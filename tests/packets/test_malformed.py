"""Bad packets to a VIP are dropped and counted, packets with IP options are balanced."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP, IPOption_RR
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from lbnode.errors import DataPlaneError
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, Bench
from tests.packets.checksums import ones_complement
from tests.packets.traffic import ether, patched, tcp, udp
from tests.packets.wire import CLIENT, VIP

pytestmark = pytest.mark.root


def with_checksum(ip: bytes) -> bytes:
    """The IPv4 header's checksum put right, so that only what a test breaks is broken."""
    length = max(20, min((ip[0] & 15) * 4, len(ip)))
    zeroed = ip[:10] + b"\0\0" + ip[12:]
    return ip[:10] + (~ones_complement(zeroed[:length]) & 0xFFFF).to_bytes(2, "big") + ip[12:]


IP_HEADER, L4_HEADER, FLAGS = Event.DROP_IP_HEADER, Event.DROP_L4_HEADER, Event.DROP_TCP_FLAGS
BAD: dict[str, tuple[Event, Callable[[], bytes]]] = {
    "version 5": (IP_HEADER, lambda: with_checksum(patched(tcp(), 0, b"\x55"))),
    "header of 16 bytes": (IP_HEADER, lambda: with_checksum(patched(tcp(), 0, b"\x44"))),
    "header longer than the packet": (IP_HEADER, lambda: with_checksum(patched(tcp(), 0, b"\x4f"))),
    "total length below the header": (IP_HEADER, lambda: with_checksum(patched(tcp(), 2, struct.pack("!H", 19)))),
    "total length beyond the frame": (IP_HEADER, lambda: with_checksum(patched(tcp(), 2, struct.pack("!H", 41)))),
    "header checksum": (Event.DROP_IP_CHECKSUM, lambda: patched(tcp(), 10, b"\x12\x34")),
    "no room for TCP": (L4_HEADER, lambda: with_checksum(patched(tcp(), 2, struct.pack("!H", 39)))),
    "TCP header of 16 bytes": (L4_HEADER, lambda: patched(tcp(), 32, b"\x40")),
    "TCP header beyond the packet": (L4_HEADER, lambda: patched(tcp(), 32, b"\x60")),
    "UDP length of 7": (L4_HEADER, lambda: patched(udp(), 24, struct.pack("!H", 7))),
    "UDP length beyond the packet": (L4_HEADER, lambda: patched(udp(), 24, struct.pack("!H", 14))),
    "no room for UDP": (L4_HEADER, lambda: with_checksum(patched(udp(), 2, struct.pack("!H", 27)))),
} | {f"flags {flags or 'none'}": (FLAGS, partial(bytes, tcp(flags=flags)))
     for flags in ("", "P", "U", "F", "FPU", "SF", "SFA", "SR", "RF", "RFA", "FSRPAU")}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_malformed_is_dropped_and_counted(bench: Bench, name: str) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    bench.server(bench.service(f"udp:{VIP}:53"), "198.51.100.11:53")
    frame = ether(IP(), target=bench.wire.mac("front"))[:14] + BAD[name][1]()
    assert bench.send(frame).verdict == "drop"
    assert bench.events() == {BAD[name][0]: 1} and bench.records() == []


def test_malformed_to_others_is_not_our_business(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    frame = ether(IP(), target=bench.wire.mac("front"))[:14] + patched(tcp(vip="192.0.2.77"), 10, b"\x12\x34")
    assert bench.send(frame).verdict == "pass" and bench.events() == {}


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT, TUNNEL])
@pytest.mark.parametrize(
    "packet",
    [tcp(data=b"0123456789"), udp(dport=80, data=b"01234567"), IP(src=CLIENT, dst=VIP) / ICMP() / b"abcdefgh"],
    ids=["tcp", "udp", "icmp"],
)
def test_truncated_at_every_byte(bench: Bench, packet: Packet, forward: str) -> None:
    for protocol in ("tcp", "udp"):
        bench.server(bench.service(f"{protocol}:{VIP}:80"), "198.51.100.11:80", forward)
    whole = ether(packet, target=bench.wire.mac("front"))
    for length in range(14, len(whole)):
        try:
            verdict = bench.send(whole[:length]).verdict
        except DataPlaneError:
            assert length < 34  # the kernel makes no socket buffer of less than an IP header
            continue
        assert verdict == ("pass" if length < 34 else "drop"), length
    assert bench.events() == {Event.DROP_IP_HEADER: len(whole) - 34}
    assert bench.records() == []
    assert bench.send(whole).verdict == "send"


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT, TUNNEL])
@pytest.mark.parametrize("options", range(1, 11))
def test_ip_options_of_every_length(bench: Bench, forward: str, options: int) -> None:
    """4 to 40 bytes: the L4 header is found behind them, and they reach the server."""
    bench.server(bench.service(), "198.51.100.11:8080" if forward is MASQUERADE else "198.51.100.11:80", forward)
    route = (
        [IPOption_RR(length=options * 4 - 1, pointer=4, routers=["192.0.2.9"] * (options - 1))] if options > 1 else []
    )
    packet = IP(src=CLIENT, dst=VIP, options=[*route, IPOption_NOP()]) / TCP(sport=40000, dport=80) / b"data"
    assert len(packet) == 20 + options * 4 + 24
    out = bench.send(packet)
    assert out.verdict == "send"
    inner = out.ip.payload if forward is TUNNEL else out.ip
    assert inner.ihl == 5 + options and bytes(inner)[20 : inner.ihl * 4] == bytes(packet)[20 : inner.ihl * 4]
    assert inner[TCP].dport == (8080 if forward is MASQUERADE else 80) and bytes(inner[TCP].payload) == b"data"
    if forward is TUNNEL:
        assert out.ip.ihl == 5
