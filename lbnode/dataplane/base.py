"""The contract of a data plane. Every implementation passes tests/contracts/test_dataplane*.py.

`apply` is idempotent: adding what is there as wanted, or deleting what is absent, succeeds. Operations on one
service never disturb another, and changing a weight never breaks an established connection.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lbnode.capture import Captured, CaptureRequest
from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.errors import DataPlaneError
from lbnode.explanation import Explanation, Question
from lbnode.model import (
    Address,
    DropRules,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceCounters,
    ServiceId,
    SyncDaemon,
    Timeouts,
)
from lbnode.turns import Turns


@dataclass(frozen=True, slots=True)
class PutService:
    """Create the service, or change its scheduler, flags and persistence. `service.servers` is ignored."""

    service: ProgrammedService


@dataclass(frozen=True, slots=True)
class DeleteService:
    service_id: ServiceId


@dataclass(frozen=True, slots=True)
class PutServer:
    service_id: ServiceId
    server: ProgrammedServer


@dataclass(frozen=True, slots=True)
class DeleteServer:
    service_id: ServiceId
    server_id: ServerId


@dataclass(frozen=True, slots=True)
class SetTimeouts:
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class SetDropRules:
    """What else is dropped; a data plane that cannot raises Unsupported for all but the default."""

    rules: DropRules


@dataclass(frozen=True, slots=True)
class SetSyncDaemons:
    """Run exactly these of the kernel's sync daemons ("master", "backup"); one that somebody else started stays."""

    daemons: Mapping[str, SyncDaemon]


@dataclass(frozen=True, slots=True)
class SetSysctls:
    """Values of net.ipv4.vs.*; a data plane that does not read them takes them as done."""

    values: Mapping[str, str]


Op = PutService | DeleteService | PutServer | DeleteServer | SetTimeouts | SetDropRules | SetSyncDaemons | SetSysctls


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    name: str
    mode: str  # "xdp" | "tcx" | "tc" | "-"
    reason: str  # why this mode was chosen
    error: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    kind: str  # "xdp" | "ipvs" | "fake"
    schedulers: frozenset[str]
    forwarding: frozenset[str]
    protocols: frozenset[str]
    families: frozenset[int]
    persistence: bool
    access: bool = False  # ProgrammedService.access: prefixes, rates; and what they do: ServiceCounters.admission
    own_timeouts: bool = False  # of services (ProgrammedService.timeouts)


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """How long the addresses of a VIP group are still served here if nobody extends their lease."""

    group: str
    remaining_s: float | None  # not above 0: dark since then; None: dark since the data plane was loaded


@dataclass(frozen=True, slots=True)
class SynProxyStatus:
    """A service that is defended against SYN floods."""

    service: str
    half_open: int  # TCP connections that their clients have not confirmed yet
    threshold: int  # from here on SYNs are answered with cookies
    flooded: bool  # one was within the last seconds


@dataclass(frozen=True, slots=True)
class PlaneStatus:
    """For `lbctl status` and the UI."""

    kind: str
    interfaces: Sequence[InterfaceStatus]
    connections: int  # entries in use
    connections_max: int
    drops: Mapping[str, int]  # reason -> packets, since load
    adopted: bool  # True if this process found the data plane already loaded and took it over
    sync_daemons: Mapping[str, SyncDaemon] = field(default_factory=dict)  # the kernel's that run: "master", "backup"
    leases: Sequence[LeaseStatus] = ()  # of the VIP groups that have one
    events: Mapping[str, int] = field(default_factory=dict)  # what else the data plane counts, since load
    syn_proxies: Sequence[SynProxyStatus] = ()
    cpu_packets: Sequence[int] = ()  # of balanced connections, by CPU; at the last reading of the counters
    problem: str = ""  # what of node.toml could not be done


class DataPlane(Protocol):
    """All methods run on the event loop and hold it for at most 20 ms at a time."""

    async def open(self, progressed: Callable[[], None] = lambda: None) -> None:
        """Load or adopt; `progressed` is called each time that this gets on. DataPlaneError says what is missing and
        what to do."""
        ...

    async def close(self, *, unload: bool = False) -> None:
        """Release handles. The kernel goes on forwarding unless `unload`."""
        ...

    def capabilities(self) -> Capabilities: ...

    def owns(self, service_id: ServiceId) -> bool:
        """lbnode put the service, this process or an earlier one. False: somebody else did (ipvsadm, keepalived).

        A data plane that nobody else can program owns everything.
        """
        ...

    async def status(self) -> PlaneStatus: ...

    async def dump(self) -> Programmed: ...

    async def apply(self, op: Op) -> None:
        """DataPlaneError (retry) or Unsupported (do not); its errno is ESRCH where a server's service is not there."""
        ...

    async def apply_many(self, ops: Sequence[Op]) -> Sequence[DataPlaneError | None]:
        """`apply` of each in this order, for less where the kernel takes several at once; returns each one's error.

        One that fails does not keep the next from being applied.
        """
        ...

    async def counters(self) -> Mapping[ServiceId, ServiceCounters]: ...

    async def zero(self, service_id: ServiceId | None) -> None:
        """Zero the counters of one service or of all."""
        ...

    def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[Sequence[str]]:
        """The wanted ones of all tracked connections (an entry has both directions of NAT), each a `Connection` as a
        line of JSON, in chunks. The table is in use meanwhile: one that comes, ends or changes its place may be
        missing, or be there twice."""
        ...

    async def explain(self, question: Question) -> Explanation:
        """What would become of a packet now, and why; nothing changes by it, no table and no counter.

        KeyError: its interface is not served. Unsupported: this data plane cannot say.
        """
        ...

    def capture(self, request: CaptureRequest) -> AsyncGenerator[Captured, None]:
        """Packets that match, until a limit of the request is reached or the iterator is closed; the first item says
        that it has begun. Forwarding goes on as before.

        KeyError: no such service. Unsupported: this data plane cannot. DataPlaneError: another capture is running.
        """
        ...

    # VIP leases. The data plane drops what is for an address without lease, also ARP and neighbour solicitations.

    async def set_leases(self, groups: Mapping[str, Collection[Address]]) -> Mapping[str, int]:
        """Serve the addresses of these VIP groups only while their lease runs, all other addresses always.

        Returns each group's index in `lease_map`; {} where there is none. DataPlaneError: why they cannot be enforced.
        """
        ...

    def lease_map(self) -> int | None:
        """Descriptor of a BPF array that can be mapped into memory: one u64 per lease, until when it runs in ns of
        CLOCK_BOOTTIME. Whoever has it extends leases by writing there. None: this data plane has no leases."""
        ...

    # Connection synchronisation. A record is opaque to the sync layer: `record_size` bytes, portable between nodes
    # (names servers by address, not by index; carries remaining seconds, never absolute time).

    record_layout: str  # identifies layout and version; peers with another layout are refused
    record_size: int

    async def changed_records(self, limit: int) -> bytes:
        """Take up to `limit` records of connections that were created or changed state since they were last taken."""
        ...

    def all_records(self) -> AsyncIterator[bytes]:
        """Every synchronisable connection, in chunks of whole records, for a joining peer."""
        ...

    async def import_records(self, records: bytes) -> int:
        """Merge records from a peer; returns how many were taken. One that is older than what this node has seen of
        the connection changes nothing. Records for unknown services are kept aside or
        skipped, never an error. Imported records are not reported back by changed_records."""
        ...

    def by_group(self, records: bytes, group_of: Mapping[Address, str]) -> Mapping[str, bytes]:
        """The records by what `group_of` has for their virtual addresses ("" where it has nothing), in their order."""
        ...


async def one_by_one(apply: Callable[[Op], Awaitable[None]], ops: Sequence[Op]) -> list[DataPlaneError | None]:
    """`apply_many` of a data plane that gains nothing by it."""
    errors: list[DataPlaneError | None] = []
    turns = Turns()
    for op in ops:
        try:
            await apply(op)
        except DataPlaneError as error:
            errors.append(error)
        else:
            errors.append(None)
        await turns.take()
    return errors
