"""Services and real servers in the maps, with a mirror of them in memory that `load` rebuilds from the maps.

Order of writes: whatever a packet may follow is complete before something points to it, and is freed only after
nothing points to it any more. A packet sees the service as it was before an operation or as it is after it; a process
killed between two writes leaves at most elements that nothing points to, which `load` frees.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from lbnode.dataplane.xdp import layout, slots
from lbnode.dataplane.xdp.allocate import IndexPool, RangePool
from lbnode.dataplane.xdp.leases import Leases
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.errors import DataPlaneError
from lbnode.model import Address, Programmed, ProgrammedServer, ProgrammedService, ServerId, ServiceId, Timeouts

_GRACE_S = 0.1  # packets that began with the old value of a service are long through when its slots are used again
_CHUNK = 1024  # elements read between two turns of the event loop


@dataclass(slots=True)
class Server:
    index: int
    generation: int
    programmed: ProgrammedServer


@dataclass(slots=True)
class Service:
    entry: layout.Service
    programmed: ProgrammedService  # without its servers: they are below
    servers: dict[ServerId, Server] = field(default_factory=dict)  # oldest first; the list in the map: newest first


class Tables:
    """`clock`: monotonic seconds. `neighbours` finds the next hops of the servers' addresses."""

    def __init__(self, maps: Mapping[str, Map], clock: Callable[[], float], neighbours: Neighbours) -> None:
        self._maps = maps
        self._clock = clock
        self._neighbours = neighbours
        self.services: dict[ServiceId, Service] = {}
        self._behind: dict[Address, dict[int, tuple[Service, Server]]] = {}  # server address -> index -> server
        self._service_indexes = IndexPool(min(maps[name].info.max_entries for name in ("service_stats", "cursors")))
        self._server_indexes = IndexPool(
            min(maps[name].info.max_entries for name in ("servers", "server_stats", "gauges"))
        )
        self._ranges = RangePool(maps["slots"].info.max_entries)
        self._generation = 0
        self.leases = Leases(maps)

    def programmed(self, timeouts: Timeouts) -> Programmed:
        return Programmed(
            {
                service_id: replace(
                    service.programmed, servers={key: one.programmed for key, one in service.servers.items()}
                )
                for service_id, service in self.services.items()
            },
            timeouts,
        )

    # --- adoption --------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what the maps hold, free what nothing points to, and put right what a killed process left half done."""
        _, self._generation = struct.unpack("=II", self._maps["meta"].get_index(0))
        for key, value in self._maps["services"].items(_CHUNK):
            service_id, entry = layout.unpack_service_key(key), layout.Service.unpack(value)
            self._service_indexes.reserve(entry.index)
            self._ranges.reserve(entry.list_at, entry.list_len)
            self._ranges.reserve(entry.table_at, entry.table_len)
            service = Service(
                entry,
                ProgrammedService(
                    service_id, entry.scheduler.name.lower(), slots.flag_names(entry.scheduler, entry.flags)
                ),
            )
            self.services[service_id] = service
            for index in reversed(self._read_slots(entry.list_at, entry.list_len)):
                self._load_server(service, index)
            await asyncio.sleep(0)
        await self._free_orphans()
        self._load_vips()

    def _read_slots(self, start: int, length: int) -> tuple[int, ...]:
        array = self._maps["slots"]
        return tuple(struct.unpack("=I", array.get_index(start + n))[0] for n in range(length))

    def _load_server(self, service: Service, index: int) -> None:
        entry = layout.Server.unpack(self._maps["servers"].get_index(index))
        if entry is None:
            raise DataPlaneError(
                f"the pinned maps are damaged: service {service.programmed.id} names server index {index}, which is "
                "unused; stop lbnoded, remove its run directory's bpf mount and start it again"
            )
        self._server_indexes.reserve(index)
        self._generation = max(self._generation, entry.generation)
        programmed = ProgrammedServer(
            ServerId(entry.address, entry.port),
            entry.weight,
            entry.forward,
            entry.upper_threshold,
            entry.lower_threshold,
        )
        self._remember(service, Server(index, entry.generation, programmed))

    async def _free_orphans(self) -> None:
        used = {one.index for service in self.services.values() for one in service.servers.values()}
        for keys, values in self._maps["servers"].batches(_CHUNK):
            for (index,), at in zip(
                struct.iter_unpack("=I", keys), range(0, len(values), layout.SERVER_SIZE), strict=True
            ):
                if index not in used and layout.Server.unpack(values[at : at + layout.SERVER_SIZE]) is not None:
                    self._maps["servers"].put_index(index, layout.UNUSED_SERVER)
            await asyncio.sleep(0)

    def _load_vips(self) -> None:
        vips = self._maps["vips"]
        wanted: dict[bytes, int] = {}
        for service_id in self.services:
            if service_id.address is not None:
                key = layout.pack_address(service_id.address)
                wanted[key] = wanted.get(key, 0) + 1
        have = {key: layout.unpack_vip(value) for key, value in vips.items(_CHUNK)}
        for key in have.keys() - wanted.keys():
            vips.delete(key)
        for key, count in wanted.items():
            if have.get(key) != count:
                vips.put(key, layout.pack_vip(count))

    # --- operations ------------------------------------------------------------------------------------------

    def put_service(self, wanted: ProgrammedService) -> None:
        wanted = replace(wanted, servers={})
        service = self.services.get(wanted.id)
        if service is not None:
            if service.programmed != wanted:
                before, service.programmed = service.programmed, wanted
                try:
                    self._write_lists(service, service.servers.values())
                except DataPlaneError:
                    service.programmed = before
                    raise
            return
        index = self._service_indexes.take()
        if index is None:
            raise DataPlaneError(f"no room: the data plane holds at most {len(self._service_indexes)} services")
        self._zero("service_stats", index)
        scheduler = layout.SCHEDULERS[wanted.scheduler]
        flags = slots.flags(wanted.scheduler_flags)
        # The epoch goes on from what an earlier service with this index left in its cursor.
        cursor = struct.unpack("=Q", self._maps["cursors"].get_index(index))[0]
        entry = layout.Service(index, scheduler, (cursor >> 32) + 1 & 0xFFFFFFFF, 0, 0, flags)
        self._maps["services"].put(layout.pack_service_key(wanted.id), entry.pack())
        self.services[wanted.id] = Service(entry, wanted)
        self._count_vip(wanted.id, 1)

    def delete_service(self, service_id: ServiceId) -> None:
        service = self.services.pop(service_id, None)
        if service is None:
            return
        self._maps["services"].delete(layout.pack_service_key(service_id))
        self._count_vip(service_id, -1)
        for server in list(service.servers.values()):
            self._forget(service, server)
        self._retire(service.entry.list_at, service.entry.list_len)
        self._retire(service.entry.table_at, service.entry.table_len)
        self._service_indexes.give(service.entry.index)

    def put_server(self, service_id: ServiceId, wanted: ProgrammedServer) -> None:
        service = self.services.get(service_id)
        if service is None:
            raise DataPlaneError(f"server {wanted.id}: there is no service {service_id}; put the service first")
        server = service.servers.get(wanted.id)
        if server is None:
            self._add_server(service, wanted)
            return
        if server.programmed == wanted:
            return
        before, server.programmed = server.programmed, wanted
        try:
            self._write_server(service, server)
            if before.weight != wanted.weight:
                self._write_lists(service, service.servers.values())
        except DataPlaneError:
            server.programmed = before
            raise

    def _add_server(self, service: Service, wanted: ProgrammedServer) -> None:
        if len(service.servers) >= layout.MAX_SERVERS_PER_SERVICE:
            raise DataPlaneError(f"no room: a service has at most {layout.MAX_SERVERS_PER_SERVICE} servers")
        index = self._server_indexes.take()
        if index is None:
            raise DataPlaneError(f"no room: the data plane holds at most {len(self._server_indexes)} real servers")
        self._zero("server_stats", index)
        self._maps["gauges"].put_index(index, bytes(layout.GAUGE_SIZE))
        # Kept in the maps: a generation that an index had before must never come again, connections may still name it.
        self._generation = self._generation % 0xFFFFFFFF + 1
        self._maps["meta"].put_index(0, struct.pack("=II", layout.LAYOUT_VERSION, self._generation))
        server = Server(index, self._generation, wanted)
        self._write_server(service, server)
        try:
            self._write_lists(service, [*service.servers.values(), server])
        except DataPlaneError:
            self._maps["servers"].put_index(index, layout.UNUSED_SERVER)
            self._server_indexes.give(index)
            raise
        self._remember(service, server)

    def delete_server(self, service_id: ServiceId, server_id: ServerId) -> None:
        service = self.services.get(service_id)
        server = service.servers.get(server_id) if service else None
        if service is None or server is None:
            return
        self._write_lists(service, [one for one in service.servers.values() if one is not server])
        self._forget(service, server)

    def hop_changed(self, address: Address) -> None:
        """The next hop of an address is another one."""
        for service, server in self._behind.get(address, {}).values():
            self._write_server(service, server)

    def set_leases(self, groups: Mapping[str, Collection[Address]]) -> Mapping[str, int]:
        """Serve the addresses of these VIP groups under a lease each; returns the groups' indexes in map `leases`."""
        changed = self.leases.set_groups(groups)
        for service in self.services.values():
            if service.programmed.id.address in changed:
                for server in service.servers.values():
                    self._write_server(service, server)
        return self.leases.groups

    # --- maps ------------------------------------------------------------------------------------------------

    def _remember(self, service: Service, server: Server) -> None:
        address = server.programmed.id.address
        service.servers[server.programmed.id] = server
        self._behind.setdefault(address, {})[server.index] = (service, server)
        self._neighbours.watch(address)

    def _forget(self, service: Service, server: Server) -> None:
        self._maps["servers"].put_index(server.index, layout.UNUSED_SERVER)
        address = server.programmed.id.address
        del service.servers[server.programmed.id]
        del self._behind[address][server.index]
        if not self._behind[address]:
            del self._behind[address]
        self._neighbours.unwatch(address)
        self._server_indexes.give(server.index)

    def _write_server(self, service: Service, server: Server) -> None:
        one = server.programmed
        hop = self._neighbours.get(one.id.address)
        entry = layout.Server(
            one.id.address,
            one.id.port,
            one.forward,
            server.generation,
            service.entry.index,
            one.weight,
            one.upper_threshold,
            one.lower_threshold,
            hop.hop if hop else None,
            hop.source if hop else None,
            self.leases.of(service.programmed.id.address),
        )
        self._maps["servers"].put_index(server.index, entry.pack())

    def _write_lists(self, service: Service, servers: Iterable[Server]) -> None:
        """Build the service's list and table for these servers and flip the service to them."""
        old = service.entry
        members = [(one.index, one.programmed) for one in servers][::-1]  # newest first, as IPVS lists them
        indexes = [index for index, _ in members]
        weights = [one.weight for _, one in members]
        before = [one.index for one in service.servers.values()][::-1]
        scheduler = layout.SCHEDULERS[service.programmed.scheduler]
        max_weight, gcd = slots.wrr_parameters(weights) if scheduler is layout.Scheduler.WRR else (0, 0)
        new = replace(
            old,
            scheduler=scheduler,
            flags=slots.flags(service.programmed.scheduler_flags),
            max_weight=max_weight,
            weight_gcd=gcd,
        )
        if indexes != before or scheduler is not old.scheduler:
            new = replace(
                new,
                epoch=old.epoch + 1 & 0xFFFFFFFF,
                list_at=self._write_range(indexes),
                list_len=len(indexes),
                start=slots.carry_position(before, indexes, self._cursor(old)[0]),
            )
        elif (max_weight, gcd) != (old.max_weight, old.weight_gcd) or scheduler is layout.Scheduler.WRR:
            new = replace(new, epoch=old.epoch + 1 & 0xFFFFFFFF)
        if scheduler is layout.Scheduler.WRR:
            new = replace(new, start=slots.wrr_start(self._cursor(old)[1], max_weight, gcd))
        table = slots.table(scheduler, members)
        try:
            new = replace(new, table_at=self._write_range(table), table_len=len(table))
        except DataPlaneError:
            if new.list_at != old.list_at:
                self._retire(new.list_at, new.list_len)
            raise
        if new != old:
            self._maps["services"].put(layout.pack_service_key(service.programmed.id), new.pack())
        service.entry = new
        if (new.list_at, new.list_len) != (old.list_at, old.list_len):
            self._retire(old.list_at, old.list_len)
        self._retire(old.table_at, old.table_len)

    def _cursor(self, entry: layout.Service) -> tuple[int, int]:
        """(position in the list chosen last, the list's length if none was; wrr: current weight, 0 if none was)"""
        word = struct.unpack("=Q", self._maps["cursors"].get_index(entry.index))[0]
        if word >> 32 == entry.epoch:
            return int(word & 0xFFFF), int(word >> 16 & 0xFFFF)
        return (0xFFFF, entry.start) if entry.scheduler is layout.Scheduler.WRR else (entry.start, 0)

    def _write_range(self, content: list[int]) -> int:
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
        self._ranges.retire(start, length, self._clock() + _GRACE_S)

    def _zero(self, name: str, index: int) -> None:
        self._maps[name].put_index(index, bytes(self._maps[name].value_size))

    def zero(self, service: Service) -> None:
        """Zero the counters of a service and its servers, not the gauges."""
        self._zero("service_stats", service.entry.index)
        for server in service.servers.values():
            self._zero("server_stats", server.index)

    def _count_vip(self, service_id: ServiceId, step: int) -> None:
        if service_id.address is None:
            return
        vips, key = self._maps["vips"], layout.pack_address(service_id.address)
        value = vips.get(key)
        count = (layout.unpack_vip(value) if value else 0) + step
        if count > 0:
            vips.put(key, layout.pack_vip(count))
        else:
            vips.delete(key)
