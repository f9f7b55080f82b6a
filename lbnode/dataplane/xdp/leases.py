"""Which addresses are served only under a lease, and under which one: the maps `leased` and `leases` of bpf/lb.h.

The leases themselves are written by the election process, which maps `leases` into its memory. A restarted daemon finds
the index of a group again by the group's addresses, so that an election process that outlived it goes on writing to
the right one.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Collection, Mapping

from lbnode.dataplane.base import LeaseStatus
from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.maps import Map
from lbnode.errors import DataPlaneError
from lbnode.model import Address

_INDEX = struct.Struct("=I")
_UNTIL = struct.Struct("=Q")


class Leases:
    """`groups`: VIP group -> its index in `leases`. `maps` has both maps; what they hold already is kept."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._leases, self._leased = maps["leases"], maps["leased"]
        self._of = {layout.unpack_address(key): int(_INDEX.unpack(value)[0]) for key, value in self._leased.items()}
        self.groups: Mapping[str, int] = {}

    @property
    def map_fd(self) -> int:
        return self._leases.fd

    def of(self, address: Address | None) -> int:
        """For struct server: the lease of a service's address (None: it matches a firewall mark), 0 = none needed."""
        return layout.LEASE_OF_TARGET if address is None else self._of.get(address, 0)

    def group_of(self, address: Address) -> str:
        """The VIP group that an address is served under; empty: under none."""
        index = self._of.get(address)
        return next((name for name, one in self.groups.items() if one == index), "")

    def set_groups(self, groups: Mapping[str, Collection[Address]]) -> set[Address]:
        """Serve the addresses of these groups under a lease each, any other without. Returns those that changed.

        A lease that is new has ended: its group is served from the next advertisement on.
        """
        self.groups = self._choose(groups)
        wanted = {address: self.groups[name] for name, addresses in groups.items() for address in addresses}
        changed = {one for one in {*wanted, *self._of} if wanted.get(one) != self._of.get(one)}
        fresh = {*self.groups.values()} - {*self._of.values()}
        for index in fresh:
            self._leases.put_index(index, _UNTIL.pack(0))
        for address in changed:
            key = layout.pack_address(address)
            if address in wanted:
                self._leased.put(key, _INDEX.pack(wanted[address]))
            else:
                self._leased.delete(key)
        self._of = wanted
        return changed

    def _choose(self, groups: Mapping[str, Collection[Address]]) -> dict[str, int]:
        """An index for each group: the one that its addresses have had, or a free one."""
        chosen: dict[str, int] = {}
        for name, addresses in groups.items():
            had = {self._of[address] for address in addresses if address in self._of} - {*chosen.values()}
            if had:
                chosen[name] = min(had)
        free = iter(sorted({*range(1, layout.LEASES_MAX)} - {*chosen.values()}))
        for name in groups.keys() - chosen.keys():
            index = next(free, None)
            if index is None:
                raise DataPlaneError(f"no room: the data plane has leases for {layout.LEASES_MAX - 1} VIP groups")
            chosen[name] = index
        return chosen

    def status(self) -> tuple[LeaseStatus, ...]:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        found = []
        for name, index in sorted(self.groups.items()):
            (until,) = _UNTIL.unpack(self._leases.get_index(index))
            found.append(LeaseStatus(name, (until - now) / 1e9 if until else None))
        return tuple(found)
