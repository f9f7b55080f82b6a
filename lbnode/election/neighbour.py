"""Neighbour announcements as bytes: gratuitous ARP (RFC 826, RFC 5227) and unsolicited NA (RFC 4861). Pure.

Also the probes for a gateway's reachability, and the reading of what answers them.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from lbnode.election.packet import checksum
from lbnode.model import Address

BROADCAST = b"\xff" * 6
ALL_NODES = IPv6Address("ff02::1")

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_ETHERNET_IPV4 = (1, 0x0800, 6, 4)
_ARP_REQUEST = 1
_ETHERTYPE_ARP, _ETHERTYPE_IPV6 = b"\x08\x06", b"\x86\xdd"
_ICMPV6 = 58
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136
_ROUTER, _OVERRIDE = 0x80, 0x20
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2


def announcement(mac: bytes, address: Address) -> bytes:
    """The Ethernet frame that tells every neighbour that `address` is at `mac` now."""
    if isinstance(address, IPv4Address):
        return _arp_request(mac, address, address)
    # RFC 9568 section 6.4.2 (155): Router flag R set, Solicited flag S clear, Override flag O set.
    return _nd(mac, address, ALL_NODES, _NEIGHBOUR_ADVERTISEMENT, _ROUTER | _OVERRIDE, address, _TARGET_LINK_ADDRESS)


def probe(mac: bytes, source: Address, target: Address) -> bytes:
    """The Ethernet frame that asks who has `target`, from our address `source` of the same family."""
    if isinstance(target, IPv4Address):
        assert isinstance(source, IPv4Address)
        return _arp_request(mac, source, target)
    assert isinstance(source, IPv6Address)
    solicited_node = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)  # RFC 4291 2.7.1
    return _nd(mac, source, solicited_node, _NEIGHBOUR_SOLICITATION, 0, target, _SOURCE_LINK_ADDRESS)


def answered(frame: bytes) -> tuple[Address, bytes] | None:
    """(address, MAC) that an ARP packet or a neighbour advertisement tells; None for all other frames."""
    if frame[12:14] == _ETHERTYPE_ARP and len(frame) >= 14 + _ARP.size:
        *kind, _, mac, address, _, _ = _ARP.unpack_from(frame, 14)
        return (IPv4Address(address), mac) if tuple(kind) == _ARP_ETHERNET_IPV4 and any(address) else None
    if frame[12:14] != _ETHERTYPE_IPV6 or len(frame) < 78:
        return None
    # RFC 4861 section 7.1.2: hop limit 255, code 0, target no multicast address.
    payload_len, next_header, hop_limit = struct.unpack_from("!HBB", frame, 18)
    if (next_header, hop_limit) != (_ICMPV6, 255) or not 24 <= payload_len <= len(frame) - 54:
        return None
    message = frame[54 : 54 + payload_len]
    pseudo = frame[22:54] + struct.pack("!II", payload_len, _ICMPV6)
    target = advertised(message)
    return None if target is None or checksum(pseudo + message) else (target, frame[6:12])


def advertised(message: bytes) -> IPv6Address | None:
    """The address that a neighbour advertisement (an ICMPv6 message) is about; None for all other messages."""
    if len(message) < 24 or message[:2] != bytes((_NEIGHBOUR_ADVERTISEMENT, 0)):
        return None
    target = IPv6Address(message[8:24])
    return None if target.is_multicast else target


def _arp_request(mac: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    arp = _ARP.pack(*_ARP_ETHERNET_IPV4, _ARP_REQUEST, mac, source.packed, bytes(6), target.packed)
    return BROADCAST + mac + _ETHERTYPE_ARP + arp


def _nd(
    mac: bytes, source: IPv6Address, to: IPv6Address, kind: int, flags: int, target: IPv6Address, option: int
) -> bytes:
    body = struct.pack("!BBHB3x", kind, 0, 0, flags) + target.packed + bytes((option, 1)) + mac
    pseudo = source.packed + to.packed + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    ip = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + source.packed + to.packed
    return b"\x33\x33" + to.packed[-4:] + mac + _ETHERTYPE_IPV6 + ip + body
