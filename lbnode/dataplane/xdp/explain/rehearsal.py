"""A second instance of the data plane's program, in which a packet changes nothing that is in use.

The same object is loaded once more, with one program. What user space alone writes (services, servers, leases, ...) it
shares with the live one; whatever programs write (connections, cursors, gauges, counters, ...) it has copies of, which
are gone with it. For that time it takes as much memory again as the connection table.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lbnode.dataplane.xdp import counts, layout, settings, syscall
from lbnode.dataplane.xdp.explain import table
from lbnode.dataplane.xdp.explain.table import Entry
from lbnode.dataplane.xdp.explain.traces import Traces
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.errors import DataPlaneError
from lbnode.model import Counters

# Programs only read these.
SHARED = (
    "config",
    "services",
    "servers",
    "slots",
    "pools",
    "vips",
    "vlans",
    "egress",
    "leases",
    "leased",
    "prefixes",
    "timeouts",
)
# What programs read and write. Counters, queues and working memory begin empty instead.
COPIED = ("replies", "gauges", "half_open", "groups", "cursors", "clock")
_SIZED = ("conns", "replies")
_COPY_BYTES = 1 << 20  # at a time; the event loop's thread gets its turn in between
_CHUNK = 1024
_VERDICTS = {
    "xdp_lb": {1: "drop", 2: "pass", 3: "send", 4: "send"},  # enum xdp_action
    "tc_lb": {2: "drop", 0xFFFFFFFF: "pass", 7: "send"},  # TCX_DROP, TCX_NEXT, TCX_REDIRECT
}
_HANDOVER = struct.pack("=I", 0x6C626E64)  # hook.h: struct handover, metadata in front of the frame
_HANDOVER_SIZE = 28


class Rehearsal:
    """`program`: xdp_lb or tc_lb. Runs in the caller's network namespace. DataPlaneError: it cannot be loaded."""

    def __init__(self, path: Path, live: Mapping[str, Map], program: str) -> None:
        self._program = program
        self._seed = settings.Config.unpack(live["config"].get_index(0)).seed
        self._live = Map(live["conns"].fd)  # a mapping of its own, for as long as this lasts
        try:
            self._object = LoadedObject(
                path,
                pins=lambda _: None,
                max_entries={name: live[name].info.max_entries for name in _SIZED},
                shared=lambda one, _: live[one.name].fd if one.name in SHARED else None,
                only=(program,),
            )
        except DataPlaneError as error:
            raise DataPlaneError(
                f"no second instance of the data plane to try the packet in: {error}", error.errno
            ) from error
        self._maps = {name: Map(fd) for name, fd in self._object.maps.items() if "." not in name}
        try:
            self._copy(live)
        except BaseException:
            self.close()
            raise

    def _copy(self, live: Mapping[str, Map]) -> None:
        with memoryview(self._live.view()) as source, memoryview(self._maps["conns"].view()) as target:
            for at in range(0, len(source), _COPY_BYTES):
                target[at : at + _COPY_BYTES] = source[at : at + _COPY_BYTES]
        for name in COPIED:
            for keys, values in live[name].batches(_CHUNK):
                count = len(keys) // live[name].info.key_size
                syscall.map_update_batch(self._maps[name].fd, keys, values, count)
        for name in ("affinity", "sources"):
            for key, value in live[name].items(_CHUNK):
                self._maps[name].put(key, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for one in (self._live, *self._maps.values()):
            one.close()
        self._object.close()

    @property
    def now_ms(self) -> int:
        """The programs' time."""
        return int(struct.unpack_from("=I", self._maps["clock"].get_index(0))[0])

    def find(self, packed_tuple: bytes) -> Entry | None:
        conns, replies = self._maps["conns"], self._maps["replies"]
        return table.find(conns.view(), replies.view(), conns.info.max_entries, self._seed, packed_tuple)

    def run(self, frame: bytes, packed_tuple: bytes, ifindex: int, mark: int) -> Traces:
        """Once; a second packet would find what the first one left."""
        if self._program == "xdp_lb":
            context = struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0)  # struct xdp_md
        else:
            context = struct.pack("=11I", 0, 0, mark, *(0,) * 7, ifindex)  # the beginning of struct __sk_buff
        run = syscall.prog_test_run(self._object.programs[self._program], frame, context=context)
        verdict = _VERDICTS[self._program].get(run.retval)
        if verdict is None:
            raise DataPlaneError(f"{self._program} returned {run.retval}, which means nothing here")
        server, counted = self._counted()
        entry = self.find(packed_tuple)
        return Traces(
            verdict,
            run.data[_HANDOVER_SIZE:] if run.data.startswith(_HANDOVER) else run.data,
            self._events(),
            server,
            counted,
            entry,
            self._is_new_template(entry),
        )

    def _events(self) -> Mapping[layout.Event, int]:
        events = self._maps["events"]
        found = {one: counts.unpack_event(events.get_index(one)) for one in layout.Event}
        return {one: count for one, count in found.items() if count and one is not layout.Event.ENTRIES}

    def _counted(self) -> tuple[int | None, Counters]:
        """The only server whose counters are not 0."""
        stats = self._maps["server_stats"]
        for keys, values in stats.batches(_CHUNK):
            if any(values):
                for (index,), at in zip(
                    struct.iter_unpack("=I", keys), range(0, len(values), stats.value_size), strict=True
                ):
                    if any(values[at : at + stats.value_size]):
                        return index, counts.unpack_counters(values[at : at + stats.value_size])
        return None, Counters()

    def _is_new_template(self, entry: Entry | None) -> bool:
        if entry is None or entry.template < 0:
            return False
        return table.birth(self._live.view(), entry.template) != entry.template_birth
