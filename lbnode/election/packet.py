"""VRRP advertisements as bytes: version 3 for IPv4 and IPv6 (RFC 9568), version 2 for migration (RFC 3768). Pure.

The checksum of VRRPv3 over IPv4 has two forms in the field: RFC 9568 sums the message alone, while keepalived and
FRR put the IPv4 pseudo-header in front (a reading of RFC 5798 section 5.2.8). Both are received; see ChecksumForm.
After the message may come an authentication trailer, see `authentication`; over IPv6 the checksum covers it too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from lbnode.errors import PeerError
from lbnode.model import Address

PROTOCOL = 112
GROUP_IPV4 = IPv4Address("224.0.0.18")
GROUP_IPV6 = IPv6Address("ff02::12")
TTL = 255
RELEASE_PRIORITY = 0  # "the Active Router has stopped participating"
MAX_INTERVAL_CS = 4095  # 12 bits of centiseconds
TRAILER_LEN = 28
# Addresses that one advertisement lists: the count has 8 bits, and with a trailer it must fit into IPv6's least MTU of
# 1280 bytes, since a fragment is not accepted. A group may have more, which move with it all the same.
MAX_LISTED = {4: 255, 6: (1280 - 40 - 8 - TRAILER_LEN) // 16}

_HEADER = struct.Struct("!BBBBHH")  # version|type, VRID, priority, address count, reserved|interval, checksum
_ADVERTISEMENT = 1  # the only type
_AUTHENTICATION_DATA = bytes(8)  # ends a version 2 message; type 0 = none
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF


class ChecksumForm(StrEnum):
    """Of version 3 over IPv4."""

    PSEUDO_HEADER = "pseudo-header"  # keepalived and FRR by default
    PLAIN = "rfc9568"  # most hardware routers


class Reason(StrEnum):
    """Why a received packet was dropped, in the order of the checks (RFC 9568 section 7.1)."""

    LENGTH = "length"
    FRAGMENT = "fragment"
    PROTOCOL = "protocol"
    TTL = "ttl"
    VERSION = "version"
    COUNT = "address-count"
    CHECKSUM = "checksum"
    AUTHENTICATION_TYPE = "authentication-type"  # version 2 with a password
    VRID = "vrid"
    INTERVAL = "interval"
    OWN_ADDRESS = "own-address"
    SENDER = "unknown-sender"  # not among the unicast peers
    UNSIGNED = "trailer-missing"
    TRAILER = "trailer-malformed"
    KEY = "trailer-key"
    SIGNATURE = "trailer-signature"
    STALE = "trailer-stale"
    REPLAY = "trailer-replayed"


class Rejected(PeerError):
    """A received packet that is no valid advertisement for this virtual router."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Advert:
    """One ADVERTISEMENT; the family is that of `source`. `interval_cs`: the sender's Max Advertise Interval in
    centiseconds (1..4095; version 2 has whole seconds)."""

    vrid: int
    priority: int
    interval_cs: int
    addresses: tuple[Address, ...]
    source: Address
    form: ChecksumForm = ChecksumForm.PSEUDO_HEADER
    version: int = 3


@dataclass(frozen=True, slots=True)
class Datagram:
    """What the IP header said, and the payload: VRRP message and perhaps a trailer."""

    source: Address
    destination: Address
    hop_limit: int
    payload: bytes


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071); over data that carries a right checksum the result is 0."""
    if len(data) & 1:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    """RFC 8200 section 8.1 for 16-byte addresses, that of UDP and TCP (RFC 768) for 4-byte ones."""
    if len(source) == 16:
        return source + destination + struct.pack("!II", length, PROTOCOL)
    return source + destination + struct.pack("!BBH", 0, PROTOCOL, length)


# --- sending -------------------------------------------------------------------------------------------------


def group_of(source: Address) -> Address:
    """The multicast group of the family."""
    return GROUP_IPV4 if source.version == 4 else GROUP_IPV6


def message(advert: Advert) -> bytes:
    """The VRRP message (what follows the IP header) with the checksum field 0."""
    addresses = b"".join(address.packed for address in advert.addresses)
    version_type = advert.version << 4 | _ADVERTISEMENT
    head = (version_type, advert.vrid, advert.priority, len(advert.addresses))
    if advert.version == 2:
        return _HEADER.pack(*head, advert.interval_cs // 100, 0) + addresses + _AUTHENTICATION_DATA
    return _HEADER.pack(*head, advert.interval_cs, 0) + addresses


def encode(advert: Advert, destination: Address | None = None, trailer: bytes = b"") -> bytes:
    """Message and trailer to `destination` (None: the multicast group), with the checksum in the form of the advert."""
    body = message(advert)
    covered = body
    if advert.source.version == 6:
        body += trailer
        covered, trailer = body, b""
    if advert.version == 3 and (advert.source.version == 6 or advert.form is ChecksumForm.PSEUDO_HEADER):
        to = group_of(advert.source) if destination is None else destination
        covered = _pseudo_header(advert.source.packed, to.packed, len(body)) + body
    return body[:6] + checksum(covered).to_bytes(2, "big") + body[8:] + trailer


# --- receiving -----------------------------------------------------------------------------------------------


def open_ipv4(packet: bytes) -> Datagram:
    """The checks of the IPv4 header on a packet as a raw socket delivers it. Raises Rejected."""
    if len(packet) < 28:
        raise Rejected(Reason.LENGTH, f"{len(packet)} bytes are too short for IPv4 and VRRP headers")
    header_len = (packet[0] & 15) * 4
    total_len, _, fragment = struct.unpack_from("!HHH", packet, 2)
    source = IPv4Address(packet[12:16])
    if packet[0] >> 4 != 4 or header_len < 20 or not header_len + 8 <= total_len <= len(packet):
        raise Rejected(
            Reason.LENGTH, f"{source}: IPv4 lengths do not fit: header {header_len}, total {total_len} of {len(packet)}"
        )
    if fragment & _MORE_FRAGMENTS_OR_OFFSET:
        raise Rejected(Reason.FRAGMENT, f"{source}: fragmented")
    if packet[9] != PROTOCOL:
        raise Rejected(Reason.PROTOCOL, f"{source}: IP protocol {packet[9]}, wanted {PROTOCOL}")
    return Datagram(source, IPv4Address(packet[16:20]), packet[8], packet[header_len:total_len])


def vrid_of(payload: bytes) -> int | None:
    """The VRID of what may be a VRRP message, to find who checks it; None when it is too short."""
    return payload[1] if len(payload) >= 8 else None


def parse(datagram: Datagram, vrid: int) -> tuple[Advert, bytes]:
    """Receive checks of RFC 9568 section 7.1: (advertisement, trailer: 28 bytes or none).

    Raises Rejected with the first check that failed; whatever the bytes are, nothing else.
    """
    source, payload = datagram.source, datagram.payload
    if len(payload) < 8:
        raise Rejected(Reason.LENGTH, f"{source}: {len(payload)} bytes are too short for a VRRP header")
    if datagram.hop_limit != TTL:
        raise Rejected(Reason.TTL, f"{source}: TTL {datagram.hop_limit}, wanted 255: it was routed or forged")
    version_type, sent_vrid, priority, count, interval, _ = _HEADER.unpack_from(payload)
    version, kind = version_type >> 4, version_type & 15
    if kind != _ADVERTISEMENT or not (version == 3 or (version == 2 and source.version == 4)):
        raise Rejected(Reason.VERSION, f"{source}: VRRP version {version} type {kind}, wanted version 3 type 1")
    size = 4 if source.version == 4 else 16
    length = 8 + size * count + (len(_AUTHENTICATION_DATA) if version == 2 else 0)
    if count == 0 or len(payload) - length not in (0, TRAILER_LEN) or (version == 2 and len(payload) != length):
        raise Rejected(Reason.COUNT, f"{source}: {count} addresses announced in a message of {len(payload)} bytes")
    form = _checked(datagram, length, version)
    if version == 2 and interval >> 8:
        raise Rejected(
            Reason.AUTHENTICATION_TYPE, f"{source}: version 2 with authentication type {interval >> 8}: remove it there"
        )
    if sent_vrid != vrid:
        raise Rejected(Reason.VRID, f"{source}: VRID {sent_vrid}, ours is {vrid}")
    interval_cs = 100 * (interval & 0xFF) if version == 2 else interval & MAX_INTERVAL_CS
    if interval_cs == 0:
        raise Rejected(Reason.INTERVAL, f"{source}: VRID {vrid}: advertisement interval 0")
    kind_of = IPv4Address if size == 4 else IPv6Address
    addresses = tuple(kind_of(payload[at : at + size]) for at in range(8, 8 + size * count, size))
    return Advert(vrid, priority, interval_cs, addresses, source, form, version), payload[length:]


def parse_ipv4(packet: bytes, vrid: int, own: Address) -> Advert:
    """`open_ipv4`, `parse` and `refuse_own` in one, any trailer ignored."""
    advert, _ = parse(open_ipv4(packet), vrid)
    refuse_own(advert, own)
    return advert


def refuse_own(advert: Advert, own: Address | None) -> None:
    """Multicast is not looped back to us, so whoever sends from our address has it, too."""
    if advert.source == own:
        raise Rejected(
            Reason.OWN_ADDRESS, f"VRID {advert.vrid}: another node sends from our address {own}: duplicate address?"
        )


def _checked(datagram: Datagram, length: int, version: int) -> ChecksumForm:
    source, payload = datagram.source, datagram.payload
    covered = payload if source.version == 6 else payload[:length]
    if version == 3:
        pseudo = _pseudo_header(source.packed, datagram.destination.packed, len(covered))
        if checksum(pseudo + covered) == 0:
            return ChecksumForm.PSEUDO_HEADER
        if source.version == 6:
            raise Rejected(Reason.CHECKSUM, f"{source}: the checksum is wrong")
    if checksum(covered) == 0:
        return ChecksumForm.PLAIN
    raise Rejected(Reason.CHECKSUM, f"{source}: checksum is wrong in both forms (with and without pseudo-header)")
