"""Map `pools` of bpf/lb.h: the local addresses that full NAT takes sources from, each list once however many use it."""

from __future__ import annotations

from collections.abc import Callable

from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.allocate import RangePool
from lbnode.dataplane.xdp.maps import Map
from lbnode.errors import DataPlaneError
from lbnode.model import Address


class Pools:
    """`clock`: monotonic seconds. An element is used anew only `grace_s` after the last server let go of it: packets on
    their way may still read it."""

    def __init__(self, pools: Map, clock: Callable[[], float], grace_s: float) -> None:
        self._map = pools
        self._clock = clock
        self._grace_s = grace_s
        self._indexes = RangePool(pools.info.max_entries - 1, first=1)
        self._users: dict[int, int] = {}
        self._at: dict[tuple[Address, ...], int] = {}
        self._addresses: dict[int, tuple[Address, ...]] = {}

    def adopt(self, index: int) -> tuple[Address, ...]:
        """What is there already: one more server with this element. Only before the first `take`."""
        if not index:
            return ()
        if index not in self._addresses:
            self._indexes.reserve(index, 1)
            self._add(index, layout.unpack_pool(self._map.get_index(index)))
        self._users[index] = self._users.get(index, 0) + 1
        return self._addresses[index]

    def take(self, addresses: tuple[Address, ...]) -> int:
        """Index of the element with these addresses, for one more server; 0 for none."""
        if not addresses:
            return 0
        index = self._at.get(addresses)
        if index is None:
            index = self._indexes.take(1, self._clock())
            if index is None:
                raise DataPlaneError(f"no room: the data plane holds at most {self._map.info.max_entries - 1} pools")
            self._map.put_index(index, layout.pack_pool(addresses))
            self._add(index, addresses)
        self._users[index] = self._users.get(index, 0) + 1
        return index

    def give(self, index: int) -> None:
        """A server does not use it any more."""
        if not index:
            return
        self._users[index] -= 1
        if not self._users[index]:
            del self._users[index]
            del self._at[self._addresses.pop(index)]
            self._indexes.retire(index, 1, self._clock() + self._grace_s)

    def _add(self, index: int, addresses: tuple[Address, ...]) -> None:
        self._addresses[index] = addresses
        self._at[addresses] = index
