"""The set of maps that the data plane runs on: adopted as it is pinned, or made and filled from what is pinned.

Taking over from older sets of another layout or size, while packets pass:

1. `open`: new maps get what the old ones hold, and the connections that there are now.
2. `take_over`: the old programs give every packet without an entry to the new ones, so no entry is added to their table
   any more; what was added meanwhile is copied.
3. The links change over to the new programs, one after the other; whichever a packet meets knows its connection.
4. `finish`: what changed meanwhile is copied, and the old set is forgotten.

A process that is killed in between leaves both sets in a state that serves, and the next one goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lbnode.dataplane.xdp import layout, settings, syscall
from lbnode.dataplane.xdp.exchange import Exchange, Merged
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.succession import pins
from lbnode.dataplane.xdp.succession.carry import Carry, Layouts
from lbnode.dataplane.xdp.succession.pins import PinnedSet, Pins
from lbnode.dataplane.xdp.succession.predecessor import Predecessor
from lbnode.errors import DataPlaneError
from lbnode.model import DropRules, Timeouts

_log = logging.getLogger(__name__)

_SLOTS = 1 << 22  # 16 MB: 1000 services with Maglev tables, or a million servers in lists


class Loading:
    """`connections`: wanted size of the table, rounded up to a power of two."""

    object: LoadedObject
    maps: Mapping[str, Map]
    exchange: Exchange
    config: settings.Config

    def __init__(
        self, directory: Path, object_path: Path, connections: int, progressed: Callable[[], None] = lambda: None
    ) -> None:
        """progressed: is called each time that opening, taking over and finishing get on."""
        self._pins = Pins(directory)
        self._object_path = object_path
        self._buckets = 1 << max(0, (connections - 1) // layout.BUCKET_WAYS).bit_length()
        self._progressed = progressed
        self._layouts = Layouts()
        self._path = directory
        self._predecessors: list[Predecessor] = []
        self.adopted = False  # something that serves was found
        self.problem = ""  # why the table has not the size that is wanted

    async def open(self) -> None:
        version = self._pins.forget_older()
        if version:
            _log.warning(
                "the data plane found here has layout %d, of a version that connections cannot be carried over from: "
                "it is replaced, tracked connections are lost",
                version,
            )
        sets = self._pins.sets()
        self.adopted = bool(sets)
        if not sets:
            await self._make([])
            return
        newest = sets[-1]
        if newest.layout != layout.LAYOUT_VERSION:
            await self._make(sets)
        elif newest.buckets == self._buckets or not await self._resized(sets):
            await self._adopt(newest, sets[:-1])

    async def _resized(self, sets: Sequence[PinnedSet]) -> bool:
        """The table stays as it is if the other one has no room for what is in it, or there is none for both."""
        kept = f"the connection table keeps its {sets[-1].buckets * layout.BUCKET_WAYS} entries: "
        wanted, tracked = self._buckets * layout.BUCKET_WAYS, sets[-1].connections
        if tracked > wanted:
            self.problem = f"{kept}{tracked} connections are tracked, too many for one of {wanted}"
            _log.warning("%s", self.problem)
            return False
        try:
            copied = await self._make(sets)
        except DataPlaneError as error:
            self.problem = kept + str(error)
        else:
            if not copied.full or self._buckets > sets[-1].buckets:
                return True  # what has no room in a larger table had none worth the name in the smaller one
            self.problem = kept + f"{copied.full} connections have no room in one of {self.entries}"
            self._predecessors.clear()
            self._unload()
            pins.remove(self._path)
        _log.warning("%s", self.problem)
        return False

    async def _make(self, sets: Sequence[PinnedSet]) -> Merged:
        """New maps, filled from the newest set, with the connections of all."""
        _check_memory(self._buckets * layout.BUCKET_WAYS)
        carry = Carry(sets[-1].maps if sets else {}, self._layouts)
        self._path = self._pins.new()
        try:
            await self._load(carry, self._buckets)
            if sets:
                await carry.copy(self.maps)
                self.config = _config_of(self.maps)
            else:
                self.config = settings.Config(Timeouts(), secrets.randbits(64), cookie_key=secrets.randbits(128))
            syscall.obj_pin(self.object.programs[pins.TAKE_ALL], str(self._path / pins.TAKE_ALL))
            self._ready(carry.generation() if sets else 0)
        except BaseException:
            self._unload()
            pins.remove(self._path)
            raise
        return await self._copy_from(sets)

    async def _adopt(self, newest: PinnedSet, older: Sequence[PinnedSet]) -> None:
        self._path = newest.path
        generation = Carry(newest.maps, self._layouts).generation()
        await self._load(None, newest.buckets)
        newest.close()
        self.config = _config_of(self.maps)
        self._ready(generation)
        await self._copy_from(older)

    async def _load(self, carry: Carry | None, buckets: int) -> None:
        path = self._path
        # In a thread: the kernel verifies the programs for about a second.
        self.object = await asyncio.to_thread(
            LoadedObject,
            self._object_path,
            pins=lambda name: path / name if "." not in name and name not in layout.UNPINNED else None,
            max_entries={"conns": buckets, "replies": buckets * layout.REPLY_BUCKETS, "slots": _SLOTS},
            shared=carry.shared if carry is not None else None,
        )
        self._progressed()
        self.maps = {name: Map(fd) for name, fd in self.object.maps.items() if "." not in name}
        self.exchange = Exchange(self.maps["records"], self.object.programs)

    def _ready(self, generation: int) -> None:
        """Time-outs and a clock come before connections. From here on the set counts as one that can be adopted."""
        self.maps["config"].put_index(0, self.config.pack())
        code, _ = syscall.prog_run(self.object.programs["start"], b"")
        if code != 0:
            raise DataPlaneError("the data plane's timer did not start", -code)
        self.maps["meta"].put_index(0, layout.pack_meta(generation))

    async def _copy_from(self, sets: Sequence[PinnedSet]) -> Merged:
        self._predecessors = [Predecessor(one, self._layouts, self.maps["records"], self._progressed) for one in sets]
        return await self._copy()

    async def _copy(self) -> Merged:
        total = Merged()
        for one in self._predecessors:
            total += await one.copy_connections(self.exchange)
        return total

    @property
    def entries(self) -> int:
        """That the table has room for."""
        return self.maps["conns"].info.max_entries * layout.BUCKET_WAYS

    # --- taking over ---------------------------------------------------------------------------------------------

    async def take_over(self) -> None:
        for one in self._predecessors:
            one.hand_over(self.object.programs)
        if self._predecessors:
            # One that has not seen it yet would add an entry behind the copy.
            await asyncio.to_thread(syscall.wait_for_programs)
        await self._copy()

    async def finish(self) -> None:
        """Every link runs the new programs."""
        if not self._predecessors:
            return
        # One that was replaced may run yet, and must find the successor: forgotten maps forget it.
        await asyncio.to_thread(syscall.wait_for_programs)
        copied = await self._copy()
        for one in self._predecessors:
            one.close(forget=True)
        self._predecessors.clear()
        _log.info("connections were carried over to a table of %d entries", self.entries)
        if copied.full:
            _log.warning("%d of them had no room in it and are lost", copied.full)

    def close(self) -> None:
        """Let go of everything; what is pinned stays."""
        for one in self._predecessors:
            one.close(forget=False)
        self._predecessors.clear()
        self._unload()

    def _unload(self) -> None:
        for one in getattr(self, "maps", {}).values():
            one.close()
        if hasattr(self, "object"):
            self.object.close()


def _config_of(maps: Mapping[str, Map]) -> settings.Config:
    """Nobody has asked for changed connections, or for rules, yet."""
    return replace(settings.Config.unpack(maps["config"].get_index(0)), sync=False, drop=DropRules())


def _check_memory(entries: int) -> None:
    """DataPlaneError: the kernel would have to take memory that something else uses."""
    wanted, free = entries * layout.ENTRY_BYTES, _available()
    if wanted > free:
        raise DataPlaneError(
            f"a table of {entries} entries takes {wanted >> 20} MB, and {free >> 20} MB of memory are available: write "
            "a smaller number to connections in [dataplane] of node.toml"
        )


def _available() -> int:
    """Bytes (proc(5): MemAvailable)."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
