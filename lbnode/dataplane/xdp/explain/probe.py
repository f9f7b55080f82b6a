"""The frame that is run through the program, made of a question. Pure."""

from __future__ import annotations

import struct

from lbnode.dataplane.xdp.layout import PROTOCOL_NUMBER
from lbnode.explanation import Question
from lbnode.model import L4Protocol

NEIGHBOUR = bytes.fromhex("020000000001")  # who the frame comes from: any local unicast address
ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q = 0x0800, 0x86DD, 0x8100
_TTL = 64
_CRC32C = 0x82F63B78
_DONT_FRAGMENT = 0x4000
# By address length: what a client on Ethernet announces (RFC 9293 3.7.1), 1500 bytes less the headers.
_MSS = {4: 1460, 16: 1440}
_OPTION_MSS = 2
# The first word says whether the packet begins a connection (RFC 9293 3.1, RFC 9260 3.3.1 and 3.3.2).
_SYN, _ACK = 0x02, 0x10
_INIT, _DATA = 1, 0


def name(protocol: L4Protocol, *, known: bool) -> str:
    """What `frame` makes for a connection that is tracked already (`known`), or for the first of a new one."""
    return {
        L4Protocol.TCP: "TCP ACK" if known else "TCP SYN",
        L4Protocol.UDP: "UDP",
        L4Protocol.SCTP: "SCTP DATA" if known else "SCTP INIT",
    }[protocol]


def frame(question: Question, mac: bytes, *, known: bool, vlan: int | None = None) -> bytes:
    """An Ethernet frame to `mac`, with this VLAN's tag if there is one. It may not be fragmented on its way."""
    source, target = question.source.address.packed, question.target.address.packed
    six = len(source) == 16
    number = PROTOCOL_NUMBER[question.protocol]
    ports = struct.pack("!HH", question.source.port, question.target.port)
    segment = _segment(
        question, ports, source + target, number, known=known, room=question.length - (40 if six else 20)
    )
    if six:
        header = struct.pack("!IHBB", 6 << 28, len(segment), number, _TTL) + source + target
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, _DONT_FRAGMENT, _TTL, number, 0)
        header += source + target
        header = header[:10] + _checksum(header) + header[12:]
    tag = b"" if vlan is None else struct.pack("!HH", ETH_P_8021Q, vlan)
    return mac + NEIGHBOUR + tag + struct.pack("!H", ETH_P_IPV6 if six else ETH_P_IP) + header + segment


def _segment(question: Question, ports: bytes, addresses: bytes, number: int, *, known: bool, room: int) -> bytes:
    """The transport header and zeros up to `room` bytes."""
    if question.protocol is L4Protocol.SCTP:
        # Common header; then a chunk: type, flags, length, and what makes it as long as its type wants.
        data = bytes(max(16, room - 16) // 4 * 4)
        chunk = struct.pack("!BBH", _DATA if known else _INIT, 3 if known else 0, 4 + len(data)) + data
        whole = ports + struct.pack("!II", 1 if known else 0, 0) + chunk
        return whole[:8] + struct.pack("<I", _crc32c(whole)) + whole[12:]
    if question.protocol is L4Protocol.UDP:
        data = bytes(max(0, room - 8))
        head, at = ports + struct.pack("!HH", 8 + len(data), 0), 6
    else:
        options = b"" if known else struct.pack("!BBH", _OPTION_MSS, 4, _MSS[len(addresses) // 2])
        length = 20 + len(options)
        data = bytes(max(0, room - length))
        flags = _ACK if known else _SYN
        head, at = (
            ports + struct.pack("!IIBBHHH", 1, 1 if known else 0, length << 2, flags, 65535, 0, 0) + options,
            16,
        )
    whole = head + data
    pseudo = addresses + struct.pack("!IHBB", len(whole), 0, 0, number)  # RFC 8200 8.1; IPv4's has the same sum
    checksum = _checksum(pseudo + whole)
    if question.protocol is L4Protocol.UDP and checksum == b"\0\0":
        checksum = b"\xff\xff"  # RFC 768: zero means that there is none
    return whole[:at] + checksum + whole[at + 2 :]


def _checksum(data: bytes) -> bytes:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def _crc32c(data: bytes) -> int:
    """RFC 9260 appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
