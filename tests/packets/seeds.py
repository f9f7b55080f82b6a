"""The node that the fuzzer shoots at, and valid frames of every mode, family and protocol to begin with.

Each service has one server, so that it is known beforehand where a packet must go and what the answer looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.interfaces import Interface
from lbnode.dataplane.xdp.layout import State
from lbnode.dataplane.xdp.records import Record, Tuple
from lbnode.dataplane.xdp.vlans import Vlans
from lbnode.model import ForwardingMethod, L4Protocol, Tunnel, TunnelChecksum, TunnelType
from tests.packets.bench import DIRECT, FULLNAT, MASQUERADE, TUNNEL, Bench
from tests.packets.checksums import GUE_PORT
from tests.packets.traffic import client_of, ether, fragment6, ip
from tests.packets.wire import LOCAL, LOCAL6, VIP, VIP6, Wire

VLAN = 5
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_GUE, _GUE_SUM = Tunnel(TunnelType.GUE, GUE_PORT), Tunnel(TunnelType.GUE, GUE_PORT, TunnelChecksum.FULL)
_GRE, _IPIP = Tunnel(TunnelType.GRE), Tunnel(TunnelType.IPIP)
# port of the VIP: how it is forwarded, through which tunnel, whether the server is of the other family
MODES: dict[int, tuple[ForwardingMethod, Tunnel, bool]] = {
    80: (MASQUERADE, _IPIP, False),
    81: (DIRECT, _IPIP, False),
    82: (TUNNEL, _IPIP, False),
    83: (TUNNEL, _GUE, False),
    84: (TUNNEL, _GUE_SUM, False),
    85: (TUNNEL, _GRE, False),
    86: (TUNNEL, _IPIP, True),
    87: (TUNNEL, _GUE, True),
    88: (FULLNAT, _IPIP, False),
    89: (FULLNAT, _IPIP, False),
}
TOA = 89  # a service that tells its server who the client is
TRANSLATED = (MASQUERADE, FULLNAT)
REFUSED = 90  # a service without servers
Case = tuple[str, str, int]  # protocol, VIP, port
LOCAL_PORT = 2000  # of the first service's connection
ASSURED = 2  # CONN_ASSURED
_HOST = {"tcp": 11, "udp": 31, "sctp": 51}  # the first server's last byte


@dataclass(frozen=True, slots=True)
class Target:
    """Where packets to a service must go. Addresses are packed."""

    method: ForwardingMethod
    vip: bytes
    port: int
    server: bytes
    server_port: int
    local: bytes = b""  # of full NAT
    toa: bool = False


def server_of(protocol: str, port: int, family: int) -> str:
    host = _HOST[protocol] + port - 80
    return f"198.51.100.{host}" if family == 4 else f"2001:db8:b::{host}"


def local_of(family: int) -> str:
    return LOCAL6 if family == 6 else LOCAL


CASES = tuple(product(PROTOCOLS, (VIP, VIP6), (*MODES, REFUSED)))  # every service


def configure(bench: Bench, cases: Iterable[Case] = CASES) -> dict[tuple[int, bytes, int], Target]:
    """Services, by protocol number, VIP and port."""
    index = bench.wire.index("front")
    Vlans(bench.maps).update([Interface(4000, "vlan5", "vlan", "", True, True, bytes(6), 1500, 0, (index, VLAN))])
    bench.configure(icmp_rate=1 << 20)
    bench.advance(0)
    targets = {}
    for protocol, vip, port in cases:
        family, text, packed = (
            (6, f"[{vip}]", ip_address(vip).packed) if ":" in vip else (4, vip, ip_address(vip).packed)
        )
        service = bench.service(f"{protocol}:{text}:{port}")
        if port == REFUSED:
            continue
        method, tunnel, other = MODES[port]
        address = server_of(protocol, port, 10 - family if other else family)
        server_port = 8080 if method in TRANSLATED else port
        shown = f"[{address}]" if ":" in address else address
        bench.server(service, f"{shown}:{server_port}", method, tunnel=tunnel, toa=port == TOA)
        local = ip_address(local_of(family)).packed if method is FULLNAT else b""
        target = Target(method, packed, port, ip_address(address).packed, server_port, local, port == TOA)
        targets[PROTOCOLS[protocol], packed, port] = target
    return targets


def connections(cases: Iterable[Case] = CASES) -> list[Record]:
    """Open ones of full NAT, as if a peer had told of them: by local ports that the packets below know."""
    records = []
    for case in cases:
        protocol, vip, port = case
        if port not in MODES or MODES[port][0] is not FULLNAT:
            continue
        family, number, kind = 6 if ":" in vip else 4, CASES.index(case), L4Protocol(protocol)
        client, server, local = map(ip_address, (client_of(vip), server_of(*case[::2], family), local_of(family)))
        inward = Tuple(client, 40000 + number, ip_address(vip), port, kind)
        outward = Tuple(server, 8080, local, LOCAL_PORT + number, kind)
        state = State.UDP if protocol == "udp" else State.ESTABLISHED
        records.append(Record(inward, outward, 0, state, ASSURED, FULLNAT))
    return records


def _layer(protocol: str, source: int, target: int, flags: str, data: bytes, options: Sequence[Any] = ()) -> Packet:
    if protocol == "tcp":
        return TCP(sport=source, dport=target, flags=flags, seq=1000, options=list(options)) / Raw(data)
    if protocol == "udp":
        return UDP(sport=source, dport=target) / Raw(data)
    return SCTP(sport=source, dport=target) / SCTPChunkInit()


def _options(vip: str) -> list[Packet]:
    """Headers of a packet to the VIP with IPv4 options, or IPv6 extension headers."""
    client = client_of(vip)
    if ":" not in vip:
        short, full = IPOption_RR(length=11, pointer=4), IPOption_RR(length=39, pointer=4, routers=["192.0.2.9"] * 9)
        return [ip(client, vip, options=[one, IPOption_NOP()]) for one in (short, full)]
    padding = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    chain = IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))]) / IPv6ExtHdrRouting(
        addresses=["2001:db8::9"], segleft=0
    )
    return [ip(client, vip) / padding, ip(client, vip) / chain]


def of_service(case: Case) -> list[tuple[Packet, str]]:
    """Packets, with the interface that each comes in by. Connections open before what needs them."""
    (protocol, vip, port), number = case, CASES.index(case)
    client, source = client_of(vip), 40000 + number
    head = ip(client, vip)
    packets = [head / _layer(protocol, source, port, flags, data) for flags, data in (("S", b""), ("PA", b"get it"))]
    packets += [one / _layer(protocol, source + 1000, port, "S", b"odd") for one in _options(vip)]
    large = head / _layer(protocol, source + 2000, port, "S", bytes(range(200)))
    if ":" not in vip:
        large.id = 1 + number % 3  # so that services share identifications
    packets += fragment6(large, 120, number) if ":" in vip else fragment(IP(bytes(large)), 120)
    front = [(one, "front") for one in packets]
    if port == TOA and protocol == "tcp":  # whose server has not answered yet
        stamps, forged = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))], [(254, bytes(range(6)))]
        parts = [_layer(protocol, source + 3000, port, "S", b"", one) for one in ((), forged, stamps + forged)]
        parts += [_layer(protocol, source + 3000, port, "A", data, stamps) for data in (b"", b"first")]
        front += [(head / part, "front") for part in parts]
    if port not in MODES or MODES[port][0] not in TRANSLATED:
        return front
    family = 6 if ":" in vip else 4
    server = server_of(protocol, port, family)
    if protocol == "udp":  # without a checksum, and with one that becomes 0
        becomes = bytes(ip(client, server) / UDP(sport=source, dport=8080) / bytes(2))[-4:-2]
        front += [(head / UDP(sport=source, dport=port, chksum=0) / b"none", "front")]
        front += [(head / UDP(sport=source, dport=port) / becomes, "front")]
    peer, at = (local_of(family), LOCAL_PORT + number) if MODES[port][0] is FULLNAT else (client, source)
    reached = ip(peer, server) / _layer(protocol, at, 8080, "S", b"")
    back = [ip(server, peer) / _layer(protocol, 8080, at, flags, b"answer") for flags in ("SA", "A", "FA")]
    large = ip(server, peer) / _layer(protocol, 8080, at, "A", bytes(range(200)))
    back += fragment6(large, 120, number) if family == 6 else fragment(IP(bytes(large)), 120)
    seen = bytes(ip(vip, client) / _layer(protocol, port, source, "SA", b"answer"))
    if family == 4:
        front += [(ip(client, vip) / ICMP(type=3, code=code) / seen, "front") for code in (3, 4)]
        back += [ip(one, peer) / ICMP(type=11) / bytes(reached) for one in (server, "198.51.100.99")]
    else:
        front += [(head / one / seen, "front") for one in (ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280))]
        back += [ip(one, peer) / ICMPv6TimeExceeded() / bytes(reached) for one in (server, "2001:db8:b::99")]
    return front + [(one, "back") for one in back]


def _others(vip: str) -> list[tuple[Packet, str]]:
    """To the VIP but no service, and to nobody of ours."""
    client, other = client_of(vip), "2001:db8::77" if ":" in vip else "192.0.2.77"
    echo = ICMPv6EchoRequest(data=b"ping") if ":" in vip else ICMP(id=3) / b"ping"
    packets = [ip(client, one) / echo for one in (vip, other)]
    packets += [ip(client, one) / TCP(sport=40000, dport=port) for one, port in ((other, 80), (vip, 4))]
    return [(one, "front") for one in packets] + [(ip(other, client) / UDP(sport=8080, dport=40000), "back")]


def frames(wire: Wire) -> list[tuple[bytes, str]]:
    """Frames, with the interface that each comes in by; a part of them once more with a VLAN tag."""
    found = [one for vip in (VIP, VIP6) for one in _others(vip)]
    for case in CASES:
        found += of_service(case)
    plain = [(ether(packet, target=wire.mac(interface)), interface) for packet, interface in found]
    return plain + [(tagged(packet, wire), "front") for packet, interface in found[::7] if interface == "front"]


def tagged(packet: Packet, wire: Wire) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:99", dst=wire.mac("front")) / Dot1Q(vlan=VLAN) / packet)
