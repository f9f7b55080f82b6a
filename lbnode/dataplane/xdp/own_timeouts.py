"""Map `timeouts`: the time-outs that services have in place of everybody's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lbnode.dataplane.xdp import settings
from lbnode.dataplane.xdp.maps import Map
from lbnode.model import OwnTimeouts

_NONE = OwnTimeouts()


class ServiceTimeouts:
    def __init__(self, timeouts: Map) -> None:
        self._map = timeouts
        self._known: dict[int, OwnTimeouts] = {}  # by index of the service: those that have any
        self.shortest = _NONE  # of each kind, of all services

    def load(self, indexes: Iterable[int]) -> Mapping[int, OwnTimeouts]:
        """Read the map for these services; returns what is not empty."""
        found = {index: settings.unpack_own(self._map.get_index(index)) for index in indexes}
        self._known = {index: own for index, own in found.items() if own != _NONE}
        self.shortest = settings.shortest(self._known.values())
        return dict(self._known)

    def put(self, index: int, wanted: OwnTimeouts) -> None:
        """Always written: an earlier service with this index may have left its own."""
        self._map.put_index(index, settings.pack_own(wanted))
        before = self._known.pop(index, _NONE)
        if wanted != _NONE:
            self._known[index] = wanted
        if wanted != before:
            self.shortest = settings.shortest(self._known.values())
