"""Runs `lbctl capture` on this data plane: swaps a program in that takes packets, and the ordinary one back.

The object is loaded once more around the same maps, with the constant that switches its taking on. Links change from
one program to the other without a gap. If this process dies meanwhile, the program stops taking packets at the
request's end, and the next process swaps its own in, as always.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path

from lbnode.capture import Captured, CapturedPacket, CaptureRequest
from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.attachments import Attachments
from lbnode.dataplane.xdp.capture.codec import CaptureRecord, Figures, pack
from lbnode.dataplane.xdp.libbpf import Definition, LoadedObject, RingBuffer
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.tables import Tables
from lbnode.errors import DataPlaneError
from lbnode.model import format_endpoint

CONSTANTS = {".rodata.capture": struct.pack("=I", 1)}
_USES = {"xdp": "xdp_lb", "xdp-frags": "xdp_lb_frags", "tcx": "tc_lb"}
_RING_BYTES = (
    1 << 22
)  # a power of two; half a second at the highest rate and with whole frames of 1500 bytes takes 3 MB
_LOOK_EACH_S = 0.05


class Capturer:
    """One capture at a time. `programs`: the ordinary ones, by use."""

    def __init__(
        self,
        path: Path,
        maps: Mapping[str, Map],
        programs: Mapping[str, int],
        tables: Tables,
        neighbours: Neighbours,
        attachments: Attachments,
    ) -> None:
        self._path = path
        self._maps = maps
        self._programs = programs
        self._tables = tables
        self._neighbours = neighbours
        self._attachments = attachments
        self._running = False
        self._loading: asyncio.Future[LoadedObject] | None = None

    async def capture(self, request: CaptureRequest) -> AsyncGenerator[Captured, None]:
        """The first item comes, empty, when it has begun; then one each moment. KeyError: there is no such service."""
        if self._running:
            raise DataPlaneError(
                "another capture is running on this node: wait for its end, or end it with Ctrl-C there"
            )
        index = 0
        if request.service is not None:
            if request.service not in self._tables.services:
                raise KeyError(f"there is no service {request.service}")
            index = self._tables.services[request.service].entry.index
        until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(request.seconds * 1e9)
        packed = pack(request, index, until)
        self._running = True
        try:
            loaded = await self._load()
            try:
                async with aclosing(self._run(loaded, packed, request.count, until)) as found:
                    async for captured in found:
                        yield captured
            finally:
                self._attachments.use(self._programs)
                loaded.close()
        finally:
            self._running = False

    async def _load(self) -> LoadedObject:
        """In a thread: the kernel verifies the programs for about half a second."""
        self._loading = asyncio.ensure_future(
            asyncio.to_thread(
                LoadedObject,
                self._path,
                pins=lambda _: None,
                max_entries={"captured": _RING_BYTES},
                shared=self._shared,
                only=tuple(_USES.values()),
                constants=CONSTANTS,
            )
        )
        try:
            loaded = await asyncio.shield(self._loading)
        except asyncio.CancelledError:
            await self.close()
            raise
        self._loading = None
        return loaded

    def _shared(self, wanted: Definition, _: bytes) -> int | None:
        """Everything but what each instance of the program has for itself."""
        found = self._maps.get(wanted.name)
        return found.fd if found is not None and wanted.name not in layout.UNPINNED else None

    async def close(self) -> None:
        """Wait for the thread: it uses the maps."""
        if self._loading is not None:
            await asyncio.wait([self._loading])
            with suppress(DataPlaneError):
                self._loading.result().close()
            self._loading = None

    async def _run(self, loaded: LoadedObject, packed: bytes, count: int, until: int) -> AsyncGenerator[Captured, None]:
        control = Map(loaded.maps["capture"])
        control.put_index(0, packed)
        ring = RingBuffer(loaded.maps["captured"])
        unix_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            capturing = {use: loaded.programs[name] for use, name in _USES.items() if use in self._programs}
            self._attachments.use({**self._programs, **capturing})
            done = False
            while not done:
                figures = Figures.unpack(control.get_index(0))
                done = figures.taken >= count or time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= until
                if done:
                    await asyncio.sleep(_LOOK_EACH_S)  # for packets that a CPU is busy with
                records = [CaptureRecord.unpack(one) for one in ring.take()]
                yield Captured(tuple(self._named(records, unix_ns)), figures.over + figures.lost)
                await asyncio.sleep(_LOOK_EACH_S)
        finally:
            ring.close()

    def _named(self, records: Iterable[CaptureRecord], unix_ns: int) -> Iterable[CapturedPacket]:
        names = {one.index: one.name for one in self._neighbours.interfaces()}
        servers: dict[int, str] = {}
        for one in records:
            server = ""
            if one.verdict in ("to-server", "to-client"):
                if one.server not in servers:
                    found = layout.Server.unpack(self._maps["servers"].get_index(one.server))
                    servers[one.server] = format_endpoint(found.address, found.port) if found else ""
                server = servers[one.server]
            yield CapturedPacket(
                one.time_ns + unix_ns,
                names.get(one.ifindex, f"if{one.ifindex}"),
                one.leaves,
                one.frame,
                one.length,
                one.verdict,
                one.event.label if one.event is not None else "",
                server,
            )
