"""A Control with a believable cluster behind it, for the tests of the web UI: two gateways, three services.

Tests change it (`set_health`, `set_weight`, `tick`, ...); changes made over HTTP act on it as the real node would.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from lbnode.capture import Captured, CapturedPacket, CaptureRequest
from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.connection_line import line_of
from lbnode.control import Change, ChangeRequest, ChangeResult, Control, NodeInfo, NodeStatus, ServerInfo, ServiceInfo
from lbnode.dataplane.base import InterfaceStatus, LeaseStatus, PlaneStatus
from lbnode.errors import ConfigError, DataPlaneError, StoreConflict, StoreUnavailable
from lbnode.explanation import Explanation, Question
from lbnode.handover import heir
from lbnode.journal import Event, Journal, Kind
from lbnode.model import Connection, Counters, L4Protocol, Problem, Rates, Role, VipGroup, VrrpState
from lbnode.store.base import StoreHealth
from lbnode.sync.status import SyncPeerInfo
from lbnode.tuning.kernel import SysctlFinding
from lbnode.watched import Watched

WEB = "tcp:192.0.2.10:80"
DNS = "udp:192.0.2.10:53"
SSH = "tcp:[2001:db8::10]:22"


def server(address: str, weight: int, forward: str = "masquerade", **fields: Any) -> ServerInfo:
    now = time.time()
    base = ServerInfo(
        id=address,
        forward=forward,
        configured_weight=weight,
        effective_weight=weight,
        drain=False,
        health="up",
        health_reason="status 200 in 2 ms",
        health_since=now - 5400,
        last_checked=now,
        counters=Counters(),
        rates=Rates(),
        status="programmed at revision 41",
    )
    return replace(base, **fields)


def service(service_id: str, servers: Sequence[ServerInfo], **fields: Any) -> ServiceInfo:
    base = ServiceInfo(
        id=service_id,
        scheduler="wrr",
        scheduler_flags=(),
        persistent_s=0,
        persistent_netmask=None,
        one_packet=False,
        vip_group="front",
        check="http GET /health every 2s",
        state="ok",
        counters=Counters(),
        rates=Rates(),
        status="programmed at revision 41",
        servers=tuple(servers),
    )
    return replace(base, **fields)


def state_of(servers: Sequence[ServerInfo]) -> str:
    takers = [one for one in servers if one.effective_weight]
    wanted = [one for one in servers if one.configured_weight and not one.drain]
    if not takers:
        return "down"
    return "ok" if len(takers) >= len(wanted) else "degraded"


def sample_services() -> tuple[ServiceInfo, ...]:
    return (
        service(
            WEB,
            [
                server("198.51.100.31:80", 3),
                server("198.51.100.32:80", 2),
                server("198.51.100.33:80", 1),
            ],
            scheduler="wrr",
            persistent_s=300,
            access="deny 203.0.113.0/24, 10 new/s per /32, burst 20",
        ),
        service(
            DNS,
            [
                server("198.51.100.31:53", 1, "direct", health="unchecked", health_reason=""),
                server("198.51.100.32:53", 1, "direct", health="unchecked", health_reason=""),
            ],
            scheduler="mh",
            scheduler_flags=("mh-port",),
            check="",
        ),
        service(
            SSH,
            [server("[2001:db8:1::31]:22", 1, "tunnel", health_reason="connected in 1 ms")],
            scheduler="wlc",
            check="tcp connect every 5s",
        ),
    )


def sample_status(node: str = "gw1") -> NodeStatus:
    now = time.time()
    here = Role("front", VrrpState.ACTIVE, 250, now - 7200, "no advertisement heard for 0.36 s")
    there = Role("front", VrrpState.BACKUP, 150, now - 7200, "started", IPv4Address("192.0.2.2"))
    return NodeStatus(
        node=node,
        cluster="lab",
        version="0.1.0",
        started=now - 7300,
        store=StoreHealth("etcd", True, "http://198.51.100.11:2379", now - 7290),
        revision=41,
        programmed_revision=41,
        dataplane=PlaneStatus(
            "xdp",
            (
                InterfaceStatus("front0", "tcx", "veth: packets are born as socket buffers"),
                InterfaceStatus("back0", "tcx", "veth: packets are born as socket buffers"),
            ),
            connections=1482,
            connections_max=1_048_576,
            drops={"no-server": 0, "bad-checksum": 2},
            events={"no-neighbour": 3, "evicted": 0},
            cpu_packets=(30_000, 10_000),
            adopted=False,
            leases=(LeaseStatus("front", 0.18),),
        ),
        roles=(here,),
        sync=(SyncPeerInfo("gw2", "198.51.100.3:8848", "in-sync", 81_220, 417, 0.004),),
        nodes=(
            NodeInfo("gw1", "0.1.0", now - 7300, (here,), 41, 0, True, now),
            NodeInfo("gw2", "0.1.0", now - 7100, (there,), 41, 0, True, now),
        ),
        problems=(),
        time=now,
    )


class FakeControl(Control):
    def __init__(self, services: tuple[ServiceInfo, ...] | None = None, node: str = "gw1") -> None:
        self.journal = Journal(node)
        self.services: Watched[tuple[ServiceInfo, ...]] = Watched(sample_services() if services is None else services)
        self.node_status: Watched[NodeStatus] = Watched(sample_status(node))
        self.requests: list[tuple[str, Any]] = []  # every state-changing call, for "nothing changes on GET"
        self.store_down = False
        self.resting: tuple[str, ...] = ()  # nodes in maintenance
        self.silent: tuple[str, ...] = ()  # nodes that nobody tells of whether they are Backup
        self._ages: dict[int, float] = {}  # seconds, of the events of `record_past`
        self._random = random.Random(7)
        self._ticks = 0

    # --- what tests do to the cluster ---

    def tick(self) -> None:
        """One second of traffic: counters, rates, history, and the time of everything."""
        self._ticks += 1
        now = time.time()
        self.services.set(tuple(self._with_traffic(one, number, now) for number, one in enumerate(self.services.value)))
        self.node_status.update(
            lambda old: replace(
                old,
                time=now,
                nodes=tuple(replace(node, seen=now if node.reachable else node.seen) for node in old.nodes),
            )
        )

    def _with_traffic(self, one: ServiceInfo, number: int, now: float) -> ServiceInfo:
        base = (420.0, 90.0, 3.0)[number % 3]
        wave = 1 + 0.35 * math.sin((self._ticks + 17 * number) / 8) + self._random.uniform(-0.08, 0.08)
        total = sum(each.effective_weight or 0 for each in one.servers)
        rate = base * wave if total else 0.0
        servers = tuple(_loaded(each, rate * (each.effective_weight or 0) / (total or 1), now) for each in one.servers)
        return replace(
            one,
            servers=servers,
            counters=_sum_counters(servers),
            rates=_sum_rates(servers),
            history=(*one.history, round(rate, 1))[-60:],
        )

    def change_server(self, service_id: str, server_id: str, **fields: Any) -> None:
        def changed(one: ServiceInfo) -> ServiceInfo:
            if one.id != service_id:
                return one
            servers = []
            for each in one.servers:
                now = replace(each, **fields) if each.id == server_id else each
                weight = 0 if now.drain or now.health == "down" else now.configured_weight
                servers.append(replace(now, effective_weight=weight))
            return replace(one, servers=tuple(servers), state=state_of(servers))

        self.services.set(tuple(changed(one) for one in self.services.value))

    def set_health(self, service_id: str, server_id: str, health: str, reason: str) -> None:
        self.change_server(service_id, server_id, health=health, health_reason=reason, health_since=time.time())
        what = f"{service_id}/{server_id}"
        self.journal.record(Kind.HEALTH, what, f"went {health}", reason)

    def record_past(self, ago_s: float, kind: Kind, what: str, message: str, why: str = "") -> None:
        self._ages[self.journal.latest.value + 1] = ago_s
        self.journal.record(kind, what, message, why)

    def add_problem(self, problem: Problem) -> None:
        self.node_status.update(lambda old: replace(old, problems=(*old.problems, problem)))

    # --- Control ---

    async def document(self) -> tuple[int, Mapping[str, Any]]:
        self._need_store()
        services = {
            one.id: {
                "scheduler": one.scheduler,
                "servers": {each.id: {"weight": each.configured_weight} for each in one.servers},
            }
            for one in self.services.value
        }
        return self.node_status.value.revision, {"services": services}

    async def apply(
        self,
        document: Mapping[str, Any],
        *,
        who: str,
        prune: bool,
        expect_revision: int | None,
        dry_run: bool = False,
    ) -> ChangeResult:
        self._need_store()
        wanted = document.get("services", {})
        if unknown := set(document) - {"services"}:
            raise ConfigError(f"document: {min(unknown)}: unknown field")
        have = {one.id for one in self.services.value}
        changes = [Change(f"services/{key}", "create", None, value) for key, value in wanted.items() if key not in have]
        if prune:
            changes += [Change(f"services/{key}", "delete", {}, None) for key in sorted(have - set(wanted))]
        self._guard(expect_revision)
        if not dry_run:
            self.requests.append(("apply", (document, who, prune)))
        return ChangeResult(self.node_status.value.revision, tuple(changes))

    async def change(self, request: ChangeRequest) -> ChangeResult:
        self._need_store()
        self._guard(request.expect_revision)
        if not request.dry_run:
            self.requests.append(("change", request))
        changes = [Change(key, "update", {}, value) for key, value in request.put.items()]
        changes += [Change(key, "delete", {}, None) for key in request.delete]
        return ChangeResult(self.node_status.value.revision, tuple(changes))

    async def set_server(self, service_id: str, server_id: str, changes: Mapping[str, Any], who: str) -> ChangeResult:
        self._need_store()
        found = [
            one.id
            for one in self.services.value
            if service_id in ("*", one.id) and any(each.id == server_id for each in one.servers)
        ]
        if not found:
            raise KeyError(f"no server {server_id} in {service_id}")
        self.requests.append(("set_server", (service_id, server_id, dict(changes), who)))
        fields = {"configured_weight" if name == "weight" else name: value for name, value in changes.items()}
        result = []
        for one in found:
            self.change_server(one, server_id, **fields)
            key = f"services/{one}/servers/{server_id}"
            result.append(Change(key, "update", {}, changes))
            text = ", ".join(f"{name} {value}" for name, value in changes.items())
            self.journal.record(Kind.CONFIG, f"{one}/{server_id}", f"changed: {text}", who=who)
        return ChangeResult(self.node_status.value.revision, tuple(result))

    async def zero(self, service_id: str | None) -> None:
        if service_id is not None and all(one.id != service_id for one in self.services.value):
            raise KeyError(f"no service {service_id}")
        self.requests.append(("zero", service_id))

    async def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[Sequence[str]]:
        virtual, real = (IPv4Address("192.0.2.10"), 80), (IPv4Address("198.51.100.31"), 80)
        for chunk in range(2):
            found = [
                Connection(
                    L4Protocol.TCP, (IPv4Address("192.0.2.100"), 40000 + port), virtual, real, "ESTABLISHED", 899.5
                )
                for port in range(chunk * 3, chunk * 3 + 3)
            ]
            yield [line_of(one) for one in found if wanted.matches(one)]

    async def explain(self, question: Question) -> Explanation:
        if question.interface not in ("", "eth0"):
            raise KeyError(f"interface {question.interface} does not exist here")
        self.requests.append(("explain", question))
        return Explanation(str(question), "UDP", "eth0", "tcx", "dropped", "no-server", "no server takes it")

    async def capture(self, request: CaptureRequest, who: str) -> AsyncGenerator[Captured, None]:
        if request.port == 1:
            raise DataPlaneError("another capture is running on this node")
        self.requests.append(("capture", request))
        yield Captured((), 0)
        came = CapturedPacket(1_700_000_000_000_000_001, "eth0", False, b"frame", 90, "dropped", "no-server", "")
        yield Captured((came,), 0)
        yield Captured((replace(came, interface="eth1", leaves=True),), 3)

    def events_since(self, seq: int, limit: int) -> Sequence[Event]:
        events = self.journal.since(seq, limit)
        return [replace(one, time=one.time - self._ages.get(one.seq, 0.0)) for one in events]

    def heir(self, group: str, to: str = "") -> str:
        status = self.node_status.value
        for role in status.roles:
            if role.group == group:
                members = VipGroup(group, 51, (), {one.name: one.roles[0].priority for one in status.nodes})
                return heir(members, role, status.node, status.nodes[1:], self.silent, to, self.resting)
        raise KeyError(f"no VIP group {group}")

    async def handover(self, group: str, to: str = "") -> None:
        self.heir(group, to)
        self.requests.append(("handover", group))

    async def sysctl_check(self) -> Sequence[SysctlFinding]:
        return [SysctlFinding("net.ipv4.ip_forward", "1", "1")]

    async def sysctl_apply(self, who: str) -> Sequence[SysctlFinding]:
        self.requests.append(("sysctl_apply", who))
        return await self.sysctl_check()

    def _need_store(self) -> None:
        if self.store_down:
            raise StoreUnavailable("etcd: none of 3 endpoints answers")

    def _guard(self, expect_revision: int | None) -> None:
        if expect_revision is not None and expect_revision < self.node_status.value.revision:
            raise StoreConflict(f"changed at revision {self.node_status.value.revision}")


def _loaded(each: ServerInfo, rate: float, now: float) -> ServerInfo:
    rates = Rates(round(rate, 1), round(rate * 12), round(rate * 14), round(rate * 5200), round(rate * 88_000))
    old = each.counters
    counters = Counters(
        connections=old.connections + round(rate),
        packets_in=old.packets_in + int(rates.packets_in),
        packets_out=old.packets_out + int(rates.packets_out),
        bytes_in=old.bytes_in + int(rates.bytes_in),
        bytes_out=old.bytes_out + int(rates.bytes_out),
        active=round(rate * 2.4) if rate else max(0, old.active - 9),
        inactive=round(rate * 0.7),
    )
    return replace(each, rates=rates, counters=counters, last_checked=now if each.health != "unchecked" else 0.0)


def _sum_counters(servers: Sequence[ServerInfo]) -> Counters:
    names = Counters.__dataclass_fields__
    return Counters(**{name: sum(getattr(one.counters, name) for one in servers) for name in names})


def _sum_rates(servers: Sequence[ServerInfo]) -> Rates:
    names = Rates.__dataclass_fields__
    return Rates(**{name: round(sum(getattr(one.rates, name) for one in servers), 1) for name in names})
