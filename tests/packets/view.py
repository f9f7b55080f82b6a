"""An IP packet's outline and sums, by a parser that shares nothing with the product or scapy."""

from __future__ import annotations

from dataclasses import dataclass

from tests.packets.checksums import crc32c
from tests.packets.mutations import ONES, words
from tests.packets.seeds import VLAN

_EXTENSIONS = (0, 43, 60)
L4_CHECKSUM = {6: (16, 2), 17: (6, 2), 132: (8, 4)}  # (where, bytes)
ERRORS = {1: (3, 11, 12), 58: (1, 2, 3, 4)}
_TAG = b"\x81\x00"


@dataclass(frozen=True, slots=True)
class View:
    """An IP packet's outline. `fragment`: 0 whole, 1 the first, 2 a later one. `end`: what its header says. `id`: of a
    fragment."""

    family: int
    protocol: int
    source: bytes
    target: bytes
    at: int
    end: int
    fragment: int
    id: bytes

    @property
    def is_error_type(self) -> bool:
        return self.protocol in ERRORS


def view(packet: bytes) -> View | None:
    """None if there is no IP header, or one that lies about its length."""
    if len(packet) < 20:
        return None
    if packet[0] >> 4 == 4:
        at = (packet[0] & 15) * 4
        if at < 20 or at > len(packet):
            return None
        place = int.from_bytes(packet[6:8], "big") & 0x3FFF
        fragment = 0 if not place else 2 if place & 0x1FFF else 1
        end = int.from_bytes(packet[2:4], "big")
        return View(4, packet[9], packet[12:16], packet[16:20], at, end, fragment, packet[4:6])
    if packet[0] >> 4 != 6 or len(packet) < 40:
        return None
    protocol, at, fragment, number = packet[6], 40, 0, b""
    while at + 8 <= len(packet):
        if protocol in _EXTENSIONS:
            protocol, at = packet[at], at + 8 + packet[at + 1] * 8
        elif protocol == 44 and not fragment:
            place = int.from_bytes(packet[at + 2 : at + 4], "big")
            fragment = 0 if not place & ~6 else 2 if place & ~7 else 1
            number = packet[at + 4 : at + 8]
            protocol, at = packet[at], at + 8
            if fragment == 2:
                break
        else:
            break
    return View(6, protocol, packet[8:24], packet[24:40], at, 40 + int.from_bytes(packet[4:6], "big"), fragment, number)


def untagged(frame: bytes) -> bytes:
    """The IP packet, also behind the VLAN that the node knows."""
    if frame[12:14] == _TAG and int.from_bytes(frame[14:16], "big") & 0xFFF == VLAN:
        return frame[18:]
    return frame[14:]


def l4_sum(packet: bytes, at: View) -> int:
    pseudo = words(at.source + at.target) if at.protocol != 1 else 0
    return (pseudo + words(packet[at.at : at.end])) % ONES


def right(packet: bytes, at: View) -> bool:
    """Whether TCP's, UDP's or ICMP's checksum is; others are of no matter to the Internet checksum around them."""
    if at.protocol not in (1, 6, 17, 58) or (at.protocol == 17 and not any(packet[at.at + 6 : at.at + 8])):
        return True
    pseudo = at.protocol + at.end - at.at if at.protocol != 1 else 0
    return (l4_sum(packet, at) + pseudo) % ONES == 0


def broken(packet: bytes, seen: View) -> str:
    """Why nobody may send this on (RFC 1122 3.2.1, RFC 768, RFC 9293 3.1 and 3.10.7), or ''."""
    if seen.family == 4 and words(packet[: seen.at]):
        return "its IP checksum is wrong"
    if seen.fragment == 2:
        return ""
    length = seen.end - seen.at
    if seen.protocol == 6:
        if length < 20 or not 20 <= (packet[seen.at + 12] >> 4) * 4 <= length:
            return "its TCP header is cut"
        flags = packet[seen.at + 13]
        if not flags & 0x16 or (flags & 7).bit_count() > 1:
            return "its TCP flags contradict each other"
    if seen.protocol == 17:
        said = int.from_bytes(packet[seen.at + 4 : seen.at + 6], "big")
        if length < 8 or said < 8 or (said > length and not seen.fragment):
            return "its UDP length is wrong"
    return ""


SOURCE, TARGET = "source", "target"


def rewritten(before: bytes, i: View, after: bytes, o: View, *ends: str) -> str:
    """A complaint, or '': equal but for these ends, TTL and checksums; L4's sum is as wrong as it was."""
    complaint = changed(before, i, after, o, *ends)
    return complaint if complaint or i.fragment == 2 else sums(before, i, after, o)


def changed(before: bytes, i: View, after: bytes, o: View, *ends: str) -> str:
    """The same without L4's sum."""
    if (o.at, o.end, o.protocol, o.fragment) != (i.at, i.end, i.protocol, i.fragment):
        return "another shape"
    length, first = len(i.source), 12 if i.family == 4 else 8
    masks = [(8, 1), (10, 2)] if i.family == 4 else [(7, 1)]
    masks += [(first + length * (end is TARGET), length) for end in ends]
    if i.fragment < 2:
        at, size = L4_CHECKSUM[i.protocol]
        masks += [(i.at + 2 * (end is TARGET), 2) for end in ends] + [(i.at + at, size)]
    expected, found = bytearray(before[: i.end]), bytearray(after[: o.end])
    for at, size in masks:
        expected[at : at + size] = found[at : at + size] = bytes(size)
    if expected != found:
        return "changed what it must not"
    ttl = 8 if i.family == 4 else 7
    return "" if after[ttl] == before[ttl] - 1 > 0 else "TTL"


def sums(before: bytes, i: View, after: bytes, o: View) -> str:
    if i.protocol == 132:
        if i.fragment:
            return ""
        was, now = before[i.at : i.end], after[o.at : o.end]
        if crc32c(was[:8] + bytes(4) + was[12:]).to_bytes(4, "little") != was[8:12]:
            return ""
        right = crc32c(now[:8] + bytes(4) + now[12:]).to_bytes(4, "little") == now[8:12]
        return "" if right else "SCTP checksum"
    if i.protocol == 17:
        was, now = before[i.at + 6 : i.at + 8], after[o.at + 6 : o.at + 8]
        if any(was) != any(now):
            return "UDP checksum appeared or went"
        if not any(was):
            return ""
    return "" if l4_sum(before, i) == l4_sum(after, o) else "L4 checksum"
