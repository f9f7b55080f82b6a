"""VRRPv3 advertisements (RFC 9568 section 5) and gratuitous ARP (RFC 826, RFC 5227) as bytes. Pure.

The checksum of VRRPv3 over IPv4 has two forms in the field: RFC 9568 sums the message alone, while keepalived and
FRR put the IPv4 pseudo-header in front (a reading of RFC 5798 section 5.2.8). Both are received; see ChecksumForm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

from lbnode.errors import PeerError

PROTOCOL = 112
GROUP_IPV4 = IPv4Address("224.0.0.18")
TTL = 255
RELEASE_PRIORITY = 0  # "the Active Router has stopped participating"
MAX_INTERVAL_CS = 4095  # 12 bits of centiseconds

_HEADER = struct.Struct("!BBBBHH")  # version|type, VRID, priority, address count, reserved|interval, checksum
_VERSION_TYPE = 0x31  # version 3, type 1 (ADVERTISEMENT)
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF


class ChecksumForm(StrEnum):
    PSEUDO_HEADER = "pseudo-header"  # keepalived and FRR by default
    PLAIN = "plain"  # RFC 9568, and most hardware routers


class Reason(StrEnum):
    """Why a received packet was dropped, in the order of the checks (RFC 9568 section 7.1)."""

    LENGTH = "length"
    FRAGMENT = "fragment"
    PROTOCOL = "protocol"
    TTL = "ttl"
    VERSION = "version"
    COUNT = "address-count"
    CHECKSUM = "checksum"
    VRID = "vrid"
    INTERVAL = "interval"
    OWN_ADDRESS = "own-address"


class Rejected(PeerError):
    """A received packet that is no valid advertisement for this virtual router."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Advert:
    """One ADVERTISEMENT. `interval_cs` is the sender's Max Advertise Interval in centiseconds (1..4095)."""

    vrid: int
    priority: int
    interval_cs: int
    addresses: tuple[IPv4Address, ...]
    source: IPv4Address
    form: ChecksumForm = ChecksumForm.PSEUDO_HEADER


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071); over data that carries a right checksum the result is 0."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    return source + destination + struct.pack("!BBH", 0, PROTOCOL, length)


def encode(advert: Advert, destination: IPv4Address = GROUP_IPV4) -> bytes:
    """The VRRP message (what follows the IP header) with the checksum in the form that `advert.form` names."""
    addresses = b"".join(address.packed for address in advert.addresses)
    head = (_VERSION_TYPE, advert.vrid, advert.priority, len(advert.addresses), advert.interval_cs)
    message = _HEADER.pack(*head, 0) + addresses
    covered = message
    if advert.form is ChecksumForm.PSEUDO_HEADER:
        covered = _pseudo_header(advert.source.packed, destination.packed, len(message)) + message
    return _HEADER.pack(*head, checksum(covered)) + addresses


def vrid_of(packet: bytes) -> int | None:
    """The VRID of an IPv4 packet that may be a VRRP message, to find who checks it; None when it is too short."""
    offset = (packet[0] & 15) * 4 + 1 if packet else 0
    return packet[offset] if 20 < offset < len(packet) else None


def parse_ipv4(packet: bytes, vrid: int, own: IPv4Address) -> Advert:
    """Receive checks of RFC 9568 section 7.1 on a packet with its IPv4 header, as a raw socket delivers it.

    Raises Rejected with the first check that failed; whatever the bytes are, nothing else.
    """
    source, destination, message = _ip_payload(packet)
    if message[0] != _VERSION_TYPE:
        hint = "; set the peer to VRRP version 3" if message[0] >> 4 == 2 else ""
        raise Rejected(
            Reason.VERSION, f"{source}: VRRP version {message[0] >> 4} type {message[0] & 15}, wanted version 3{hint}"
        )
    _, sent_vrid, priority, count, interval, _ = _HEADER.unpack_from(message)
    if count == 0 or len(message) != 8 + 4 * count:
        raise Rejected(Reason.COUNT, f"{source}: {count} addresses announced in a message of {len(message)} bytes")
    form = _checksum_form(source, destination, message)
    if sent_vrid != vrid:
        raise Rejected(Reason.VRID, f"{source}: VRID {sent_vrid}, ours is {vrid}")
    interval_cs = interval & MAX_INTERVAL_CS
    if interval_cs == 0:
        raise Rejected(Reason.INTERVAL, f"{source}: VRID {vrid}: advertisement interval 0")
    if source == own:
        raise Rejected(
            Reason.OWN_ADDRESS, f"VRID {vrid}: another node sends from our address {source}: duplicate address?"
        )
    addresses = tuple(IPv4Address(message[8 + 4 * i : 12 + 4 * i]) for i in range(count))
    return Advert(vrid, priority, interval_cs, addresses, source, form)


def _ip_payload(packet: bytes) -> tuple[IPv4Address, IPv4Address, bytes]:
    """(source, destination, payload of at least 8 bytes) after the checks of the IPv4 header."""
    if len(packet) < 28:
        raise Rejected(Reason.LENGTH, f"{len(packet)} bytes are too short for IPv4 and VRRP headers")
    header_len = (packet[0] & 15) * 4
    total_len, _, fragment = struct.unpack_from("!HHH", packet, 2)
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    if packet[0] >> 4 != 4 or header_len < 20 or not header_len + 8 <= total_len <= len(packet):
        raise Rejected(
            Reason.LENGTH, f"{source}: IPv4 lengths do not fit: header {header_len}, total {total_len} of {len(packet)}"
        )
    if fragment & _MORE_FRAGMENTS_OR_OFFSET:
        raise Rejected(Reason.FRAGMENT, f"{source}: fragmented")
    if packet[9] != PROTOCOL:
        raise Rejected(Reason.PROTOCOL, f"{source}: IP protocol {packet[9]}, wanted {PROTOCOL}")
    if packet[8] != TTL:
        raise Rejected(Reason.TTL, f"{source}: TTL {packet[8]}, wanted 255: it was routed or forged")
    return source, destination, packet[header_len:total_len]


def _checksum_form(source: IPv4Address, destination: IPv4Address, message: bytes) -> ChecksumForm:
    if checksum(_pseudo_header(source.packed, destination.packed, len(message)) + message) == 0:
        return ChecksumForm.PSEUDO_HEADER
    if checksum(message) == 0:
        return ChecksumForm.PLAIN
    raise Rejected(Reason.CHECKSUM, f"{source}: checksum is wrong in both forms (with and without pseudo-header)")


def gratuitous_arp(mac: bytes, address: IPv4Address) -> bytes:
    """A broadcast Ethernet frame: ARP request whose sender and target address are the VIP (RFC 5227 announcement)."""
    ethernet = b"\xff" * 6 + mac + b"\x08\x06"
    return ethernet + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address.packed + bytes(6) + address.packed
