"""An older set of maps whose programs serve until the new ones know its connections."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from lbnode.dataplane.xdp.exchange import Exchange, Merged
from lbnode.dataplane.xdp.layout import ConfigFlag
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.succession import pins
from lbnode.dataplane.xdp.succession.carry import Layouts
from lbnode.dataplane.xdp.succession.fields import offset_of
from lbnode.dataplane.xdp.succession.pins import PinnedSet

# map -> program of the successor (lb.h)
_SUCCESSORS = {"successor_xdp": "xdp_lb", "successor_xdp_frags": "xdp_lb_frags", "successor_tc": "tc_lb"}


class Predecessor:
    """`records`: the new set's map of this name. `progressed`: is called with each of the many steps of copying."""

    def __init__(self, old: PinnedSet, layouts: Layouts, records: Map, progressed: Callable[[], None]) -> None:
        self._set = old
        self._progressed = progressed
        self._layouts = layouts
        self._exchange = Exchange(old.maps["records"], {pins.TAKE_ALL: old.take_all})
        self._conversion = layouts.conversion(old.maps["records"], records)

    async def copy_connections(self, into: Exchange) -> Merged:
        """All there are now. One that the new set knows already stays there as it is if it was used there since."""
        total = Merged()
        async for records in self._exchange.walk(sync_only=False):
            total += await into.merge(self._conversion.convert(records), carried=True)
            self._progressed()
        return total

    def hand_over(self, programs: Mapping[str, int]) -> None:
        """From now on its programs give every packet without an entry to these."""
        for name, program in _SUCCESSORS.items():
            if program in programs:
                self._set.maps[name].put_index(0, struct.pack("=I", programs[program]))
        config = self._set.maps["config"]
        value = bytearray(config.get_index(0))
        at = offset_of(self._layouts.of(config)[1].fields, "flags")
        struct.pack_into("=I", value, at, struct.unpack_from("=I", value, at)[0] | ConfigFlag.SUCCESSOR)
        config.put_index(0, bytes(value))

    def close(self, *, forget: bool) -> None:
        self._set.close()
        if forget:
            pins.remove(self._set.path)
