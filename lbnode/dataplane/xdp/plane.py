"""The XDP/tcx data plane: loads or adopts the BPF programs, and implements the contract on their pinned maps.

Pins lie in `<run_dir>/bpf` (a bpffs). They hold everything: a process that dies leaves a working data plane behind, and
the next one finds services, servers, connections and counters there, swaps its own programs into the links and goes on.
Maps of another layout or size are replaced while it runs, and the connections carried over (succession/loading.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lbnode.capture import Captured, CaptureRequest
from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.dataplane.base import (
    Capabilities,
    DeleteServer,
    DeleteService,
    InterfaceStatus,
    Op,
    PlaneStatus,
    PutServer,
    PutService,
    SetDropRules,
    SetTimeouts,
    one_by_one,
)
from lbnode.dataplane.xdp import counts, layout, links, listing, settings, supported
from lbnode.dataplane.xdp.attachments import Attachments
from lbnode.dataplane.xdp.capture.capturer import Capturer
from lbnode.dataplane.xdp.exchange import aged
from lbnode.dataplane.xdp.explain.explainer import Explainer
from lbnode.dataplane.xdp.interfaces import Attach, Interface, wanted
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import mount_bpffs, unmount_bpffs
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.records import RECORD_LAYOUT, RECORD_SIZE, by_group
from lbnode.dataplane.xdp.succession.loading import Loading
from lbnode.dataplane.xdp.tables import Tables
from lbnode.dataplane.xdp.vlans import Vlans
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.explanation import Explanation, Question
from lbnode.model import Address, Programmed, ProgrammedServer, ServiceCounters, ServiceId

OBJECT = Path(__file__).parent / "bpf" / "lb.bpf.o"
PROGRAMS = {
    "xdp": "xdp_lb",
    "xdp-frags": "xdp_lb_frags",
    "tcx": "tc_lb",
    "xdp+tcx": "tc_behind_xdp",
    "out": "tc_lease_out",
}
_LISTED = 512  # connections written between two turns of the event loop: about 2 ms
_CHUNK = 2048  # elements read between two turns of the event loop
_KEEP_UNKNOWN_S = 30.0  # records from a peer wait this long for their service to be programmed here


class XdpPlane:
    """Contract: lbnode.dataplane.base.DataPlane, for the network namespace that `open` is called in.

    run_dir: holds the bpffs; the same directory finds the same data plane again.
    interfaces: names; empty = every Ethernet interface that is up, also those that appear later.
    attach: "auto" decides per interface (interfaces.choose), "xdp" and "tcx" force the hook, "tc" clsact.
    connections: size of the connection table, rounded up to a power of two.
    """

    record_layout = RECORD_LAYOUT
    record_size = RECORD_SIZE

    def __init__(
        self,
        run_dir: Path,
        *,
        interfaces: Sequence[str] = (),
        attach: Attach = "auto",
        connections: int = 262144,
        object_path: Path | None = None,
    ) -> None:
        self._pins = run_dir / "bpf"
        self._names = tuple(interfaces)
        self._attach = attach
        self._connections = connections
        self._object_path = object_path or OBJECT
        self._loading: Loading | None = None
        self._neighbours: Neighbours | None = None
        self._attachments: Attachments | None = None
        self._explainer: Explainer | None = None
        self._capturer: Capturer | None = None
        self._cpu_packets = counts.CpuPackets()
        # Records whose service or server was not there: (kept until, as they were when, records)
        self._unknown: list[tuple[float, float, bytes]] = []
        self._unknown_due = False
        self._group_of: Mapping[Address, str] = {}  # as by_group had it last, and the same by packed address
        self._group_of_packed: Mapping[bytes, str] = {}

    # --- life ------------------------------------------------------------------------------------------------

    async def open(self, progressed: Callable[[], None] = lambda: None) -> None:
        if not self._object_path.exists():
            raise DataPlaneError(
                f"{self._object_path} is missing: the BPF object was not built. Install clang and libbpf-dev and run "
                "`python lbnode/build_hook.py` (or `make`)"
            )
        mount_bpffs(self._pins)
        loading = self._loading = Loading(self._pins, self._object_path, self._connections, progressed)
        try:
            await loading.open()
            self._maps, self._config, self._exchange = loading.maps, loading.config, loading.exchange
            await loading.take_over()
            await self._start(loading.object)
            await loading.finish()
        except BaseException:
            await self.close(unload=not loading.adopted)
            raise

    async def _start(self, loaded: LoadedObject) -> None:
        programs = {use: loaded.programs[name] for use, name in PROGRAMS.items() if name in loaded.programs}
        self._neighbours = Neighbours(self._hop_changed, self._links_changed, self._routes_changed)
        self._tables = Tables(self._maps, time.monotonic, self._neighbours)
        self._attachments = Attachments(self._pins, self._names, self._attach, programs)
        self._vlans = Vlans(self._maps)
        self._explainer = Explainer(self._object_path, self._maps, self._tables, self._neighbours, self._attachments)
        self._capturer = Capturer(
            self._object_path, self._maps, programs, self._tables, self._neighbours, self._attachments
        )
        self._moves = counts.Moves()
        self._attachments.adopt()
        await self._tables.load()
        self._follow_own_timeouts()
        await self._neighbours.start()

    async def close(self, *, unload: bool = False) -> None:
        if self._capturer is not None:
            await self._capturer.close()
            self._capturer = None
        if self._explainer is not None:
            await self._explainer.close()
            self._explainer = None
        if self._neighbours is not None:
            await self._neighbours.stop(release=unload)
            self._neighbours = None
        if self._attachments is not None:
            self._attachments.close()
            self._attachments = None
        if self._loading is not None:
            self._loading.close()
            self._loading = None
        if unload and self._pins.exists():
            for link in links.adopt(self._pins).values():
                link.detach()
            unmount_bpffs(self._pins)

    def _links_changed(self, found: Iterable[Interface]) -> None:
        assert self._attachments is not None
        interfaces = tuple(found)
        self._vlans.update(one for one in interfaces if wanted(one, self._names))
        self._attachments.update(interfaces)

    def _hop_changed(self, address: Address, hop: layout.Hop | None) -> None:
        del hop  # the tables ask for it
        self._tables.hop_changed(address)

    def _routes_changed(self) -> None:
        """What programs remember of the kernel's look-ups is void."""
        generation = layout.unpack_routes(self._maps["routes"].get_index(0))
        self._maps["routes"].put_index(0, layout.pack_routes(generation + 1))

    def next_hop(self, address: Address) -> layout.Hop | None:
        """Where packets to a real server's address go; None = not resolved now."""
        return self._opened()[0].get(address)

    def is_own(self, address: Address) -> bool:
        """Whether a real server's address is one of this node's: then its packets go up the network stack."""
        return self._opened()[0].source(address) == address

    def _opened(self) -> tuple[Neighbours, Attachments]:
        if self._neighbours is None or self._attachments is None:
            raise DataPlaneError("the data plane is not open")
        self._neighbours.check()
        return self._neighbours, self._attachments

    # --- content ---------------------------------------------------------------------------------------------

    def owns(self, service_id: ServiceId) -> bool:  # noqa: ARG002
        return True

    def capabilities(self) -> Capabilities:
        return supported.CAPABILITIES

    async def dump(self) -> Programmed:
        self._opened()
        return self._tables.programmed(self._config.timeouts)

    async def apply(self, op: Op) -> None:
        _, attachments = self._opened()
        supported.check(op)
        match op:
            case PutService(service):
                supported.check_hooks(service.id, attachments.at_xdp())
                supported.check_entries(service, self._servers_of(service.id))
                self._tables.put_service(service)
                self._follow_own_timeouts()
            case DeleteService(service_id):
                self._tables.delete_service(service_id)
                self._follow_own_timeouts()
            case PutServer(service_id, server):
                if service_id in self._tables.services:
                    supported.check_entries(self._tables.services[service_id].programmed, [server])
                self._tables.put_server(service_id, server)
                self._unknown_due = bool(self._unknown)
            case DeleteServer(service_id, server_id):
                self._tables.delete_server(service_id, server_id)
            case SetTimeouts(timeouts):
                self._write_config(replace(self._config, timeouts=timeouts))
            case SetDropRules(rules):
                self._write_config(replace(self._config, drop=rules))

    def _servers_of(self, service_id: ServiceId) -> list[ProgrammedServer]:
        service = self._tables.services.get(service_id)
        return [one.programmed for one in service.servers.values()] if service is not None else []

    async def apply_many(self, ops: Sequence[Op]) -> Sequence[DataPlaneError | None]:
        return await one_by_one(self.apply, ops)

    def _write_config(self, config: settings.Config) -> None:
        self._maps["config"].put_index(0, config.pack())
        self._config = config

    def _follow_own_timeouts(self) -> None:
        """Programs look at services' own time-outs only when a connection is idle for as long as the shortest one."""
        shortest = self._tables.own_timeouts.shortest
        if shortest != self._config.shortest:
            self._write_config(replace(self._config, shortest=shortest))

    async def status(self) -> PlaneStatus:
        _, attachments = self._opened()
        events = self._maps["events"]
        counted = {event: counts.unpack_event(events.get_index(event)) for event in layout.Event}
        entries = counted.pop(layout.Event.ENTRIES)
        self._moves.update(self._maps["clock"].get_index(0))
        return PlaneStatus(
            kind="xdp",
            interfaces=[self._with_marks(one) for one in attachments.status()],
            connections=entries,
            connections_max=self._maps["conns"].info.max_entries * layout.BUCKET_WAYS,
            drops={event.label: count for event, count in counted.items() if event >= layout.FIRST_DROP},
            events={
                **{event.label: count for event, count in counted.items() if event < layout.FIRST_DROP},
                "moved": self._moves.total,
            },
            cpu_packets=self._cpu_packets.total,
            adopted=self._loading.adopted if self._loading else False,
            leases=self._tables.leases.status(),
            syn_proxies=self._tables.syn_proxies(),
            problem=self._loading.problem if self._loading else "",
        )

    async def set_leases(self, groups: Mapping[str, Collection[Address]]) -> Mapping[str, int]:
        self._opened()
        return self._tables.set_leases(groups)

    def lease_map(self) -> int | None:
        return self._tables.leases.map_fd

    def _with_marks(self, interface: InterfaceStatus) -> InterfaceStatus:
        """An interface that came after a service which it cannot serve says so."""
        for service_id in self._tables.services:
            try:
                supported.check_hooks(service_id, [interface.name] if interface.mode == "xdp" else [])
            except Unsupported as error:
                return replace(interface, error=str(error))
        return interface

    # --- counters and connections ----------------------------------------------------------------------------

    async def counters(self) -> Mapping[ServiceId, ServiceCounters]:
        self._opened()
        services = {key: one.entry.index for key, one in self._tables.services.items()}
        servers = {
            key: {server_id: server.index for server_id, server in one.servers.items()}
            for key, one in self._tables.services.items()
        }
        highest = max(services.values(), default=-1) + 1
        service_stats = await self._column("service_stats", highest)
        admissions = await self._column("admissions", highest)
        highest = max((index for one in servers.values() for index in one.values()), default=-1) + 1
        server_stats = await self._column("server_stats", highest)
        gauges = await self._column("gauges", highest)
        self._cpu_packets.update({index: service_stats[index] for index in services.values()})
        result: dict[ServiceId, ServiceCounters] = {}
        for turn, (key, index) in enumerate(services.items(), 1):
            each = {
                server_id: counts.unpack_counters(server_stats[at], counts.Gauge.unpack(gauges[at]))
                for server_id, at in servers[key].items()
            }
            total = counts.unpack_counters(service_stats[index])
            result[key] = ServiceCounters(
                replace(
                    total,
                    active=sum(one.active for one in each.values()),
                    inactive=sum(one.inactive for one in each.values()),
                    persistent=sum(one.persistent for one in each.values()),
                ),
                each,
                admission=counts.unpack_admission(admissions[index]),
            )
            if turn % 64 == 0:
                await asyncio.sleep(0)
        return result

    async def _column(self, name: str, length: int) -> list[bytes]:
        """The first `length` elements of an array map."""
        found: list[bytes] = []
        if length:
            one = self._maps[name]
            for _, values in one.batches(min(length, _CHUNK)):
                found.extend(values[at : at + one.value_size] for at in range(0, len(values), one.value_size))
                if len(found) >= length:
                    break
                await asyncio.sleep(0)
        return found

    async def zero(self, service_id: ServiceId | None) -> None:
        self._opened()
        for key, service in list(self._tables.services.items()):
            if service_id is None or key == service_id:
                self._tables.zero(service)
                await asyncio.sleep(0)

    async def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[Sequence[str]]:
        self._opened()
        selection = listing.Selection(wanted)
        async for chunk in self._exchange.walk(sync_only=False):
            found = selection.offsets(chunk)
            for start in range(0, len(found), _LISTED):
                yield [listing.line(chunk, at) for at in found[start : start + _LISTED]]
                await asyncio.sleep(0)

    async def explain(self, question: Question) -> Explanation:
        self._opened()
        assert self._explainer is not None
        return await self._explainer.explain(question)

    def capture(self, request: CaptureRequest) -> AsyncGenerator[Captured, None]:
        self._opened()
        assert self._capturer is not None
        return self._capturer.capture(request)

    # --- synchronisation -------------------------------------------------------------------------------------

    async def changed_records(self, limit: int) -> bytes:
        self._opened()
        if not self._config.sync:  # nobody has asked before: changes are queued from now on
            self._write_config(replace(self._config, sync=True))
        await self._retry_unknown()
        return self._exchange.changed(limit)

    async def all_records(self) -> AsyncIterator[bytes]:
        self._opened()
        async for chunk in self._exchange.walk(sync_only=True):
            yield chunk

    async def import_records(self, records: bytes) -> int:
        self._opened()
        merged = await self._exchange.merge(records)
        if merged.unknown and sum(len(one) for *_, one in self._unknown) < self._connections * RECORD_SIZE:
            now = time.monotonic()
            self._unknown.append((now + _KEEP_UNKNOWN_S, now, merged.unknown))
        return merged.taken

    def by_group(self, records: bytes, group_of: Mapping[Address, str]) -> Mapping[str, bytes]:
        if group_of is not self._group_of:
            self._group_of = group_of
            self._group_of_packed = {layout.pack_address(address): name for address, name in group_of.items()}
        return by_group(records, self._group_of_packed)

    async def _retry_unknown(self) -> None:
        """Records that came before their service was programmed (a node that joins): try them again."""
        if not self._unknown_due:
            return
        self._unknown_due = False
        waiting, self._unknown = self._unknown, []
        for until, since, records in waiting:
            now = time.monotonic()
            if now < until:
                merged = await self._exchange.merge(aged(records, now - since))
                if merged.unknown:
                    self._unknown.append((until, now, merged.unknown))
