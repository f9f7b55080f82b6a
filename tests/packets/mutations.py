"""Mutations of frames: bits, bytes, lengths, ends, splices. Most get checksums mended, to come past the first look."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

_BYTES = (0, 1, 4, 5, 6, 15, 17, 0x7F, 0x80, 0xFF)
_WORDS = (0, 1, 7, 8, 19, 20, 28, 40, 41, 60, 80, 1280, 1500, 0x2000, 0x3FFF, 0x7FFF, 0x8000, 0xFFFF)
_ETHERNET = 14
_CHECKSUM = {6: 16, 17: 6, 1: 2, 58: 2}  # where it is in the L4 header
ONES = 0xFFFF


def words(data: bytes) -> int:
    """The one's complement sum (RFC 1071) up to 0 and 0xffff being the same: 2^16 is 1 modulo 0xffff."""
    return int.from_bytes(data + b"\0" if len(data) & 1 else data, "big") % ONES


def _mend(data: bytearray, at: int, total: int) -> None:
    data[at : at + 2] = (ONES - total).to_bytes(2, "big")


def mend_ip4(data: bytearray) -> None:
    """The header's checksum, as long as the header says that it is, or as the frame is."""
    end = min(_ETHERNET + max(20, (data[14] & 15) * 4), len(data) & ~1)
    data[24:26] = b"\0\0"
    _mend(data, 24, words(data[14:end]))


def mend_l4(data: bytearray) -> None:
    """TCP's, UDP's and ICMP's checksum in a frame without extension headers."""
    four = data[12] == 8
    start = _ETHERNET + ((data[14] & 15) * 4 if four else 40)
    protocol = data[23] if four else data[20]
    at = start + _CHECKSUM.get(protocol, 0)
    if at == start or at + 2 > len(data):
        return
    data[at : at + 2] = b"\0\0"
    end = 14 + int.from_bytes(data[16:18], "big") if four else 54 + int.from_bytes(data[18:20], "big")
    addresses = b"" if protocol == 1 else data[26:34] if four else data[22:54]
    pseudo = words(addresses) + (protocol + max(0, end - start) if addresses else 0)
    _mend(data, at, (pseudo + words(data[start:end])) % ONES)


def mutate(frames: Sequence[tuple[bytes, str]], dice: Random) -> tuple[bytes, str]:
    """A frame and its interface; one of sixteen is valid as it is, so that connections are opened again."""
    frame, interface = frames[int(dice.random() * len(frames))]
    if dice.random() < 0.0625:
        return frame, interface
    data = bytearray(frame)
    for _ in range(1 + int(dice.random() * 3)):
        kind, size = dice.random(), len(data)
        at = 12 + int(dice.random() * (size - 12))
        if kind < 0.4:
            data[at] ^= 1 << int(dice.random() * 8)
        elif kind < 0.6:
            data[at] = _BYTES[int(dice.random() * len(_BYTES))]
        elif kind < 0.75:
            at &= ~1
            data[at : at + 2] = _WORDS[int(dice.random() * len(_WORDS))].to_bytes(2, "big")
        elif kind < 0.85:
            del data[max(at, 15) :]
        elif kind < 0.9:
            data += dice.randbytes(1 + int(dice.random() * 40))
        elif kind < 0.95:  # the end of another frame
            data[at:] = frames[int(dice.random() * len(frames))][0][at:]
        else:  # a piece of another frame, elsewhere
            other = frames[int(dice.random() * len(frames))][0]
            start = int(dice.random() * len(other))
            data[at : at + 16] = other[start : start + 16]
    mend = dice.random()
    if len(data) >= 54 and (data[12:14] == b"\x86\xdd" or data[12:14] == b"\x08\x00"):
        if mend < 0.3:
            mend_l4(data)
        if mend < 0.8 and data[12] == 8:
            mend_ip4(data)
    return bytes(data), interface
