"""What a service's scheduler chooses from: its list of servers, its table and its groups by load.

They are complete before the service's entry points to them, and given back after it no longer does (tables.py).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lbnode.dataplane.xdp import layout, slots
from lbnode.dataplane.xdp.allocate import RangePool
from lbnode.dataplane.xdp.groups import Groups
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.mirror import Server, Service, configured, members
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.errors import DataPlaneError

GRACE_S = 0.1  # packets that began with the old value of a service are long through when its slots are used again
_CHUNK = 1024  # elements of map `affinity` read at once
_CACHED = (layout.Scheduler.LBLC, layout.Scheduler.LBLCR)  # with entries in map `affinity`


class Scheduling:
    """`clock`: monotonic seconds. `write_server` writes a server's entry, after its group became another one."""

    def __init__(
        self,
        maps: Mapping[str, Map],
        clock: Callable[[], float],
        neighbours: Neighbours,
        write_server: Callable[[Service, Server], None],
    ) -> None:
        self._maps = maps
        self._clock = clock
        self._neighbours = neighbours
        self._write_server = write_server
        self._ranges = RangePool(maps["slots"].info.max_entries)
        self.groups = Groups(maps["groups"], clock, GRACE_S)

    def load(self, entry: layout.Service) -> tuple[int, ...]:
        """Take over what an entry of the maps points to. Returns its list: indexes of servers, newest first."""
        self._ranges.reserve(entry.list_at, entry.list_len)
        self._ranges.reserve(entry.table_at, entry.table_len)
        self.groups.load(entry.group)
        array = self._maps["slots"]
        return tuple(struct.unpack("=I", array.get_index(entry.list_at + n))[0] for n in range(entry.list_len))

    def epoch_of_new(self, index: int) -> int:
        """It goes on from what an earlier service with this index left in its cursor."""
        return int(struct.unpack("=Q", self._maps["cursors"].get_index(index))[0] >> 48) + 1

    def write(self, service: Service, servers: Iterable[Server]) -> None:
        """Build the service's list, table and groups for these servers and flip the service to them."""
        old = service.entry
        newest_first = list(servers)[::-1]  # as IPVS lists them
        new, found = configured(old, service.programmed), members(newest_first)
        addresses = [one.programmed.id.address for one in newest_first]
        if any(self._neighbours.source(address) == address for address in addresses):
            # What this node itself answers does not pass the programs: it answers by the kernel's own cookies.
            new = replace(new, flags=new.flags & ~layout.ServiceFlag.SYN_PROXY)
        listed, key = slots.order(new.scheduler, found), slots.table_key(new.scheduler, found)
        wrr, by_load = new.scheduler is layout.Scheduler.WRR, new.scheduler in slots.BY_LOAD
        same_list = listed == list(service.listed) and new.scheduler is old.scheduler
        if not same_list or wrr or by_load:
            new = replace(new, epoch=old.epoch % 0xFFFFFFFF + 1)
        if wrr:
            max_weight, gcd = slots.wrr_parameters([one.weight for one in found])
            current = self._cursor(old)[1] if old.scheduler is new.scheduler else 0
            new = replace(new, max_weight=max_weight, weight_gcd=gcd, start=slots.wrr_start(current, max_weight, gcd))
        elif not same_list:
            position = self._cursor(old)[0] if old.scheduler is new.scheduler else len(service.listed)
            new = replace(new, start=slots.carry_position(service.listed, listed, position))
        new = self._write_ranges(service, new, listed, key, found)
        new = replace(new, group=self._join(service, newest_first) if by_load else 0)
        if new != old:
            self._maps["services"].put(layout.pack_service_key(service.programmed.id), new.pack())
        service.entry, service.listed, service.table_key = new, listed, key
        self._leave_behind(service, old, newest_first)

    def _write_ranges(
        self,
        service: Service,
        new: layout.Service,
        listed: Sequence[int],
        key: Sequence[object],
        found: Sequence[slots.Member],
    ) -> layout.Service:
        """The service with its list and table where they are now: written anew if they are not the same any more."""
        if listed != list(service.listed):
            new = replace(new, list_at=self._write_range(listed), list_len=len(listed))
        if key != service.table_key:
            table = slots.table(new.scheduler, found)
            try:
                new = replace(new, table_at=self._write_range(table), table_len=len(table))
            except DataPlaneError:
                if new.list_at != service.entry.list_at:
                    self._retire(new.list_at, new.list_len)
                raise
        return new

    def _join(self, service: Service, servers: Iterable[Server]) -> int:
        """Put the servers that are in no group into one. Returns the service's first group."""
        first = service.entry.group
        for server in servers:
            if not server.group:
                first, server.group = self.groups.add(first, server.index)
                self._write_server(service, server)
        return first

    def _leave_behind(self, service: Service, old: layout.Service, servers: Iterable[Server]) -> None:
        """Give back what the service used before and uses no more."""
        new = service.entry
        if (new.list_at, new.list_len) != (old.list_at, old.list_len):
            self._retire(old.list_at, old.list_len)
        if (new.table_at, new.table_len) != (old.table_at, old.table_len):
            self._retire(old.table_at, old.table_len)
        if old.scheduler in _CACHED and new.scheduler is not old.scheduler:
            self._forget_targets(old)
        if old.group and not new.group:
            for server in servers:
                server.group = 0
                self._write_server(service, server)
            self.groups.drop(old.group)

    def drop(self, entry: layout.Service) -> None:
        """Nothing points to the service any more: give back what it used."""
        self.groups.drop(entry.group)
        self._forget_targets(entry)
        self._retire(entry.list_at, entry.list_len)
        self._retire(entry.table_at, entry.table_len)

    def _forget_targets(self, entry: layout.Service) -> None:
        """Entries of lblc and lblcr: another service may get this one's index."""
        if entry.scheduler in _CACHED:
            targets = self._maps["affinity"]
            for key in [key for key, _ in targets.items(_CHUNK) if layout.unpack_affinity_key(key) == entry.index]:
                targets.delete(key)

    def _cursor(self, entry: layout.Service) -> tuple[int, int]:
        """(position in the list chosen last, the list's length if none was; wrr: current weight, 0 if none was)"""
        word = struct.unpack("=Q", self._maps["cursors"].get_index(entry.index))[0]
        if word >> 48 == entry.epoch & 0xFFFF:
            return int(word & 0xFFFF), int(word >> 16 & 0xFFFFFFFF)
        return (0xFFFF, entry.start) if entry.scheduler is layout.Scheduler.WRR else (entry.start, 0)

    def _write_range(self, content: Sequence[int]) -> int:
        """Write slots nobody refers to yet; returns where they begin."""
        if not content:
            return 0
        start = self._ranges.take(len(content), self._clock())
        if start is None:
            raise DataPlaneError(
                f"no room for {len(content)} scheduler slots: the data plane has {self._maps['slots'].info.max_entries}"
            )
        self._maps["slots"].put_range(start, struct.pack(f"={len(content)}I", *content))
        return start

    def _retire(self, start: int, length: int) -> None:
        self._ranges.retire(start, length, self._clock() + GRACE_S)
