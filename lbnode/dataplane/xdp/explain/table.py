"""Entries of the connection table, read from a copy of it (lb.h: struct bucket, struct conn). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from lbnode.dataplane.xdp.layout import BUCKET_WAYS, FORWARDING, State
from lbnode.model import ForwardingMethod

BUCKET_SIZE = 512
CONN_SIZE = 112
_WAYS_AT = 64  # behind words, tags and what is reserved
_TUPLE_SIZE = 40
_WORD = struct.Struct("=Q")
_CONN = struct.Struct("=40s40sIIIIB3xIQ")
_BUSY = 0xFF


class Memory(Protocol):
    """A map's memory, as mmap gives it."""

    def find(self, sub: bytes, start: int, /) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    at: int  # bucket * BUCKET_WAYS + way
    birth: int  # grows whenever the way is filled or freed
    inward: bool  # the packet's tuple is that of client -> VIP; else that of the reply
    state: State
    server: int  # index
    server_generation: int
    last_ms: int
    timeout_ms: int  # of this entry alone; 0 = by state
    template: int  # entry (as `at`) of the client's template, and its birth; -1 = none
    template_birth: int


def find(memory: Memory, packed_tuple: bytes) -> Entry | None:
    """The entry that a packet with this tuple (records.Tuple.pack) belongs to, of whatever age."""
    for position in _positions(memory, packed_tuple):
        bucket, inside = divmod(position, BUCKET_SIZE)
        way, member = divmod(inside - _WAYS_AT, CONN_SIZE)
        if inside < _WAYS_AT or member not in (0, _TUPLE_SIZE):
            continue
        (word,) = _WORD.unpack(memory[bucket * BUCKET_SIZE + way * 8 : bucket * BUCKET_SIZE + way * 8 + 8])
        if word & 0xFF in (State.NONE, _BUSY):
            continue
        start = position - member
        values = _CONN.unpack(memory[start : start + CONN_SIZE])
        _, _, server, generation, last_ms, _, forward, timeout_ms, control = values
        if member and FORWARDING[forward] is not ForwardingMethod.MASQUERADE:
            continue  # its replies do not pass here, the program does not look for them
        state = State(word & 0xFF)
        template, birth = (control & 0xFFFFFFFF) - 1, control >> 32
        at = bucket * BUCKET_WAYS + way
        return Entry(at, word >> 32, member == 0, state, server, generation, last_ms, timeout_ms, template, birth)
    return None


def birth(memory: Memory, at: int) -> int:
    """Of what is in a way now."""
    bucket, way = divmod(at, BUCKET_WAYS)
    start = bucket * BUCKET_SIZE + way * 8
    return int(_WORD.unpack(memory[start : start + 8])[0]) >> 32


def _positions(memory: Memory, wanted: bytes) -> Iterator[int]:
    position = memory.find(wanted, 0)
    while position >= 0:
        yield position
        position = memory.find(wanted, position + 8)
