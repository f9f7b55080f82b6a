"""Groups of servers that are scheduled by load, in the map `groups` (lb.h: struct group), with a mirror in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.allocate import IndexPool
from lbnode.dataplane.xdp.layout import GROUP_MEMBERS, SLOT_EMPTY
from lbnode.dataplane.xdp.maps import Map
from lbnode.errors import DataPlaneError


class Groups:
    """Every chain belongs to one service, which names its first group. `clock`: monotonic seconds.

    What is written here counts when the service's epoch changes after it: the caller writes the service.
    """

    def __init__(self, array: Map, clock: Callable[[], float], grace_s: float) -> None:
        self._map = array
        self._clock = clock
        self._grace_s = grace_s  # as long packets may still walk a chain that no service names any more
        self._pool = IndexPool(array.info.max_entries - 1, first=1)
        self._groups: dict[int, layout.Group] = {}
        self._retired: list[tuple[float, int]] = []  # free from then on

    def load(self, first: int) -> None:
        """Take over the chain of a service that the maps hold already."""
        while first and first not in self._groups:
            self._pool.reserve(first)
            group = self._groups[first] = layout.Group.unpack(self._map.get_index(first))
            first = group.next

    def add(self, first: int, server: int) -> tuple[int, int]:
        """Put a server into the chain. Returns the chain's first group, perhaps a new one, and the server's."""
        at = first
        while at:
            group = self._groups[at]
            if SLOT_EMPTY in group.members:
                self._change(at, SLOT_EMPTY, server)
                return first, at
            at = group.next
        index = self._take()
        self._write(index, layout.Group(first, (server, *[SLOT_EMPTY] * (GROUP_MEMBERS - 1))))
        return index, index

    def remove(self, index: int, server: int) -> None:
        self._change(index, server, SLOT_EMPTY)

    def put_back(self, index: int, server: int) -> None:
        """Undo `remove`."""
        self._change(index, SLOT_EMPTY, server)

    def drop(self, first: int) -> None:
        """The chain of a service that names it no more."""
        while first:
            self._retired.append((self._clock() + self._grace_s, first))
            first = self._groups.pop(first).next

    def _take(self) -> int:
        now = self._clock()
        for _, free in [one for one in self._retired if one[0] <= now]:
            self._pool.give(free)
        self._retired = [one for one in self._retired if one[0] > now]
        index = self._pool.take()
        if index is None:
            raise DataPlaneError(f"no room: the data plane holds at most {len(self._pool)} groups of servers")
        return index

    def _change(self, index: int, old: int, new: int) -> None:
        group = self._groups[index]
        members = list(group.members)
        members[members.index(old)] = new
        self._write(index, replace(group, members=tuple(members)))

    def _write(self, index: int, group: layout.Group) -> None:
        self._groups[index] = group
        self._map.put_index(index, group.pack())
