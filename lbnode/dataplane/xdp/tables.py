"""Services and real servers in the maps, with a mirror of them in memory that `load` rebuilds from the maps.

Order of writes: whatever a packet may follow is complete before something points to it, and is freed only after
nothing points to it any more. A packet sees the service as it was before an operation or as it is after it; a process
killed between two writes leaves at most elements that nothing points to, which `load` frees.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from operator import attrgetter

from lbnode.dataplane.base import SynProxyStatus
from lbnode.dataplane.xdp import counts, layout
from lbnode.dataplane.xdp.allocate import IndexPool
from lbnode.dataplane.xdp.leases import Leases
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.mirror import Server, Service, configured, has_lists, server_of, service_of
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.own_timeouts import ServiceTimeouts
from lbnode.dataplane.xdp.pools import Pools
from lbnode.dataplane.xdp.prefixes import Prefixes
from lbnode.dataplane.xdp.scheduling import GRACE_S, Scheduling
from lbnode.dataplane.xdp.trash import Trash
from lbnode.dataplane.xdp.vips import Vips
from lbnode.errors import DataPlaneError
from lbnode.model import (
    Access,
    Address,
    ForwardingMethod,
    OwnTimeouts,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    Timeouts,
)

_FLOOD_OVER_MS = 5000  # without a cookie
_CHUNK = 1024  # elements read between two turns of the event loop
_NO_SERVICE = 0xFFFFFFFF


class Tables:
    """`clock`: monotonic seconds. `neighbours` finds the next hops of the servers' addresses."""

    def __init__(self, maps: Mapping[str, Map], clock: Callable[[], float], neighbours: Neighbours) -> None:
        self._maps = maps
        self._neighbours = neighbours
        self.services: dict[ServiceId, Service] = {}
        self._behind: dict[Address, dict[int, tuple[Service, Server]]] = {}  # server address -> index -> server
        self._service_indexes = IndexPool(
            min(maps[name].info.max_entries for name in ("service_stats", "admissions", "cursors", "timeouts"))
        )
        self._server_indexes = IndexPool(
            min(maps[name].info.max_entries for name in ("servers", "server_stats", "gauges"))
        )
        self._scheduling = Scheduling(maps, clock, neighbours, self._write_server)
        self._pools = Pools(maps["pools"], clock, GRACE_S)
        self._generation = 0
        self.leases = Leases(maps)
        self._vips = Vips(maps["vips"])
        self._prefixes = Prefixes(maps)
        self.own_timeouts = ServiceTimeouts(maps["timeouts"])
        self._trash = Trash(maps, self._server_indexes)

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

    def syn_proxies(self) -> list[SynProxyStatus]:
        (now_ms,) = struct.unpack_from("=I", self._maps["clock"].get_index(0))
        found = []
        for service_id, service in self.services.items():
            threshold = service.programmed.syn_proxy
            if threshold is None:
                continue
            counted = counts.HalfOpen.unpack(self._maps["half_open"].get_index(service.entry.index))
            flooded = counted.cookie_ms != 0 and (now_ms - counted.cookie_ms) & 0xFFFFFFFF < _FLOOD_OVER_MS
            found.append(SynProxyStatus(str(service_id), counted.entries, threshold, flooded))
        return found

    # --- adoption --------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what the maps hold, free what nothing points to, and put right what a killed process left half done."""
        _, self._generation = struct.unpack("=II", self._maps["meta"].get_index(0))
        for key, value in self._maps["services"].items(_CHUNK):
            service_id, entry = layout.unpack_service_key(key), layout.Service.unpack(value)
            self._service_indexes.reserve(entry.index)
            service = Service(entry, service_of(service_id, entry))
            self.services[service_id] = service
            service.listed = self._scheduling.load(entry)
            for server in sorted(
                (self._load_server(service, index) for index in service.listed), key=attrgetter("rank")
            ):
                self._remember(service, server)
            await asyncio.sleep(0)
        await self._free_orphans()
        self._load_prefixes()
        self._load_timeouts()
        self._vips.load(self.services, _CHUNK)

    def _load_prefixes(self) -> None:
        by_index = {service.entry.index: service for service in self.services.values()}
        found = self._prefixes.load({index: one.programmed.id.family for index, one in by_index.items()})
        for index, lists in found.items():
            service = by_index[index]
            access = replace(lists, rate=service.programmed.access.rate)
            service.programmed = replace(service.programmed, access=access)

    def _load_timeouts(self) -> None:
        by_index = {service.entry.index: service for service in self.services.values()}
        for index, own in self.own_timeouts.load(by_index).items():
            by_index[index].programmed = replace(by_index[index].programmed, timeouts=own)

    def _load_server(self, service: Service, index: int) -> Server:
        entry = layout.Server.unpack(self._maps["servers"].get_index(index))
        if entry is None:
            raise DataPlaneError(
                f"the pinned maps are damaged: service {service.programmed.id} names server index {index}, which is "
                "unused; stop lbnoded, remove its run directory's bpf mount and start it again"
            )
        return self._taken_over(index, entry)

    def _taken_over(self, index: int, entry: layout.Server) -> Server:
        self._server_indexes.reserve(index)
        self._generation = max(self._generation, entry.generation, entry.rank)
        return server_of(index, entry, self._pools.adopt(entry.pool))

    async def _free_orphans(self) -> None:
        used = {one.index for service in self.services.values() for one in service.servers.values()}
        names = {service.entry.index: key for key, service in self.services.items()}
        for keys, values in self._maps["servers"].batches(_CHUNK):
            for (index,), at in zip(
                struct.iter_unpack("=I", keys), range(0, len(values), layout.SERVER_SIZE), strict=True
            ):
                entry = layout.Server.unpack(values[at : at + layout.SERVER_SIZE])
                if entry is None or index in used:
                    continue
                if entry.flags & layout.ServerFlag.GONE and entry.service in names:
                    self._trash.keep(names[entry.service], self._taken_over(index, entry))
                else:
                    self._maps["servers"].put_index(index, layout.UNUSED_SERVER)
            await asyncio.sleep(0)

    # --- operations ------------------------------------------------------------------------------------------

    def put_service(self, wanted: ProgrammedService) -> None:
        wanted = replace(wanted, servers={})
        service = self.services.get(wanted.id)
        if service is None:
            self._add_service(wanted)
        elif service.programmed != wanted:
            if has_lists(wanted):
                self._prefixes.put(service.entry.index, wanted.access, wanted.id.family)
            before, service.programmed = service.programmed, wanted
            try:
                self._scheduling.write(service, service.servers.values())
            except DataPlaneError:
                service.programmed = before
                raise
            if not has_lists(wanted):  # only now: while they counted, a part of them would have denied too much
                self._prefixes.put(service.entry.index, wanted.access, wanted.id.family)
            self.own_timeouts.put(service.entry.index, wanted.timeouts)
            keeps_ports = wanted.id.port == 0 and bool(before.persistent_s) != bool(wanted.persistent_s)
            if keeps_ports or before.mss != wanted.mss:
                for server in service.servers.values():
                    self._write_server(service, server)

    def _add_service(self, wanted: ProgrammedService) -> None:
        index = self._service_indexes.take()
        if index is None:
            raise DataPlaneError(f"no room: the data plane holds at most {len(self._service_indexes)} services")
        self._zero("service_stats", index)
        self._zero("admissions", index)
        self._maps["half_open"].put_index(index, bytes(layout.HALF_OPEN_SIZE))
        epoch = self._scheduling.epoch_of_new(index)
        entry = configured(layout.Service(index, layout.Scheduler.RR, epoch, 0, 0), wanted)
        try:
            self._prefixes.put(index, wanted.access, wanted.id.family)
        except DataPlaneError:
            self._prefixes.put(index, Access(), wanted.id.family)
            self._service_indexes.give(index)
            raise
        self.own_timeouts.put(index, wanted.timeouts)
        self._maps["services"].put(layout.pack_service_key(wanted.id), entry.pack())
        self.services[wanted.id] = Service(entry, wanted)
        self._vips.count(wanted.id, 1)

    def delete_service(self, service_id: ServiceId) -> None:
        service = self.services.pop(service_id, None)
        if service is None:
            return
        self._maps["services"].delete(layout.pack_service_key(service_id))
        self._vips.count(service_id, -1)
        for server in list(service.servers.values()):
            server.group = 0
            self._forget(service, server)
        self._scheduling.drop(service.entry)
        self._prefixes.put(service.entry.index, Access(), service_id.family)
        self.own_timeouts.put(service.entry.index, OwnTimeouts())
        if service.entry.flags & layout.ServiceFlag.RATE:
            self._prefixes.forget_sources(service.entry.index)
        self._service_indexes.give(service.entry.index)

    def put_server(self, service_id: ServiceId, wanted: ProgrammedServer) -> None:
        service = self.services.get(service_id)
        if service is None:
            reason = f"server {wanted.id}: there is no service {service_id}; put the service first"
            raise DataPlaneError(reason, errno.ESRCH)
        server = service.servers.get(wanted.id)
        if server is None:
            self._add_server(service, wanted)
            return
        if server.programmed == wanted:
            return
        before, last_weight = server.programmed, server.last_weight
        server.programmed, server.last_weight = wanted, wanted.weight or last_weight
        try:
            self._write_server(service, server)
            if before.weight != wanted.weight or service.entry.group:
                self._scheduling.write(service, service.servers.values())
        except DataPlaneError:
            server.programmed, server.last_weight = before, last_weight
            raise

    def _add_server(self, service: Service, wanted: ProgrammedServer) -> None:
        if len(service.servers) >= layout.MAX_SERVERS_PER_SERVICE:
            raise DataPlaneError(f"no room: a service has at most {layout.MAX_SERVERS_PER_SERVICE} servers")
        known = self._trash.take(service.programmed.id, wanted.id)
        self._trash.empty()
        index = known.index if known else self._trash.index()
        if index is None:
            raise DataPlaneError(f"no room: the data plane holds at most {len(self._server_indexes)} real servers")
        # Kept in the maps: a generation that an index had before must never come again, connections may still name it.
        self._generation = self._generation % 0xFFFFFFFF + 1
        self._maps["meta"].put_index(0, layout.pack_meta(self._generation))
        if known is None:
            self._zero("server_stats", index)
            self._maps["gauges"].put_index(index, bytes(layout.GAUGE_SIZE))
        generation = known.generation if known else self._generation
        server = Server(index, generation, self._generation, wanted, wanted.weight)
        self._write_server(service, server)
        try:
            self._scheduling.write(service, [*service.servers.values(), server])
        except DataPlaneError:
            self._free(server)
            raise
        self._remember(service, server)

    def delete_server(self, service_id: ServiceId, server_id: ServerId) -> None:
        service = self.services.get(service_id)
        server = service.servers.get(server_id) if service else None
        if service is None or server is None:
            return
        if server.group:
            self._scheduling.groups.remove(server.group, server.index)
        try:
            self._scheduling.write(service, [one for one in service.servers.values() if one is not server])
        except DataPlaneError:
            if server.group:
                self._scheduling.groups.put_back(server.group, server.index)
            raise
        server.group = 0
        self._forget(service, server)
        self._trash.empty()

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
        """Nothing points to the server any more, but perhaps connections: then its index waits for their end."""
        if self._trash.tracked(server):
            self._trash.keep(service.programmed.id, server)
            self._write_server(service, server, gone=True)
        else:
            self._free(server)
        address = server.programmed.id.address
        del service.servers[server.programmed.id]
        del self._behind[address][server.index]
        if not self._behind[address]:
            del self._behind[address]
        self._neighbours.unwatch(address)

    def _free(self, server: Server) -> None:
        self._trash.free(server)
        self._pools.give(server.pool)

    def _write_server(self, service: Service, server: Server, *, gone: bool = False) -> None:
        one = server.programmed
        hop, source = self._neighbours.get(one.id.address), self._neighbours.source(one.id.address)
        flags = layout.ServerFlag.GONE if gone else layout.ServerFlag(0)
        same_port = service.keep_port(one) or one.id.port == service.programmed.id.port
        if service.keep_port(one):
            flags |= layout.ServerFlag.KEEP_PORT
        # What this node itself answers does not pass the programs, so nothing may have been translated.
        translated = one.forward in (ForwardingMethod.MASQUERADE, ForwardingMethod.FULLNAT)
        if source == one.id.address and (same_port or not translated):
            flags |= layout.ServerFlag.LOCAL
        if one.toa:
            flags |= layout.ServerFlag.TOA
        if service.programmed.mss:
            flags |= layout.ServerFlag.CLAMP
        pool = 0 if gone else self._pools.take(one.local_addresses)
        entry = layout.Server(
            one.id.address,
            one.id.port,
            one.forward,
            server.generation,
            service.entry.index if service.programmed.id in self.services else _NO_SERVICE,
            one.weight,
            one.upper_threshold,
            one.lower_threshold,
            hop,
            source,
            one.tunnel,
            self.leases.of(service.programmed.id.address),
            flags,
            server.rank,
            server.last_weight,
            server.group,
            service.programmed.id.fwmark,
            pool,
            service.programmed.mss or 0,
        )
        self._maps["servers"].put_index(server.index, entry.pack())
        self._pools.give(server.pool)
        server.pool = pool

    def _zero(self, name: str, index: int) -> None:
        self._maps[name].put_index(index, bytes(self._maps[name].value_size))

    def zero(self, service: Service) -> None:
        """Zero the counters of a service and its servers, not the gauges."""
        self._zero("service_stats", service.entry.index)
        self._zero("admissions", service.entry.index)
        for server in service.servers.values():
            self._zero("server_stats", server.index)
