"""Node: builds every part of the daemon, wires them in one direction, starts and stops them in order.

    feed (store, cache) ---> config ---+
    runner (health checks) -> verdicts +--> planner --> desired --> reconciler --> data plane
    election (own process) -> roles ---> who holds the VIPs                         |
    sync (peers) <------------------------- connections ----------------------------+
    collector (counters) ------> reporter: services, status --> web, lbctl, lbadm, /metrics

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
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from healthcheck.runner import Runner
from healthcheck.spec import Verdict
from lbnode import VERSION
from lbnode.config.bootstrap import NodeConfig
from lbnode.control import NodeInfo
from lbnode.dataplane.base import DataPlane
from lbnode.election.authentication import cluster_key
from lbnode.election.messages import Setup
from lbnode.election.supervisor import Election
from lbnode.epoch_file import EpochFile
from lbnode.epochs import Epochs
from lbnode.feed import ConfigFeed
from lbnode.handover import heir
from lbnode.journal import Journal, Kind
from lbnode.membership import Membership
from lbnode.model import VipGroup
from lbnode.node_control import NodeControl
from lbnode.ownership import Ownership
from lbnode.planes import unload
from lbnode.planner import Planner
from lbnode.reconcile.loop import Reconciler
from lbnode.reporter import Reporter
from lbnode.stats.collector import Collector
from lbnode.stats.prometheus import CONTENT_TYPE, render
from lbnode.store.base import Store, View
from lbnode.store.cache import ConfigCache
from lbnode.store.embedded import EmbeddedStore
from lbnode.store.etcd import EtcdStore
from lbnode.sync.driver import ConnectionSync, parse_host_port
from lbnode.tracking import Scripts
from lbnode.watched import Watched, changes_of
from web.app import make_app, serve

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
        self.journal = Journal(config.node)
        self._plane = plane
        self._store = store
        self._kind, self._why = plane.capabilities().kind, why
        self._me = Watched(NodeInfo(config.node, VERSION, time.time(), (), 0, 0))
        self._membership = Membership(self._store, self._me)
        self._feed = ConfigFeed(
            self._store, ConfigCache(config.state_dir / "config.cache"), self.journal, self._observe
        )
        self._runner = Runner(self._verdicts_changed)
        self._verdicts: Watched[Mapping[str, Verdict]] = Watched({})
        self._election = Election(config.node, self.journal, config.run_dir, self._election_setup())
        shared = bool(config.store.etcd)  # a store of one node knows no more than the node itself
        self._epoch_file = EpochFile(config.state_dir / "epochs.json")
        self._epochs = Epochs(self._epoch_file.load() if shared else None)
        self._ownership = Ownership(config.node, self._store, self._election, self._epochs) if shared else None
        self._reconciler = Reconciler(self._plane, self.journal)
        self._collector = Collector(self._plane)
        self._scripts = Scripts()
        self._sync = self._make_sync()
        self._planner = Planner(
            config,
            feed=self._feed,
            runner=self._runner,
            verdicts=self._verdicts,
            election=self._election,
            plane=self._plane,
            reconciler=self._reconciler,
            scripts=self._scripts,
            journal=self.journal,
        )
        self._reporter = Reporter(
            config,
            me=self._me,
            store=self._store,
            feed=self._feed,
            runner=self._runner,
            verdicts=self._verdicts,
            election=self._election,
            planner=self._planner,
            plane=self._plane,
            reconciler=self._reconciler,
            collector=self._collector,
            sync=self._sync,
            membership=self._membership,
            scripts=self._scripts,
            journal=self.journal,
        )

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
        me, key = self._config.node, sync.key.encode()
        return ConnectionSync(me, sync.listen, sync.peers, key, self._plane, self.journal, self._epochs)

    def restart(self) -> None:
        """The stop that follows is one for a restart: the election goes on meanwhile."""
        self._election.keep()

    async def run(self, stop: asyncio.Event) -> None:
        self._election.claim()
        await self._plane.open(self._election.progressed)
        self._election.use_leases(self._plane.lease_map())
        await unload(self._config, but=self._kind)
        try:
            self._reporter.report_status(await self._plane.status())
            await self._run_parts(stop)
        finally:
            await self._store.close()
            await self._plane.close()

    async def _run_parts(self, stop: asyncio.Event) -> None:
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "configuration feed": self._feed.run(),
            "health checks": self._runner.run(),
            "planner": self._planner.run(),
            "reconciler": self._reconciler.run(self._planner.desired),
            "collector": self._collector.run(),
            "membership": self._membership.run(),
            "reporter": self._reporter.run(),
            "epochs": self._follow_epochs(),
            "web": self._serve(),
        }
        if self._ownership is not None:
            parts["ownership"] = self._ownership.run()
            parts["epochs on disk"] = self._epoch_file.follow(self._epochs, self.journal)
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

    async def _follow_epochs(self) -> None:
        """What the configuration, the store and the election say of VIP groups and their owners."""
        groups: Mapping[str, VipGroup] = {}
        async for _ in changes_of(self._feed.resolution, self._election.roles):
            resolution = self._feed.resolution.value
            if resolution is not None and resolution.config.vip_groups is not groups:
                groups = resolution.config.vip_groups
                self._epochs.set_groups(groups.values())
            if self._ownership is not None:
                self._ownership.see_epochs()
            self._epochs.take_roles(self._election.roles.value, asyncio.get_running_loop().time())
            if self._sync is not None:
                self._sync.collect_soon()

    # --- config, verdicts -> desired ----------------------------------------------------------------------------

    def _verdicts_changed(self, changed: Mapping[str, Verdict]) -> None:
        known = self._verdicts.value
        for key, verdict in changed.items():
            before = known.get(key)
            if before is None or before.health != verdict.health:
                self.journal.record(Kind.HEALTH, key, f"is {verdict.health}", verdict.reason)
        self._verdicts.set({**self._runner.verdicts})

    # --- serving ------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        status = self._reporter.status
        assert status.value is not None
        control = NodeControl(
            store=self._store,
            plane=self._plane,
            feed=self._feed,
            journal=self.journal,
            services=self._reporter.services,
            node_status=status,  # type: ignore[arg-type]  # never None again after the first report
            heir=self._heir,
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

    def _heir(self, group: str, to: str) -> str:
        """KeyError: no such group on this node."""
        role, config = self._election.roles.value[group], self._feed.resolution.value
        assert config is not None  # it has roles
        shared = isinstance(self._store, EtcdStore)
        silent = () if shared else config.config.vip_groups[group].priorities.keys() - self._config.sync.peers.keys()
        others, resting = self._membership.nodes()[1:], config.config.settings.maintenance
        return heir(config.config.vip_groups[group], role, self._config.node, others, silent, to, resting)

    async def _handover(self, group: str, to: str) -> None:
        self._heir(group, to)  # refuses
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
