"""Reporter: what this node tells of itself to CLI, web UI, peers and its own election, from all its parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping

from healthcheck.runner import Runner
from healthcheck.spec import Verdict
from lbnode import VERSION
from lbnode.alarms import FloodAlarm, TableAlarm
from lbnode.config.bootstrap import NodeConfig
from lbnode.control import NodeInfo, NodeStatus, ServiceInfo
from lbnode.dataplane.base import DataPlane, PlaneStatus
from lbnode.election.figures import DroppedPackets
from lbnode.election.supervisor import Election
from lbnode.feed import ConfigFeed
from lbnode.journal import Journal, Kind
from lbnode.membership import Membership
from lbnode.model import Config, Problem, Severity
from lbnode.overview import Facts, overview
from lbnode.planner import Planner
from lbnode.reconcile.loop import Reconciler
from lbnode.stats.collector import Collector
from lbnode.store.base import Store
from lbnode.sync.driver import ConnectionSync
from lbnode.tracking import Facts as TrackedFacts
from lbnode.tracking import Scripts, failing, servers_up
from lbnode.watched import Watched, changes_of

# How often figures are renewed for CLI and UI, and how often at most because something changed.
REPORT_INTERVAL_S = 1.0
REPORT_PAUSE_S = 0.05


class Reporter:
    """services, status: renewed each second, and soon after anything changed; status is None until the first report."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        me: Watched[NodeInfo],
        store: Store,
        feed: ConfigFeed,
        runner: Runner,
        verdicts: Watched[Mapping[str, Verdict]],
        election: Election,
        planner: Planner,
        plane: DataPlane,
        reconciler: Reconciler,
        collector: Collector,
        sync: ConnectionSync | None,
        membership: Membership,
        scripts: Scripts,
        journal: Journal,
    ) -> None:
        """me: is kept equal to the report, for the peers."""
        self.services: Watched[tuple[ServiceInfo, ...]] = Watched(())
        self.status: Watched[NodeStatus | None] = Watched(None)
        self._config = config
        self._me = me
        self._started = me.value.started
        self._store = store
        self._feed = feed
        self._runner = runner
        self._verdicts = verdicts
        self._election = election
        self._planner = planner
        self._plane = plane
        self._kind = plane.capabilities().kind
        self._reconciler = reconciler
        self._collector = collector
        self._sync = sync
        self._membership = membership
        self._scripts = scripts
        self._journal = journal
        self._table_alarm = TableAlarm()
        self._flood_alarm = FloodAlarm()

    async def run(self) -> None:
        """Renew services and status each second, and soon after anything changed."""
        watched = (self._feed.resolution, self._verdicts, self._reconciler.status, self._election.roles)
        more = (self._store.health, self._collector.stats, *((self._sync.peers,) if self._sync else ()))
        changes = changes_of(*watched, *more)
        while True:
            try:
                async with asyncio.timeout(REPORT_INTERVAL_S):
                    await anext(changes)
            except TimeoutError:
                changes = changes_of(*watched, *more)
            plane = await self._plane.status()
            # Nothing may happen between these two: who sees a revision settled reads its services next.
            self._report_services()
            self.report_status(plane)
            self._look_at_tracked(plane)
            await asyncio.sleep(REPORT_PAUSE_S)

    def _look_at_tracked(self, plane: PlaneStatus) -> None:
        """Tell the election what fails of what its groups track."""
        resolution = self._feed.resolution.value
        if resolution is None or not any(group.track for group in resolution.config.vip_groups.values()):
            return
        facts = TrackedFacts(
            dataplane=plane.kind != "xdp" or any(not interface.error for interface in plane.interfaces),
            sync=self._sync.peers.value if self._sync else (),
            up=servers_up(self.services.value),
            scripts=self._scripts.results,
        )
        found = {name: failing(group, facts) for name, group in resolution.config.vip_groups.items()}
        self._election.set_failing({name: reasons for name, reasons in found.items() if reasons})

    def _report_services(self) -> None:
        resolution, stats = self._feed.resolution.value, self._collector.stats.value
        if resolution is None:
            return
        facts = Facts(
            config=resolution.config,
            actual=self._reconciler.actual,
            verdicts=self._runner.verdicts,
            statuses=self._reconciler.status.value,
            counters=stats.counters,
            service_rates=stats.service_rates,
            server_rates=stats.server_rates,
            history=stats.history,
        )
        self.services.set(overview(facts))

    def report_status(self, plane: PlaneStatus) -> None:
        resolution = self._feed.resolution.value
        problems = (*resolution.problems, *self._problems_here(resolution.config)) if resolution else ()
        event, problem = self._table_alarm.look(plane)
        if event is not None:
            self._journal.record(Kind.DATAPLANE, "connections", *event)
        if problem is not None:
            problems = (*problems, problem)
        floods, flood_problems = self._flood_alarm.look(plane.syn_proxies)
        for service, what, why in floods:
            self._journal.record(Kind.DATAPLANE, service, what, why)
        problems = (*problems, *flood_problems)
        if plane.problem:
            problems = (*problems, Problem("node.toml", "dataplane.connections", plane.problem, "", Severity.WARNING))
        if self._planner.lease_problem:
            problems = (
                *problems,
                Problem("data plane", "leases", self._planner.lease_problem, severity=Severity.WARNING),
            )
        roles = tuple(role for _, role in sorted(self._election.roles.value.items()))
        programmed = self._reconciler.programmed_revision.value
        settled = self._reconciler.settled_revision.value
        me = NodeInfo(self._config.node, VERSION, self._started, roles, programmed, len(problems), settled)
        self._me.set(me)
        sync = self._sync.peers.value if self._sync else ()
        self.status.set(
            NodeStatus(
                node=self._config.node,
                cluster=self._config.cluster,
                version=VERSION,
                started=self._started,
                store=self._store.health.value,
                revision=resolution.config.revision if resolution else 0,
                programmed_revision=programmed,
                dataplane=plane,
                roles=roles,
                sync=sync,
                nodes=self._membership.nodes(),
                problems=problems,
                time=time.time(),
                settled_revision=settled,
                foreign=tuple(sorted(map(str, self._reconciler.foreign.value))),
                adverts=self._election.figures,
                vrrp_dropped=tuple(
                    DroppedPackets(interface, reason, count)
                    for (interface, reason), count in sorted(self._election.dropped.items())
                ),
            )
        )

    def _problems_here(self, config: Config) -> Iterator[Problem]:
        """What of the configuration cannot be in force on this node."""
        settings = config.settings
        for name, status in self._reconciler.status.value.items():
            if status.error and name.startswith("settings"):
                yield Problem("settings", name.partition("/")[2], status.error)
        if self._config.dataplane.kind == "auto" and settings.dataplane not in ("auto", self._kind):
            message = f"this node drives {self._kind}, the settings say {settings.dataplane}"
            yield Problem("settings", "dataplane", message, "restart lbnoded", Severity.WARNING)
        for group in config.vip_groups.values():
            if group.policy == "consistency" and not self._config.store.etcd and len(group.priorities) > 1:
                message = "consistency needs etcd, which names the owner; this node's store knows no other node"
                yield Problem(f"vip-groups/{group.name}", "policy", message, "", Severity.WARNING)
        if self._kind == "ipvs" and self._config.sync.listen and self._planner.sync_interface is None:
            message = f"no interface has the address of {self._config.sync.listen}, so ip_vs's sync daemons cannot run"
            yield Problem("node.toml", "sync.listen", message, "use an address of this node")
        shared = any(self._config.node in g.priorities and len(g.priorities) > 1 for g in config.vip_groups.values())
        if self._election.not_realtime and shared:
            hint = "run lbnoded with CAP_SYS_NICE and LimitMEMLOCK=infinity, outside cgroups without real-time budget"
            yield Problem("election process", "realtime", self._election.not_realtime, hint, Severity.WARNING)
