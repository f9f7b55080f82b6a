"""Connections in and out of the connection table, through the programs that walk it in the kernel.

One caller at a time: each step fills and empties the shared map `records` without giving up the event loop.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.records import RECORD_SIZE, RECORDS_MAX, MergeResult, RecordsArgs, merge_results
from lbnode.errors import DataPlaneError

_IDLE_MS = struct.Struct("=I")
_IDLE_AT = 80  # struct record in lb.h: behind two tuples


_STEPS = 1 << 14  # buckets that the kernel looks at in one call: a millisecond or two of an empty table


@dataclass(frozen=True, slots=True)
class Merged:
    taken: int = 0
    unknown: bytes = b""  # records whose service or server is not known here (yet)
    full: int = 0  # found no room

    def __add__(self, other: Merged) -> Merged:
        return Merged(self.taken + other.taken, self.unknown + other.unknown, self.full + other.full)


class Exchange:
    """`programs`: those of take_changed, take_all and merge that are used."""

    def __init__(self, records: Map, programs: Mapping[str, int]) -> None:
        self._view = records.view()
        self._size = records.info.value_size  # another version's records may have another one
        self._programs = programs

    def _run(self, program: str, arguments: RecordsArgs) -> RecordsArgs:
        code, context = syscall.prog_run(self._programs[program], arguments.pack())
        if code != 0:
            raise DataPlaneError(f"{program}: {os.strerror(-code)}", -code)
        return RecordsArgs.unpack(context)

    def changed(self, limit: int) -> bytes:
        """Take up to `limit` records from the queue of changed connections."""
        parts = []
        while limit > 0:
            result = self._run("take_changed", RecordsArgs(limit=min(limit, RECORDS_MAX)))
            parts.append(self._view[: result.count * self._size])
            limit -= result.count
            if result.done or result.count == 0:
                break
        return b"".join(parts)

    async def walk(self, *, sync_only: bool) -> AsyncIterator[bytes]:
        """The whole table in chunks of records; `sync_only` leaves out what peers need not know.

        A connection that is moved meanwhile (room.h) may be missing, or be there twice. Peers hear of it by `changed`.
        """
        arguments = RecordsArgs(limit=RECORDS_MAX, sync_only=sync_only, steps=_STEPS)
        while True:
            result = self._run("take_all", arguments)
            data = self._view[: result.count * self._size]
            if data:
                yield data
            if result.done:
                return
            arguments = replace(arguments, bucket=result.bucket)
            await asyncio.sleep(0)

    async def merge(self, records: bytes, *, carried: bool = False) -> Merged:
        """`carried`: out of an older set of this node."""
        taken, full, unknown = 0, 0, bytearray()
        step = RECORDS_MAX * self._size
        for start in range(0, len(records) - self._size + 1, step):
            part = records[start : start + step]
            count = len(part) // self._size
            self._view[: count * self._size] = part[: count * self._size]
            taken += self._run("merge", RecordsArgs(limit=count, carried=carried)).count
            results = merge_results(self._view[: count * self._size])
            full += results.count(MergeResult.FULL)
            if MergeResult.UNKNOWN in results:
                for index, result in enumerate(results):
                    if result == MergeResult.UNKNOWN:
                        unknown += part[index * self._size : (index + 1) * self._size]
            await asyncio.sleep(0)
        return Merged(taken, bytes(unknown), full)


def aged(records: bytes, seconds: float) -> bytes:
    """The same records after they lay here for some time."""
    result = bytearray(records)
    for at in range(0, len(records), RECORD_SIZE):
        (idle_ms,) = _IDLE_MS.unpack_from(records, at + _IDLE_AT)
        _IDLE_MS.pack_into(result, at + _IDLE_AT, min(idle_ms + int(seconds * 1000), 0xFFFFFFFF))
    return bytes(result)
