"""Every checksum in a packet summed up anew (RFC 1071), independently of the product and of scapy."""

from __future__ import annotations

import struct

GUE_PORT = 6080
_TCP, _UDP, _ICMP, _ICMP6, _IPIP, _SIT, _GRE, _SCTP = 6, 17, 1, 58, 4, 41, 47, 132
_EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options (RFC 8200)
_FRAGMENT = 44


def ones_complement(data: bytes) -> int:
    """The folded sum of 16-bit words; 0xffff over data that contains its own checksum."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def crc32c(data: bytes) -> int:
    """RFC 9260 appendix A, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def transport(packet: bytes) -> tuple[int, int, int, bool]:
    """(protocol, where it begins, where the packet ends, whether it is a fragment) of an IPv4 or IPv6 packet."""
    if packet[0] >> 4 == 4:
        fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
        return packet[9], (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big"), bool(fragment)
    protocol, at = packet[6], 40
    while protocol in _EXTENSIONS and at + 8 <= len(packet):
        protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    if protocol == _FRAGMENT and at + 8 <= len(packet):
        return packet[at], at + 8, 40 + int.from_bytes(packet[4:6], "big"), True
    return protocol, at, 40 + int.from_bytes(packet[4:6], "big"), False


def transport_sum(packet: bytes) -> int:
    """Of what lies behind the IP headers, with its pseudo header; 0xffff if its checksum is right."""
    protocol, at, length, _ = transport(packet)
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    pseudo = b"" if protocol == _ICMP else addresses + struct.pack("!HH", protocol, length - at)
    return ones_complement(pseudo + packet[at:length])


def wrong_checksums(packet: bytes, *, where: str = "", quoted: bool = False, deep: bool = True) -> list[str]:
    """Every checksum in an IP packet that is wrong. `quoted`: it may be cut short; `deep`: look at L4 too."""
    version = packet[0] >> 4
    if version not in (4, 6) or (version == 4 and packet[0] & 15 < 5) or len(packet) < (20 if version == 4 else 40):
        return [f"{where}IP header"]
    protocol, at, length, fragment = transport(packet)
    problems = []
    if version == 4 and ones_complement(packet[:at]) != 0xFFFF:
        problems.append(f"{where}IP checksum")
    if length > len(packet):
        if not quoted:
            problems.append(f"{where}IP length {length}, there are {len(packet)}")
        return problems
    if deep and not fragment:
        problems += _wrong_inside(packet, protocol, packet[at:length], where)
    return problems


def _wrong_inside(packet: bytes, protocol: int, payload: bytes, where: str) -> list[str]:
    if protocol in (_IPIP, _SIT):
        return wrong_checksums(payload, where=f"{where}inner ")
    if protocol == _GRE:
        size = 8 if payload[0] & 0x80 else 4
        problems = [f"{where}GRE checksum"] if size == 8 and ones_complement(payload) != 0xFFFF else []
        return problems + wrong_checksums(payload[size:], where=f"{where}inner ")
    if protocol == _SCTP:
        right = crc32c(payload[:8] + bytes(4) + payload[12:]).to_bytes(4, "little")
        return [] if payload[8:12] == right else [f"{where}SCTP checksum"]
    names = {_TCP: "TCP", _UDP: "UDP", _ICMP: "ICMP", _ICMP6: "ICMPv6"}
    if protocol not in names:
        return []
    without = protocol == _UDP and payload[6:8] == b"\0\0"
    problems = [] if without or transport_sum(packet) == 0xFFFF else [f"{where}{names[protocol]} checksum"]
    if protocol == _UDP and payload[2:4] == GUE_PORT.to_bytes(2, "big"):
        problems += wrong_checksums(payload[12:], where=f"{where}inner ")
    errors = {_ICMP: (3, 11, 12), _ICMP6: (1, 2, 3, 4)}.get(protocol, ())
    if payload[0] in errors and len(payload) >= 28:
        problems += wrong_checksums(payload[8:], where=f"{where}quoted ", quoted=True)
    return problems
