"""Entries of the connection table, read from a copy of it (lb.h: struct bucket, struct conn, struct back). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from lbnode.dataplane.xdp.layout import BUCKET_SIZE, BUCKET_WAYS, REPLY_BUCKET_SIZE, REPLY_BUCKETS, State

CONN_SIZE = 64
BACK_SIZE = 48
WAYS_AT = 64  # behind the words
BACKS_AT = WAYS_AT + BUCKET_WAYS * CONN_SIZE
_WORD = struct.Struct("=Q")
_CONN = struct.Struct("=40sIIIIB3xI")
_BACK = struct.Struct("=40sQ")
_REPLIES = struct.Struct("=8Q")  # struct reply_bucket
_BUSY = 0xFF
_64_BITS = (1 << 64) - 1


class Memory(Protocol):
    """A map's memory, as mmap gives it."""

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
    timeout_ms: int  # of a template; 0 = by state
    template: int  # entry (as `at`) of the client's template, and its birth; -1 = none
    template_birth: int


def tuple_hash(packed_tuple: bytes, seed: int) -> int:
    """tuple_hash of maps.h."""
    x0, x1, x2, x3, x4 = struct.unpack("=5Q", packed_tuple)
    value = seed
    if x0 | x2:
        value = _mix(_mix(value ^ x0) + x2)
    value = _mix(_mix(_mix(value ^ x1) + x3) ^ x4)
    value = value * 0xFF51AFD7ED558CCD & _64_BITS
    return value ^ value >> 29


def _mix(value: int) -> int:
    value = value * 0x9E3779B97F4A7C15 & _64_BITS
    return value ^ value >> 32


def _choices(value: int, buckets: int) -> tuple[int, int]:
    return value & buckets - 1, value >> 32 & buckets - 1


def find(memory: Memory, replies: Memory, buckets: int, seed: int, packed_tuple: bytes) -> Entry | None:
    """The entry, of whatever age, that a packet with this tuple (records.Tuple.pack) belongs to.

    memory, replies: maps `conns`, of so many buckets, and `replies`.
    """
    value = tuple_hash(packed_tuple, seed)
    for at in (number * BUCKET_WAYS + way for number in _choices(value, buckets) for way in range(BUCKET_WAYS)):
        found = _entry(memory, at, packed_tuple, inward=True)
        if found is not None:
            return found
    for number in _choices(value, buckets * REPLY_BUCKETS):
        for ref in _REPLIES.unpack(replies[number * REPLY_BUCKET_SIZE : (number + 1) * REPLY_BUCKET_SIZE]):
            found = _entry(memory, (ref & 0xFFFFFFFF) - 1, packed_tuple, inward=False) if ref else None
            if found is not None:
                return found
    return None


def _entry(memory: Memory, at: int, packed_tuple: bytes, *, inward: bool) -> Entry | None:
    """What is in this way, if it has the tuple as its client's (`inward`), or as its server's."""
    bucket, way = divmod(at, BUCKET_WAYS)
    word = _word(memory, at)
    start = bucket * BUCKET_SIZE + WAYS_AT + way * CONN_SIZE
    client, server, generation, last_ms, _, _, own_ms = _CONN.unpack(memory[start : start + CONN_SIZE])
    start = bucket * BUCKET_SIZE + BACKS_AT + way * BACK_SIZE
    back, control = _BACK.unpack(memory[start : start + BACK_SIZE])
    if word & 0xFF in (State.NONE, _BUSY) or packed_tuple != (client if inward else back):
        return None
    state, template, born = State(word & 0xFF), (control & 0xFFFFFFFF) - 1, control >> 32
    timeout_ms = own_ms if state is State.TEMPLATE else 0
    return Entry(at, word >> 32, inward, state, server, generation, last_ms, timeout_ms, template, born)


def _word(memory: Memory, at: int) -> int:
    bucket, way = divmod(at, BUCKET_WAYS)
    start = bucket * BUCKET_SIZE + way * _WORD.size
    return int(_WORD.unpack(memory[start : start + _WORD.size])[0])


def birth(memory: Memory, at: int) -> int:
    """Of what is in a way now."""
    return _word(memory, at) >> 32
