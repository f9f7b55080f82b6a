"""A data plane in memory: for tests (faults on demand), and for `lbnoded --dry-run`, which logs what it would do."""

from __future__ import annotations

import errno
import logging
import random
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address

from lbnode.capture import Captured, CaptureRequest
from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.connection_line import line_of
from lbnode.dataplane.base import (
    Capabilities,
    DeleteServer,
    DeleteService,
    Op,
    PlaneStatus,
    PutServer,
    PutService,
    SetDropRules,
    SetSyncDaemons,
    SetSysctls,
    SetTimeouts,
    one_by_one,
)
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.explanation import Explanation, Question
from lbnode.model import (
    SCHEDULERS,
    Address,
    Admission,
    Connection,
    Counters,
    DropRules,
    ForwardingMethod,
    L4Protocol,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceCounters,
    ServiceId,
    SyncDaemon,
    Timeouts,
)

log = logging.getLogger(__name__)

_RECORD = struct.Struct("!BB2x16sH16sH16sHI4x")  # protocol, state, three endpoints, remaining seconds
_STATES = ("NONE", "ESTABLISHED", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "UDP")
_NOTHING = ServiceCounters(Counters(), {}, admission=Admission())
ConnectionKey = tuple[L4Protocol | None, tuple[Address, int], tuple[Address, int]]  # protocol, client, virtual


@dataclass(slots=True)
class FakeKernel:
    """What outlives the process: give the same one to the next FakePlane to see it adopt."""

    services: dict[ServiceId, ProgrammedService] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)
    counters: dict[ServiceId, ServiceCounters] = field(default_factory=dict)
    connections: dict[ConnectionKey, Connection] = field(default_factory=dict)
    changed: dict[ConnectionKey, None] = field(default_factory=dict)  # not yet taken by changed_records
    loaded: bool = False
    owned: set[ServiceId] = field(default_factory=set)  # put through a FakePlane
    sync_daemons: dict[str, SyncDaemon] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    drop_rules: DropRules = field(default_factory=DropRules)


class FakePlane:
    """Contract: lbnode.dataplane.base.DataPlane.

    fault_probability: each `apply` and `dump` fails with it (DataPlaneError); half of the failed applies take effect.
    fault: called with each operation (None for dump); may raise.
    exclusive: False imitates a data plane that others program too, as IPVS.
    """

    record_layout = "fake/1"
    record_size = _RECORD.size

    def __init__(
        self,
        kernel: FakeKernel | None = None,
        *,
        fault_probability: float = 0.0,
        rng: random.Random | None = None,
        fault: Callable[[Op | None], None] | None = None,
        exclusive: bool = True,
    ) -> None:
        self.kernel = kernel or FakeKernel()
        self.fault_probability = fault_probability
        self.fault = fault
        self.ops: list[Op] = []  # that took effect, oldest first
        self._rng = rng or random.Random(0)
        self._exclusive = exclusive
        self._adopted = False

    async def open(self, progressed: Callable[[], None] = lambda: None) -> None:  # noqa: ARG002
        self._adopted, self.kernel.loaded = self.kernel.loaded, True

    async def close(self, *, unload: bool = False) -> None:
        if unload:
            kernel = FakeKernel()
            for name in FakeKernel.__slots__:
                setattr(self.kernel, name, getattr(kernel, name))

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kind="fake",
            schedulers=frozenset(SCHEDULERS),
            forwarding=frozenset(ForwardingMethod),
            protocols=frozenset(L4Protocol),
            families=frozenset({4, 6}),
            persistence=True,
            access=True,
            own_timeouts=True,
        )

    def owns(self, service_id: ServiceId) -> bool:
        return self._exclusive or service_id in self.kernel.owned

    async def status(self) -> PlaneStatus:
        connections = len(self.kernel.connections)
        return PlaneStatus("fake", (), connections, 0, {}, self._adopted, self.kernel.sync_daemons)

    async def dump(self) -> Programmed:
        self._maybe_fail(None)
        services = {
            key: replace(service, servers=dict(service.servers)) for key, service in self.kernel.services.items()
        }
        return Programmed(services, self.kernel.timeouts)

    async def apply(self, op: Op) -> None:
        try:
            self._maybe_fail(op)
        except DataPlaneError:
            if self.fault_probability and self._rng.random() < 0.5:
                self._apply(op)  # the operation took effect, only its answer was lost
            raise
        self._apply(op)

    async def apply_many(self, ops: Sequence[Op]) -> Sequence[DataPlaneError | None]:
        return await one_by_one(self.apply, ops)

    def _maybe_fail(self, op: Op | None) -> None:
        if self.fault is not None:
            self.fault(op)
        if self._rng.random() < self.fault_probability:
            raise DataPlaneError("fault injected by the fake data plane")

    def _apply(self, op: Op) -> None:
        services = self.kernel.services
        match op:
            case PutService(service):
                before = services.get(service.id)
                services[service.id] = replace(service, servers=before.servers if before else {})
                self.kernel.owned.add(service.id)
                self.kernel.counters.setdefault(service.id, _NOTHING)
            case DeleteService(service_id):
                services.pop(service_id, None)
                self.kernel.owned.discard(service_id)
                self.kernel.counters.pop(service_id, None)
            case PutServer(service_id, server):
                self._set_servers(service_id, put=server)
            case DeleteServer(service_id, server_id):
                if service_id in services:
                    servers = {key: value for key, value in services[service_id].servers.items() if key != server_id}
                    services[service_id] = replace(services[service_id], servers=servers)
            case SetTimeouts(timeouts):
                self.kernel.timeouts = timeouts
            case SetDropRules(rules):
                self.kernel.drop_rules = rules
            case SetSyncDaemons(daemons):
                self.kernel.sync_daemons = dict(daemons)
            case SetSysctls(values):
                self.kernel.sysctls.update(values)
        self.ops.append(op)
        log.info("would apply %s", op)

    def _set_servers(self, service_id: ServiceId, put: ProgrammedServer) -> None:
        service = self.kernel.services.get(service_id)
        if service is None:
            reason = f"server {put.id}: there is no service {service_id}; put the service first"
            raise DataPlaneError(reason, errno.ESRCH)
        self.kernel.services[service_id] = replace(service, servers={**service.servers, put.id: put})

    async def set_leases(self, groups: Mapping[str, Collection[Address]]) -> Mapping[str, int]:  # noqa: ARG002
        return {}

    def lease_map(self) -> int | None:
        return None

    async def counters(self) -> Mapping[ServiceId, ServiceCounters]:
        return {
            key: ServiceCounters(
                self._count(self.kernel.counters[key].total, key, None),
                {
                    server_id: self._count(self.kernel.counters[key].servers.get(server_id, Counters()), key, server_id)
                    for server_id in service.servers
                },
                admission=self.kernel.counters[key].admission,
            )
            for key, service in self.kernel.services.items()
        }

    def _count(self, counters: Counters, service_id: ServiceId, server_id: ServerId | None) -> Counters:
        """The gauges, from the connections there are."""
        mine = [
            connection
            for connection in self.kernel.connections.values()
            if (connection.protocol, *connection.virtual) == (service_id.protocol, service_id.address, service_id.port)
            and (server_id is None or server_id == _server(connection))
        ]
        active = sum(connection.state == "ESTABLISHED" for connection in mine)
        return replace(counters, active=active, inactive=len(mine) - active)

    async def zero(self, service_id: ServiceId | None) -> None:
        for key in list(self.kernel.counters):
            if service_id is None or key == service_id:
                self.kernel.counters[key] = _NOTHING

    def connect(self, connection: Connection) -> None:
        """For tests: a client's new connection, or a new state of a known one."""
        key = _key(connection)
        if key not in self.kernel.connections:
            service_id = ServiceId(
                connection.protocol, *connection.virtual, inet6=isinstance(connection.virtual[0], IPv6Address)
            )
            before = self.kernel.counters.get(service_id, _NOTHING)
            server_id = _server(connection)
            servers = dict(before.servers)
            servers[server_id] = _one_more(servers.get(server_id, Counters()))
            self.kernel.counters[service_id] = replace(before, total=_one_more(before.total), servers=servers)
        self.kernel.connections[key] = connection
        self.kernel.changed[key] = None

    async def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[Sequence[str]]:
        if found := [line_of(one) for one in self.kernel.connections.values() if wanted.matches(one)]:
            yield found

    async def explain(self, question: Question) -> Explanation:  # noqa: ARG002
        raise Unsupported("a data plane in memory forwards no packets: only the XDP/tcx data plane explains them")

    def capture(self, request: CaptureRequest) -> AsyncGenerator[Captured, None]:  # noqa: ARG002
        raise Unsupported("a data plane in memory forwards no packets: only the XDP/tcx data plane captures them")

    async def changed_records(self, limit: int) -> bytes:
        keys = list(self.kernel.changed)[:limit]
        for key in keys:
            del self.kernel.changed[key]
        return b"".join(_pack(self.kernel.connections[key]) for key in keys if key in self.kernel.connections)

    async def all_records(self) -> AsyncIterator[bytes]:
        if self.kernel.connections:
            yield b"".join(_pack(connection) for connection in self.kernel.connections.values())

    async def import_records(self, records: bytes) -> int:
        taken = 0
        for connection in map(_unpack, _RECORD.iter_unpack(records[: len(records) - len(records) % _RECORD.size])):
            if connection is not None:
                self.kernel.connections[_key(connection)] = connection
                taken += 1
        return taken

    def by_group(self, records: bytes, group_of: Mapping[Address, str]) -> Mapping[str, bytes]:
        parts: dict[str, bytes] = {}
        for fields in _RECORD.iter_unpack(records):
            name = group_of.get(_narrow(fields[4]), "")
            parts[name] = parts.get(name, b"") + _RECORD.pack(*fields)
        return parts


def _key(connection: Connection) -> ConnectionKey:
    return connection.protocol, connection.client, connection.virtual


def _server(connection: Connection) -> ServerId:
    return ServerId(*connection.server)


def _one_more(counters: Counters) -> Counters:
    return replace(counters, connections=counters.connections + 1)


def _pack(connection: Connection) -> bytes:
    assert connection.protocol is not None, "templates are not synchronised"
    protocol = tuple(L4Protocol).index(connection.protocol)
    ends = (connection.client, connection.virtual, connection.server)
    fields = (part for address, port in ends for part in (_wide(address), port))
    return _RECORD.pack(protocol, _STATES.index(connection.state), *fields, int(connection.expires_s))


def _unpack(fields: tuple[int | bytes, ...]) -> Connection | None:
    protocol, state, *ends, expires = fields
    if not isinstance(protocol, int) or protocol >= len(L4Protocol):
        return None
    if not isinstance(state, int) or state >= len(_STATES) or not isinstance(expires, int):
        return None
    client, virtual, server = (
        (_narrow(address), port)
        for address, port in zip(ends[::2], ends[1::2], strict=True)
        if isinstance(address, bytes) and isinstance(port, int)
    )
    return Connection(tuple(L4Protocol)[protocol], client, virtual, server, _STATES[state], float(expires))


def _wide(address: Address) -> bytes:
    """IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2)."""
    return address.packed if isinstance(address, IPv6Address) else b"\0" * 10 + b"\xff\xff" + address.packed


def _narrow(packed: bytes) -> Address:
    address = IPv6Address(packed)
    mapped: IPv4Address | None = address.ipv4_mapped
    return mapped or address
