"""Captured packets as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark and tcpdump read. Pure.

Every interface has a block of its own. A packet says whether it came in or leaves (epb_flags), and in its comment what
became of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from lbnode.capture import CapturedPacket

MEDIA = "application/x-pcapng"
_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_END_OF_OPTIONS, _COMMENT = 0, 1
_APPLICATION, _NAME, _RESOLUTION, _FLAGS, _DROPPED = 4, 2, 9, 2, 5  # each in its own kind of block
_ETHERNET = 1  # LINKTYPE_ETHERNET
_NANOSECONDS = b"\x09"
_INBOUND, _OUTBOUND = 1, 2


class Pcapng:
    """One file, as pieces to put one behind the other."""

    def __init__(self, snap: int) -> None:
        self._snap = snap
        self._interfaces: dict[str, int] = {}

    def begin(self) -> bytes:
        body = struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1)  # of unknown length
        return _block(_SECTION, body, (_APPLICATION, b"lbnode"))

    def packets(self, packets: Iterable[CapturedPacket]) -> bytes:
        return b"".join(self._packet(one) for one in packets)

    def end(self, missed: int, time_ns: int) -> bytes:
        """`missed`: packets that matched and are not there. It is told of the first interface."""
        if not self._interfaces:
            return b""
        body = struct.pack("=III", 0, time_ns >> 32, time_ns & 0xFFFFFFFF)
        return _block(_STATISTICS, body, (_DROPPED, struct.pack("=Q", missed)))

    def _packet(self, one: CapturedPacket) -> bytes:
        new = b""
        if one.interface not in self._interfaces:
            self._interfaces[one.interface] = len(self._interfaces)
            description = struct.pack("=HxxI", _ETHERNET, self._snap)
            new = _block(_INTERFACE, description, (_NAME, one.interface.encode()), (_RESOLUTION, _NANOSECONDS))
        number, time_ns = self._interfaces[one.interface], one.time_ns
        head = struct.pack(
            "=5I", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(one.data), max(one.length, len(one.data))
        )
        flags = struct.pack("=I", _OUTBOUND if one.leaves else _INBOUND)
        return new + _block(_PACKET, head + _padded(one.data), (_FLAGS, flags), (_COMMENT, str(one).encode()))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes, *options: tuple[int, bytes]) -> bytes:
    parts = [struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options]
    content = body + b"".join(parts) + struct.pack("=HH", _END_OF_OPTIONS, 0)
    length = struct.pack("=I", 12 + len(content))
    return struct.pack("=I", kind) + length + content + length
