"""The leases of the VIP groups in the data plane's memory: until when each group's addresses are served.

The kernel compares them with its clock at each packet, so they end also when nobody is left who could end them.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping

from lbnode.model import VipGroup


class LeaseMap:
    """The data plane's array of leases, mapped into this process: to set one is a store into memory, without a system
    call that might have to wait. OSError if the descriptor is none of such an array."""

    def __init__(self, descriptor: int) -> None:
        self._view = memoryview(mmap.mmap(descriptor, mmap.PAGESIZE)).cast("Q")

    def set(self, index: int, until: int) -> None:
        """Serve under lease `index` until `until`. One store of eight bytes: no reader sees half of it."""
        self._view[index] = until


class Leases:
    """The leases by VIP group. `descriptor` None: this data plane has none, and nothing is written."""

    def __init__(self, descriptor: int | None) -> None:
        self._map = None if descriptor is None else LeaseMap(descriptor)
        self._indexes: Mapping[str, int] = {}

    def configure(self, indexes: Mapping[str, int]) -> None:
        """Which index each group has; a group without needs no lease."""
        self._indexes = indexes

    def set(self, group: VipGroup, until: int) -> None:
        """Serve the group's addresses until `until`, ns of CLOCK_BOOTTIME; 0 = no longer."""
        index = self._indexes.get(group.name)
        if self._map is not None and index is not None:
            self._map.set(index, until)
