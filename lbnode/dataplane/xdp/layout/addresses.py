"""IP addresses and protocol numbers in the maps."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from lbnode.model import Address, L4Protocol

# <netinet/in.h>
PROTOCOL_NUMBER: Mapping[L4Protocol, int] = {L4Protocol.TCP: 6, L4Protocol.UDP: 17, L4Protocol.SCTP: 132}
PROTOCOL_OF: Mapping[int, L4Protocol] = {number: protocol for protocol, number in PROTOCOL_NUMBER.items()}
MAPPED = bytes(10) + b"\xff\xff"
NO_ADDRESS = bytes(16)


def pack_address(address: Address) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2)."""
    return MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def unpack_address(data: bytes) -> Address:
    return IPv4Address(data[12:16]) if data[:12] == MAPPED else IPv6Address(data)
