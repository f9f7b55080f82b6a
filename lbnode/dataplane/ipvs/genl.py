"""Framing of netlink(7) and generic netlink messages: headers, attributes, the family lookup. Pure.

Layouts: linux/netlink.h and linux/genetlink.h. Attributes are aligned to four bytes; numbers are in host order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NLMSG = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_HEADER = struct.Struct("=IHHIIBBH")  # the same, then generic netlink's command, version, reserved
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")
_U16 = struct.Struct("=H")

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
ALIGNED = 4
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

CONTROL_FAMILY, CONTROL_VERSION = 16, 1
GET_FAMILY = 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2


@dataclass(frozen=True, slots=True)
class Reply:
    """One message from the kernel. errno: 0 also for an acknowledgement; None where the message carries none."""

    sequence: int
    body: bytes  # attributes, after the generic netlink header
    errno: int | None = None
    done: bool = False  # the end of a dump


def attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % ALIGNED)


def attributes(body: bytes) -> dict[int, bytes]:
    """Type -> value; the last of a type wins. A cut-off or impossible length ends the list."""
    found: dict[int, bytes] = {}
    offset, end = 0, len(body)
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > end:
            break
        found[kind & _TYPE_MASK] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + ALIGNED - 1) & -ALIGNED
    return found


def message(family: int, command: int, version: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), family, flags | REQUEST, sequence, 0, command, version, 0) + body


def replies(data: bytes) -> Iterator[Reply]:
    """The messages of one read; what is cut off is left out."""
    offset, end = 0, len(data)
    while offset + _NLMSG.size <= end:
        length, kind, _, sequence, _ = _NLMSG.unpack_from(data, offset)
        if length < _NLMSG.size or offset + length > end:
            break
        start, stop = offset + _NLMSG.size, offset + length
        offset += (length + ALIGNED - 1) & -ALIGNED
        if kind in (NLMSG_ERROR, NLMSG_DONE):
            # A dump that failed half way says so in its last message.
            code = _ERROR.unpack_from(data, start)[0] if stop - start >= _ERROR.size else 0
            yield Reply(sequence, b"", errno=-code, done=kind == NLMSG_DONE)
        else:
            yield Reply(sequence, data[start + _HEADER.size - _NLMSG.size : stop])


def family_request(name: str) -> bytes:
    """Body of GET_FAMILY."""
    return attribute(_CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")


def family_id(body: bytes) -> int:
    """The message type of the family, from the answer to GET_FAMILY."""
    return int(_U16.unpack_from(attributes(body)[_CTRL_ATTR_FAMILY_ID])[0])
