"""What an operator can ask of a node, as one interface: the web API, lbctl and lbadm all go through it.

`node.py` implements it; `web.api` turns it into HTTP. Each class below is one JSON resource: field for field, with
addresses and ids as text. The unix socket RUN_DIR/api.sock carries the same HTTP API without a token (its file mode
0600 is the authentication); TCP needs the token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lbnode.capture import Captured, CaptureRequest
from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.dataplane.base import PlaneStatus
from lbnode.election.figures import AdvertFigures, DroppedPackets
from lbnode.explanation import Explanation, Question
from lbnode.journal import Event, Journal
from lbnode.model import IPIP, Admission, ConnectionRate, Counters, Netmask, Problem, Rates, Role, Tunnel
from lbnode.store.base import StoreHealth
from lbnode.sync.status import SyncPeerInfo
from lbnode.tuning.kernel import SysctlFinding
from lbnode.watched import Watched


@dataclass(frozen=True, slots=True)
class ServerInfo:
    id: str
    forward: str
    configured_weight: int
    effective_weight: int | None  # None: not in the data plane
    drain: bool
    health: str  # "up" | "down" | "unknown" | "unchecked"
    health_reason: str
    health_since: float  # Unix time
    last_checked: float  # Unix time
    counters: Counters
    rates: Rates
    status: str  # "programmed at revision N" | "error: ..." | "pending"
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel: Tunnel = IPIP


@dataclass(frozen=True, slots=True)
class AccessLimits:
    """ServiceInfo.access in figures."""

    allow: int = 0  # prefixes in the list
    deny: int = 0
    new_connections: ConnectionRate | None = None
    syn_proxy: int | None = None  # half-open connections from which on SYNs are answered with cookies


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    id: str
    scheduler: str
    scheduler_flags: tuple[str, ...]
    persistent_s: int
    persistent_netmask: Netmask | None
    one_packet: bool
    vip_group: str | None
    check: str  # one line: "http GET / every 2s", "" = none
    state: str  # "ok" | "degraded" (some servers down) | "down" (no server takes connections) | "foreign"
    counters: Counters
    rates: Rates
    status: str
    servers: tuple[ServerInfo, ...]
    foreign: bool = False  # in the data plane, but in no configuration
    effective_scheduler: str | None = None  # what the data plane uses; None: the service is not in the data plane
    persistence_engine: str = ""
    access: str = ""  # one line, who may open connections: "deny 203.0.113.0/24, 10 new/s per /32, burst 20"
    limits: AccessLimits = AccessLimits()
    admission: Admission | None = None  # None: this data plane does not count it by service
    history: tuple[float, ...] = ()  # connections/s of the last 60 s, oldest first, for the sparkline


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """What each node publishes about itself under nodes/<node> with a lease; the topology of the UI."""

    name: str
    version: str
    started: float  # Unix time
    roles: tuple[Role, ...]
    programmed_revision: int
    problems: int
    settled_revision: int = 0  # newest revision of which every object was tried, successfully or not
    reachable: bool = True  # False: its key is gone from the store, its lease ran out
    seen: float = 0.0  # Unix time when this was last known to be true


@dataclass(frozen=True, slots=True)
class NodeStatus:
    node: str
    cluster: str
    version: str
    started: float  # Unix time
    store: StoreHealth
    revision: int  # newest store revision seen
    programmed_revision: int  # newest revision that is completely in the data plane
    dataplane: PlaneStatus
    roles: tuple[Role, ...]
    sync: tuple[SyncPeerInfo, ...]
    nodes: tuple[NodeInfo, ...]  # this one first
    problems: tuple[Problem, ...]
    time: float  # Unix time at which this was true
    settled_revision: int = 0  # newest revision of which every object was tried: failures stand in their status
    adverts: tuple[AdvertFigures, ...] = ()
    vrrp_dropped: tuple[DroppedPackets, ...] = ()
    foreign: tuple[str, ...] = ()  # services in the data plane that somebody else made and no configuration names


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two configurations: `put` with the old and new document, or `delete`."""

    key: str
    action: str  # "create" | "update" | "delete"
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """Puts and deletes of configuration keys, as one transaction.

    `put` maps relative keys to documents. Deleting a service's key deletes its servers' keys too. `expect_revision`
    guards: no touched key may have been changed after that revision (None = last writer wins).
    """

    put: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    delete: Sequence[str] = ()
    expect_revision: int | None = None
    dry_run: bool = False
    who: str = ""


@dataclass(frozen=True, slots=True)
class ChangeResult:
    revision: int
    changes: tuple[Change, ...]  # empty: nothing differed


class Control(Protocol):
    """Raises ConfigError (400), KeyError (404), StoreConflict (409), StoreUnavailable (503), DataPlaneError (500)."""

    journal: Journal
    services: Watched[tuple[ServiceInfo, ...]]  # renewed each second and on each change; sorted by ServiceId
    node_status: Watched[NodeStatus]

    async def document(self) -> tuple[int, Mapping[str, Any]]:
        """(revision, the whole configuration as `lbctl apply -f` would take it)."""
        ...

    async def apply(
        self,
        document: Mapping[str, Any],
        *,
        who: str,
        prune: bool,
        expect_revision: int | None,
        dry_run: bool = False,
    ) -> ChangeResult:
        """Make the cluster's configuration equal to the document. Without `prune`, keys absent from it stay."""
        ...

    async def change(self, request: ChangeRequest) -> ChangeResult: ...

    async def set_server(self, service_id: str, server_id: str, changes: Mapping[str, Any], who: str) -> ChangeResult:
        """Merge `changes` (weight, drain, ...) into one server's document. '*' as service: every service it is in."""
        ...

    async def zero(self, service_id: str | None) -> None: ...

    def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[Sequence[str]]: ...

    async def explain(self, question: Question) -> Explanation:
        """See lbnode.dataplane.base.DataPlane."""
        ...

    def capture(self, request: CaptureRequest, who: str) -> AsyncGenerator[Captured, None]:
        """See lbnode.dataplane.base.DataPlane; the journal tells."""
        ...

    def events_since(self, seq: int, limit: int) -> Sequence[Event]: ...

    def heir(self, group: str, to: str = "") -> str:
        """Who would take the VIP group over after `handover`, which is refused as this is; "" = nobody tells who."""
        ...

    async def handover(self, group: str, to: str = "") -> None:
        """Give up the Active role of a VIP group (priority 0); `to`: the node that shall take over, "" = the best."""
        ...

    async def sysctl_check(self) -> Sequence[SysctlFinding]: ...

    async def sysctl_apply(self, who: str) -> Sequence[SysctlFinding]: ...
