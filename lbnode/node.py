"""Node: builds every part of the daemon, wires them in one direction, starts and stops them in order.

    feed (store, cache) ---> config ---+
    runner (health checks) -> verdicts +--> plan() --> desired --> reconciler --> data plane
    election (own process) -> roles ---> who holds the VIPs                         |
    sync (peers) <------------------------- connections ----------------------------+
    collector (counters) ------> overview, status --> web, lbctl, lbadm, /metrics

Start: the data plane first (it may be forwarding already: it is adopted, never rebuilt), then everything else at once.
Stop: the election first, so that a peer takes over while this node still forwards; the data plane is left as it is.
For a restart the election process is left, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from healthcheck.runner import Runner
from healthcheck.spec import Verdict
from lbnode import VERSION
from lbnode.alarms import FloodAlarm, TableAlarm
from lbnode.config.bootstrap import NodeConfig
from lbnode.control import NodeInfo, NodeStatus, ServiceInfo
from lbnode.dataplane.base import DataPlane, PlaneStatus
from lbnode.election.authentication import cluster_key
from lbnode.election.figures import DroppedPackets
from lbnode.election.messages import Setup
from lbnode.election.netlink import interface_of
from lbnode.election.supervisor import Election
from lbnode.errors import ConfigError, DataPlaneError
from lbnode.feed import ConfigFeed
from lbnode.journal import Journal, Kind
from lbnode.membership import Membership
from lbnode.model import Config, Problem, Severity, SyncDaemon, VrrpState, parse_endpoint
from lbnode.node_control import NodeControl
from lbnode.overview import Facts, overview
from lbnode.ownership import Ownership
from lbnode.plan import Desired, Targets, leased, plan, sync_daemons, targets
from lbnode.planes import unload
from lbnode.reconcile.loop import Reconciler
from lbnode.stats.collector import Collector
from lbnode.stats.prometheus import CONTENT_TYPE, render
from lbnode.store.base import Store, View
from lbnode.store.cache import ConfigCache
from lbnode.store.embedded import EmbeddedStore
from lbnode.store.etcd import EtcdStore
from lbnode.sync.driver import ConnectionSync, parse_host_port
from lbnode.tracking import Facts as TrackedFacts
from lbnode.tracking import Scripts, failing, servers_up
from lbnode.watched import Watched, changes_of
from web.app import make_app, serve

# How often figures are renewed for CLI and UI, and how often at most because something changed.
REPORT_INTERVAL_S = 1.0
REPORT_PAUSE_S = 0.05

log = logging.getLogger(__name__)


def make_store(config: NodeConfig) -> Store:
    if not config.store.etcd:
        return EmbeddedStore(config.state_dir / "config.sqlite")
    return EtcdStore(
        config.store.etcd,
        config.cluster,
        user=config.store.user or None,
        password=config.store.password or None,
        ca_file=config.store.ca_file or None,
        cert_file=config.store.cert_file or None,
        key_file=config.store.key_file or None,
    )


class Node:
    """One gateway. `run` until `stop` is set; a bug in any part ends it with that exception."""

    def __init__(self, config: NodeConfig, store: Store, plane: DataPlane, why: str) -> None:
        """why: this data plane."""
        self._config = config
        self._started = time.time()
        self.journal = Journal(config.node)
        self._plane = plane
        self._store = store
        self._kind, self._why = plane.capabilities().kind, why
        self._me = Watched(NodeInfo(config.node, VERSION, self._started, (), 0, 0))
        self._membership = Membership(self._store, self._me)
        self._feed = ConfigFeed(
            self._store, ConfigCache(config.state_dir / "config.cache"), self.journal, self._observe
        )
        self._runner = Runner(self._verdicts_changed)
        self._verdicts: Watched[Mapping[str, Verdict]] = Watched({})
        self._election = Election(config.node, self.journal, config.run_dir, self._election_setup())
        # A store of one node knows no more than the node itself.
        self._ownership = Ownership(config.node, self._store, self._election) if config.store.etcd else None
        self._desired: Watched[Desired | None] = Watched(None)
        self._reconciler = Reconciler(self._plane, self.journal)
        self._collector = Collector(self._plane)
        self._table_alarm = TableAlarm()
        self._flood_alarm = FloodAlarm()
        self._lease_problem = ""
        self._scripts = Scripts()
        self._sync = self._make_sync()
        self._sync_interface: str | None = None
        self._services: Watched[tuple[ServiceInfo, ...]] = Watched(())
        self._status: Watched[NodeStatus | None] = Watched(None)

    def _observe(self, view: View) -> None:
        self._membership.observe(view)
        if self._ownership is not None:
            self._ownership.observe(view)

    def _election_setup(self) -> Setup:
        """The nodes that synchronise connections with each other are those that share a key."""
        sync, keys = self._config.sync, self._config.election.keys
        if not keys and sync.key:
            keys = {1: cluster_key(sync.key)}
        nodes = frozenset({self._config.node, *sync.peers})
        if not sync.listen:
            return Setup(keys, nodes)
        peers = {name: _heartbeats_of(text) for name, text in sync.peers.items()}
        return Setup(keys, nodes, _heartbeats_of(sync.listen), peers)

    def _make_sync(self) -> ConnectionSync | None:
        sync = self._config.sync
        if not sync.listen or self._kind == "ipvs":  # ip_vs has its own: see _sync_daemons()
            return None
        return ConnectionSync(self._config.node, sync.listen, sync.peers, sync.key.encode(), self._plane, self.journal)

    def restart(self) -> None:
        """The stop that follows is one for a restart: the election goes on meanwhile."""
        self._election.keep()

    async def run(self, stop: asyncio.Event) -> None:
        self._election.claim()
        await self._plane.open()
        self._election.use_leases(self._plane.lease_map())
        await unload(self._config, but=self._kind)
        try:
            self._report_status(await self._plane.status())
            await self._run_parts(stop)
        finally:
            await self._store.close()
            await self._plane.close()

    async def _run_parts(self, stop: asyncio.Event) -> None:
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "configuration feed": self._feed.run(),
            "health checks": self._runner.run(),
            "plan": self._plan(),
            "reconciler": self._reconciler.run(self._desired),
            "collector": self._collector.run(),
            "membership": self._membership.run(),
            "report": self._report(),
            "web": self._serve(),
        }
        if self._ownership is not None:
            parts["ownership"] = self._ownership.run()
        if self._sync is not None:
            parts["connection sync"] = self._sync.run()
        async with asyncio.TaskGroup() as tasks:
            election = tasks.create_task(self._election.run(), name="election")
            running = [tasks.create_task(part, name=name) for name, part in parts.items()]
            self.journal.record(Kind.NODE, self._config.node, "started", f"lbnode {VERSION}")
            self.journal.record(Kind.DATAPLANE, self._kind, "chosen", self._why)
            await stop.wait()
            self.journal.record(Kind.NODE, self._config.node, "stopping")
            election.cancel()
            await asyncio.wait([election])
            for task in running:
                task.cancel()
            self._scripts.stop()

    # --- config, verdicts -> desired ----------------------------------------------------------------------------

    def _verdicts_changed(self, changed: Mapping[str, Verdict]) -> None:
        known = self._verdicts.value
        for key, verdict in changed.items():
            before = known.get(key)
            if before is None or before.health != verdict.health:
                self.journal.record(Kind.HEALTH, key, f"is {verdict.health}", verdict.reason)
        self._verdicts.set({**self._runner.verdicts})

    async def _plan(self) -> None:
        """Plan at once and after each change. What the data plane holds already counts until a server was probed."""
        found = await self._reconciler.adopt()
        wanted_targets: Targets | None = None
        desired: Desired | None = None
        config: Config | None = None
        async for _ in changes_of(self._feed.resolution, self._verdicts, self._election.roles):
            resolution = self._feed.resolution.value
            if resolution is None:
                continue
            known_targets, wanted_targets = wanted_targets, targets(resolution.config, wanted_targets)
            if known_targets is None or wanted_targets.by_service is not known_targets.by_service:
                self._runner.set_targets(wanted_targets)
            if resolution.config is not config or self._lease_problem:
                config = resolution.config
                await self._set_groups(config)
            daemons = self._sync_daemons(resolution.config)
            desired = plan(resolution.config, self._verdicts.value, found, desired, daemons, self._config.node)
            self._desired.set(desired)

    async def _set_groups(self, config: Config) -> None:
        """The data plane first: it hands out the leases. Without them the election works all the same."""
        groups, leases = config.vip_groups, dict[str, int]()
        before, self._lease_problem = self._lease_problem, ""
        try:
            leases = dict(await self._plane.set_leases(leased(groups, self._config.node)))
        except DataPlaneError as error:
            self._lease_problem = str(error)
        if self._lease_problem not in ("", before):
            self.journal.record(Kind.DATAPLANE, "leases", "could not be set", self._lease_problem)
        resting = self._config.node in config.settings.maintenance
        self._election.set_groups(groups, leases, maintenance=resting)
        self._scripts.configure(group for group in groups.values() if self._config.node in group.priorities)

    def _sync_daemons(self, config: Config) -> Mapping[str, SyncDaemon]:
        """With IPVS, [sync] of node.toml means the kernel's own, on the interface that has the address.

        Their id is made of the cluster's name, since they hear every cluster of their network.
        """
        own = None
        if self._kind == "ipvs" and self._config.sync.listen:
            address, port = parse_endpoint(self._config.sync.listen)
            with suppress(DataPlaneError):
                self._sync_interface = self._sync_interface or interface_of(address)
            if self._sync_interface is not None:
                own = SyncDaemon(self._sync_interface, 1 + crc32(self._config.cluster.encode()) % 255, port=port)
        return sync_daemons(config.settings, self._election.roles.value.values(), own)

    # --- reporting ----------------------------------------------------------------------------------------------

    async def _report(self) -> None:
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
            self._report_status(plane)
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
            up=servers_up(self._services.value),
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
        self._services.set(overview(facts))

    def _report_status(self, plane: PlaneStatus) -> None:
        resolution = self._feed.resolution.value
        problems = (*resolution.problems, *self._problems_here(resolution.config)) if resolution else ()
        event, problem = self._table_alarm.look(plane)
        if event is not None:
            self.journal.record(Kind.DATAPLANE, "connections", *event)
        if problem is not None:
            problems = (*problems, problem)
        floods, flood_problems = self._flood_alarm.look(plane.syn_proxies)
        for service, what, why in floods:
            self.journal.record(Kind.DATAPLANE, service, what, why)
        problems = (*problems, *flood_problems)
        if plane.problem:
            problems = (*problems, Problem("node.toml", "dataplane.connections", plane.problem, "", Severity.WARNING))
        if self._lease_problem:
            problems = (*problems, Problem("data plane", "leases", self._lease_problem, severity=Severity.WARNING))
        roles = tuple(role for _, role in sorted(self._election.roles.value.items()))
        programmed = self._reconciler.programmed_revision.value
        settled = self._reconciler.settled_revision.value
        me = NodeInfo(self._config.node, VERSION, self._started, roles, programmed, len(problems), settled)
        self._me.set(me)
        sync = self._sync.peers.value if self._sync else ()
        self._status.set(
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
            if group.policy == "consistency" and self._ownership is None and len(group.priorities) > 1:
                message = "consistency needs etcd, which names the owner; this node's store knows no other node"
                yield Problem(f"vip-groups/{group.name}", "policy", message, "", Severity.WARNING)
        if self._kind == "ipvs" and self._config.sync.listen and self._sync_interface is None:
            message = f"no interface has the address of {self._config.sync.listen}, so ip_vs's sync daemons cannot run"
            yield Problem("node.toml", "sync.listen", message, "use an address of this node")
        shared = any(self._config.node in g.priorities and len(g.priorities) > 1 for g in config.vip_groups.values())
        if self._election.not_realtime and shared:
            hint = "run lbnoded with CAP_SYS_NICE and LimitMEMLOCK=infinity, outside cgroups without real-time budget"
            yield Problem("election process", "realtime", self._election.not_realtime, hint, Severity.WARNING)

    # --- serving ------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        status = self._status
        assert status.value is not None
        control = NodeControl(
            store=self._store,
            plane=self._plane,
            feed=self._feed,
            journal=self.journal,
            services=self._services,
            node_status=status,  # type: ignore[arg-type]  # never None again after the first report
            handover=self._handover,
        )

        def metrics() -> tuple[bytes, str]:
            return render(control), CONTENT_TYPE

        tcp, host, port = None, "", 0
        if self._config.web.listen:
            host, port = parse_host_port(self._config.web.listen)
            tcp = make_app(control, token=self._token(), metrics=metrics)
        local = make_app(control, token=None, metrics=metrics)
        server = await serve(tcp, local, host=host, port=port, unix_path=self._config.run_dir / "api.sock")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await server.close()

    async def _handover(self, group: str, to: str) -> None:
        def ready(node: NodeInfo) -> bool:
            return node.reachable and any(r.group == group and r.state is VrrpState.BACKUP for r in node.roles)

        backups = [node.name for node in self._membership.nodes()[1:] if ready(node)]
        if group in self._election.roles.value and not backups:
            raise ConfigError(f"VIP group {group}: no other node is backup now: nobody would take over")
        if to and to not in backups:
            raise ConfigError(f"VIP group {group}: {to} is not backup now; these are: {', '.join(backups)}")
        await self._election.handover(group, to)

    def _token(self) -> str:
        """The configured token, or one made up at the first start and kept in the state directory."""
        if self._config.web.token:
            return self._config.web.token
        path = self._config.state_dir / "token"
        return _read_or_make(path, lambda: secrets.token_urlsafe(24))


def _heartbeats_of(sync_address: str) -> tuple[str, int]:
    """The election's heartbeats use the UDP port after that of the connection synchronisation."""
    host, port = parse_host_port(sync_address)
    return host, port % 65535 + 1


def _read_or_make(path: Path, make: Callable[[], str]) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        text = make()
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        log.info("made a token for the web UI: %s", path)
        return text
