"""Bad packets to a VIP are dropped and counted, packets with IP options are balanced; mutations of all kinds."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    PadN,
)
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from lbnode.errors import DataPlaneError
from lbnode.model import Tunnel, TunnelType
from tests.packets.bench import (
    CLIENT,
    CLIENT6,
    DIRECT,
    MASQUERADE,
    SERVER6,
    TUNNEL,
    VIP,
    VIP6,
    Bench,
    Out,
    answer,
    client_of,
    ether,
    fragment6,
    ip,
    patched,
    tcp,
    udp,
)
from tests.packets.checksums import ones_complement, transport, transport_sum, wrong_checksums

pytestmark = pytest.mark.root


def with_checksum(ip: bytes) -> bytes:
    """The IPv4 header's checksum put right, so that only what a test breaks is broken."""
    length = max(20, min((ip[0] & 15) * 4, len(ip)))
    zeroed = ip[:10] + b"\0\0" + ip[12:]
    return ip[:10] + (~ones_complement(zeroed[:length]) & 0xFFFF).to_bytes(2, "big") + ip[12:]


BAD: dict[str, Callable[[], bytes]] = {
    "version 5": lambda: with_checksum(patched(tcp(), 0, b"\x55")),
    "header of 16 bytes": lambda: with_checksum(patched(tcp(), 0, b"\x44")),
    "header longer than the packet": lambda: with_checksum(patched(tcp(), 0, b"\x4f")),
    "total length below the header": lambda: with_checksum(patched(tcp(), 2, struct.pack("!H", 19))),
    "total length beyond the frame": lambda: with_checksum(patched(tcp(), 2, struct.pack("!H", 41))),
    "header checksum": lambda: patched(tcp(), 10, b"\x12\x34"),
    "no room for TCP": lambda: with_checksum(patched(tcp(), 2, struct.pack("!H", 39))),
    "TCP header of 16 bytes": lambda: patched(tcp(), 32, b"\x40"),
    "TCP header beyond the packet": lambda: patched(tcp(), 32, b"\x60"),
    "UDP length of 7": lambda: patched(udp(), 24, struct.pack("!H", 7)),
    "UDP length beyond the packet": lambda: patched(udp(), 24, struct.pack("!H", 14)),
    "no room for UDP": lambda: with_checksum(patched(udp(), 2, struct.pack("!H", 27))),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_is_dropped_and_counted(bench: Bench, name: str) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    bench.server(bench.service(f"udp:{VIP}:53"), "198.51.100.11:53")
    frame = ether(IP(), target=bench.wire.mac("front"))[:14] + BAD[name]()
    assert bench.send(frame).verdict == "drop"
    assert bench.events() == {Event.DROP_MALFORMED: 1} and bench.records() == []


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
    assert bench.event(Event.DROP_MALFORMED) == len(whole) - 34
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


# --- mutations ------------------------------------------------------------------------------------------------------


def seeds(bench: Bench) -> list[tuple[bytes, str]]:
    """Valid frames of every kind that the programs look into, with the interface they come in by."""
    bench.server(bench.service(f"tcp:{VIP}:80"), "198.51.100.11:8080", MASQUERADE)
    bench.server(bench.service(f"tcp:{VIP}:81"), "198.51.100.12:81", DIRECT)
    bench.server(bench.service(f"tcp:{VIP}:82"), "198.51.100.13:82", TUNNEL)
    bench.server(bench.service(f"udp:{VIP}:53"), "198.51.100.14:5353", MASQUERADE)
    bench.service(f"udp:{VIP}:54")
    sent, asked = bench.send(tcp()).ip, bench.send(udp()).ip
    replied = bench.send(answer(sent), "back").ip
    bench.send(tcp(dport=81))
    bench.send(tcp(dport=82))
    front = [
        tcp(data=b"get"),
        tcp(dport=81, flags="A", data=b"get"),
        tcp(dport=82, flags="PA", data=b"get"),
        udp(data=b"odd"),
        udp(dport=54),
        IP(src=CLIENT, dst=VIP, options=[IPOption_RR(length=11, pointer=4)]) / TCP(sport=40000, dport=80) / b"x",
        IP(src=CLIENT, dst=VIP) / ICMP(id=3) / b"ping",
        IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=3) / bytes(replied),
    ]
    back = [
        answer(sent, "A", data=b"answer"),
        answer(asked, data=b"answer"),
        IP(src="198.51.100.99", dst=CLIENT) / ICMP(type=11) / bytes(sent),
        IP(src="198.51.100.14", dst=CLIENT) / ICMP(type=3, code=3) / bytes(asked),
    ]
    bench.server(bench.service(f"tcp:[{VIP6}]:80"), f"[{SERVER6}]:8080", MASQUERADE)
    bench.server(bench.service(f"tcp:[{VIP6}]:81"), f"[{SERVER6}]:81", DIRECT)
    bench.service(f"udp:[{VIP6}]:54")
    bench.server(bench.service(f"udp:[{VIP6}]:55"), f"[{SERVER6}]:55", TUNNEL, tunnel=Tunnel(TunnelType.GRE))
    sent6 = bench.send(tcp(vip=VIP6)).ip
    replied6 = bench.send(answer(sent6), "back").ip
    to_vip6, options6 = IPv6(src=CLIENT6, dst=VIP6), IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    front += [
        tcp(vip=VIP6, data=b"get"),
        tcp(vip=VIP6, dport=81, flags="A", data=b"get"),
        udp(vip=VIP6, dport=54),
        to_vip6 / options6 / TCP(sport=40000, dport=80) / b"x",
        to_vip6 / ICMPv6EchoRequest(data=b"ping"),
        to_vip6 / ICMPv6DestUnreach(code=4) / bytes(replied6),
    ]
    back += [
        answer(sent6, "A", data=b"answer"),
        IPv6(src="2001:db8:b::99", dst=CLIENT6) / ICMPv6TimeExceeded() / bytes(sent6),
    ]
    for vip, text, server in ((VIP, VIP, "198.51.100.15"), (VIP6, f"[{VIP6}]", f"[{SERVER6}]")):
        bench.server(bench.service(f"sctp:{text}:80"), f"{server}:5000", MASQUERADE)
        front.append(ip(client_of(vip), vip) / SCTP(sport=40000, dport=80) / SCTPChunkInit())
    front += [*fragment(udp(data=bytes(200)), 120), *fragment6(udp(vip=VIP6, dport=55, data=bytes(200)), 120)]
    wire = bench.wire
    return [(ether(one, target=wire.mac("front")), "front") for one in front] + [
        (ether(one, target=wire.mac("back")), "back") for one in back
    ]


def mutate(frame: bytes, dice: random.Random) -> bytes:
    data = bytearray(frame)
    for _ in range(dice.randint(1, 3)):
        kind = dice.random()
        at = dice.randrange(14, len(data)) if len(data) > 14 else 13
        if kind < 0.45:
            data[at] ^= 1 << dice.randrange(8)
        elif kind < 0.7:
            data[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind < 0.85:
            del data[dice.randrange(min(35, len(data)), len(data) + 1) :]
        else:
            data += dice.randbytes(dice.randint(1, 40))
    if len(data) >= 34 and data[12:14] == b"\x08\x00" and dice.random() < 0.7:  # get past the first check
        data[14:] = with_checksum(bytes(data[14:]))
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_mutations(bench: Bench, seed: int) -> None:
    """Whatever comes in: what is sent has right checksums as far as it had them, and every drop is counted."""
    bench.configure(icmp_rate=1 << 20)
    bench.advance(0)
    dice = random.Random(seed)
    frames = seeds(bench)
    verdicts: dict[str, int] = {}
    for _ in range(500):
        frame, interface = dice.choice(frames)
        mutation = mutate(frame, dice)
        before = bench.drops()
        try:
            out = bench.send(mutation, interface, check="ip")
        except DataPlaneError:
            assert len(mutation) < (34 if mutation[12:14] == b"\x08\x00" else 54)
            continue
        verdicts[out.verdict] = verdicts.get(out.verdict, 0) + 1
        if out.verdict == "drop":
            assert bench.drops() == before + 1, mutation.hex()
        elif out.verdict == "send":
            check_sent(mutation[14:], out)
    assert set(verdicts) == {"send", "pass", "drop"} and min(verdicts.values()) > 20, verdicts
    fill = bench.event(Event.ENTRIES)
    assert fill == len(bench.records()) == sum(bench.gauges())
    assert bench.events().get(Event.DROP_ERROR, 0) == 0
    bench.advance(2000)
    assert bench.records() == [] and bench.gauges() == (0, 0)


def check_sent(before: bytes, out: Out) -> None:
    after = out.frame[14:]
    if after[0] >> 4 == 4 and after[9] == 4:  # a tunnel
        assert wrong_checksums(after[20:], deep=False) == []
        after = after[20:]
    if after[0] >> 4 == 6 and after[6] == 47:
        after = after[44:]
    protocol, at, length, fragmented = transport(after)
    if fragmented or protocol == 132:  # a CRC that was wrong is wrong in another way
        return
    if protocol == 17 and after[at + 6 : at + 8] == b"\0\0":
        return
    if protocol == transport(before)[0]:
        # A checksum that was wrong stays wrong by as much: the end of the connection is told, not deceived.
        assert transport_sum(after) % 0xFFFF == transport_sum(before) % 0xFFFF
    else:  # our own error
        assert protocol in (1, 58)
        assert [one for one in wrong_checksums(after[:length]) if one != "quoted UDP checksum"] == []
