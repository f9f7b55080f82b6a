"""Full NAT on the bench: services, and what their packets say."""

from __future__ import annotations

import pytest
from scapy.packet import Packet

from lbnode.model import ServiceId
from tests.packets.bench import FULLNAT, Bench
from tests.packets.wire import LOCAL, LOCAL6, SERVER6, VIP, VIP6

SERVER = "198.51.100.11"
FIRST_PORT, PORTS = 1024, 31744  # local_port.h
FAMILIES = pytest.mark.parametrize("vip", [VIP, VIP6], ids=["IPv4", "IPv6"])


def ends(vip: str) -> tuple[str, str]:
    """Server and local address of the VIP's family."""
    return (SERVER6, LOCAL6) if ":" in vip else (SERVER, LOCAL)


def full(bench: Bench, vip: str = VIP, protocol: str = "tcp", port: int = 80, **fields: object) -> ServiceId:
    """A service with one server, at port 8080."""
    bracket = "[{}]" if ":" in vip else "{}"
    service = bench.service(f"{protocol}:{bracket.format(vip)}:{port}")
    bench.server(service, f"{bracket.format(ends(vip)[0])}:8080", FULLNAT, **fields)  # type: ignore[arg-type]
    return service


def sides(packet: Packet) -> tuple[str, str, int, int]:
    return packet.src, packet.dst, packet.payload.sport, packet.payload.dport
