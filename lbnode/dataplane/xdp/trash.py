"""Deleted servers that connections are still counted for, as IPVS's trash (ip_vs_trash_get_dest).

Their indexes in map `servers` stay theirs until the last connection ended. A server that is added again meanwhile gets
its index back, with its connections and its counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from lbnode.dataplane.xdp import counts, layout
from lbnode.dataplane.xdp.allocate import IndexPool
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.mirror import Server
from lbnode.model import ServerId, ServiceId

_AT_ONCE = 4  # servers that one operation looks at; it adds at most one


class Trash:
    """`indexes`: of map `servers`."""

    def __init__(self, maps: Mapping[str, Map], indexes: IndexPool) -> None:
        self._servers, self._gauges = maps["servers"], maps["gauges"]
        self._indexes = indexes
        self._kept: dict[tuple[ServiceId, ServerId], Server] = {}  # oldest first

    def tracked(self, server: Server) -> bool:
        """Whether connections to it are in the table."""
        return not counts.Gauge.unpack(self._gauges.get_index(server.index)).idle

    def keep(self, service_id: ServiceId, server: Server) -> None:
        self._kept[service_id, server.programmed.id] = server

    def take(self, service_id: ServiceId, server_id: ServerId) -> Server | None:
        return self._kept.pop((service_id, server_id), None)

    def free(self, server: Server) -> None:
        self._servers.put_index(server.index, layout.UNUSED_SERVER)
        self._indexes.give(server.index)

    def index(self) -> int | None:
        """An index for a new server; None: all are used."""
        found = self._indexes.take()
        if found is None and self._kept:
            self.empty(len(self._kept))
            found = self._indexes.take()
        return found

    def empty(self, count: int = _AT_ONCE) -> None:
        """Free those of so many whose last connection ended."""
        for key in list(islice(self._kept, count)):
            server = self._kept.pop(key)
            if self.tracked(server):
                self._kept[key] = server  # to the end: others come first next time
            else:
                self.free(server)
