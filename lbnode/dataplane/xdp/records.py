"""Connection records: how connections travel between nodes and how user space lists them. Pure; mirrors lb.h.

User space never looks into the connection table: the programs take_changed and take_all write records into the map
`records`, merge reads them from there.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from lbnode.dataplane.xdp.layout import (
    FORWARD_NUMBER,
    FORWARDING,
    PROTOCOL_NUMBER,
    PROTOCOL_OF,
    State,
    pack_address,
    unpack_address,
)
from lbnode.model import Address, ForwardingMethod, L4Protocol

RECORDS_MAX = 4096  # elements of map `records`
RECORD_SIZE = 104
RECORD_LAYOUT = f"lbnode-connection-3/{RECORD_SIZE}{sys.byteorder}"
_TARGET_AT, _TARGET_END = 16, 32  # of `inward`: the virtual address
_RESULT_AT = 91


class MergeResult(IntEnum):
    """`enum merge_result`."""

    TAKEN = 0
    UNKNOWN = 1  # no such service or server here yet
    OLDER = 2
    FULL = 3
    INVALID = 4


@dataclass(frozen=True, slots=True)
class Tuple:
    source: Address
    source_port: int
    target: Address
    target_port: int
    protocol: L4Protocol | None  # None: of a firewall mark's template
    template: bool = False

    _FORMAT = struct.Struct("=16s16s2s2sBB2x")

    def pack(self) -> bytes:
        return self._FORMAT.pack(
            pack_address(self.source),
            pack_address(self.target),
            self.source_port.to_bytes(2, "big"),
            self.target_port.to_bytes(2, "big"),
            0 if self.protocol is None else PROTOCOL_NUMBER[self.protocol],
            self.template,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        source, target, source_port, target_port, protocol, template = cls._FORMAT.unpack(data)
        return cls(
            unpack_address(source),
            int.from_bytes(source_port, "big"),
            unpack_address(target),
            int.from_bytes(target_port, "big"),
            PROTOCOL_OF[protocol] if protocol else None,
            bool(template),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """`struct record`: one connection or template, portable between nodes."""

    inward: Tuple  # client -> VIP
    outward: Tuple  # server -> client
    idle_ms: int
    state: State
    flags: int
    forward: ForwardingMethod
    mark: int = 0
    result: MergeResult = MergeResult.TAKEN
    timeout_ms: int = 0  # the connection is over when `idle_ms` is larger
    delta: int = 0  # as in struct conn, of one that began with a SYN cookie
    scale_in: int = 0
    scale_out: int = 0

    _FORMAT = struct.Struct("=40s40sIIBBBBIIBB2x")

    def pack(self) -> bytes:
        return self._FORMAT.pack(
            self.inward.pack(),
            self.outward.pack(),
            self.idle_ms,
            self.mark,
            self.state,
            self.flags,
            FORWARD_NUMBER[self.forward],
            self.result,
            self.timeout_ms,
            self.delta,
            self.scale_in,
            self.scale_out,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        inward, outward, idle_ms, mark, state, flags, forward, result, *rest = cls._FORMAT.unpack(data)
        return cls(
            Tuple.unpack(inward),
            Tuple.unpack(outward),
            idle_ms,
            State(state),
            flags,
            FORWARDING[forward],
            mark,
            MergeResult(result),
            *rest,
        )


def unpack_records(data: bytes) -> Iterator[Record]:
    """Of whole records one after the other."""
    for at in range(0, len(data), RECORD_SIZE):
        yield Record.unpack(data[at : at + RECORD_SIZE])


def merge_results(data: bytes) -> bytes:
    """After `merge`: one MergeResult byte per record."""
    return data[_RESULT_AT::RECORD_SIZE]


def by_group(records: bytes, group_of: Mapping[bytes, str]) -> dict[str, bytes]:
    """The records by what `group_of` has for their packed virtual addresses, "" where it has nothing."""
    starts = range(0, len(records), RECORD_SIZE)
    names = [group_of.get(records[at + _TARGET_AT : at + _TARGET_END], "") for at in starts]
    if len(found := set(names)) == 1:  # as nearly always
        return {found.pop(): records}
    parts: dict[str, list[bytes]] = {name: [] for name in sorted(found)}
    for at, name in zip(starts, names, strict=True):
        parts[name].append(records[at : at + RECORD_SIZE])
    return {name: b"".join(part) for name, part in parts.items()}


@dataclass(frozen=True, slots=True)
class RecordsArgs:
    """`struct records_args`: argument and result of take_changed, take_all and merge."""

    limit: int = 0
    count: int = 0
    bucket: int = 0
    done: bool = False
    sync_only: bool = False
    steps: int = 0
    carried: bool = False

    _FORMAT = struct.Struct("=IIIIII")

    def pack(self) -> bytes:
        flags = self.sync_only | self.carried << 1
        return self._FORMAT.pack(self.limit, self.count, self.bucket, self.done, flags, self.steps)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        limit, count, bucket, done, flags, steps = cls._FORMAT.unpack(data)
        return cls(limit, count, bucket, bool(done), bool(flags & 1), steps, bool(flags & 2))
