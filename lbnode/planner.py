"""Planner: the inputs of plan() are followed, and what it wants is handed on. The driver around the pure plan.py."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from zlib import crc32

from healthcheck.runner import Runner
from healthcheck.spec import Verdict
from lbnode.config.bootstrap import NodeConfig
from lbnode.dataplane.base import DataPlane
from lbnode.election.netlink import interface_of
from lbnode.election.supervisor import Election
from lbnode.errors import DataPlaneError
from lbnode.feed import ConfigFeed
from lbnode.journal import Journal, Kind
from lbnode.model import Config, SyncDaemon, parse_endpoint
from lbnode.plan import Desired, Targets, leased, plan, sync_daemons, targets
from lbnode.reconcile.loop import Reconciler
from lbnode.tracking import Scripts
from lbnode.watched import Watched, changes_of


class Planner:
    """desired: what the data plane should contain, for the reconciler; None until there is a configuration.
    lease_problem: why VIP groups are served without leases; "" = they have them.
    sync_interface: with IPVS, what has the address of [sync] in node.toml."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        feed: ConfigFeed,
        runner: Runner,
        verdicts: Watched[Mapping[str, Verdict]],
        election: Election,
        plane: DataPlane,
        reconciler: Reconciler,
        scripts: Scripts,
        journal: Journal,
    ) -> None:
        self.desired: Watched[Desired | None] = Watched(None)
        self.lease_problem = ""
        self.sync_interface: str | None = None
        self._config = config
        self._feed = feed
        self._runner = runner
        self._verdicts = verdicts
        self._election = election
        self._plane = plane
        self._kind = plane.capabilities().kind
        self._reconciler = reconciler
        self._scripts = scripts
        self._journal = journal

    async def run(self) -> None:
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
            if resolution.config is not config or self.lease_problem:
                config = resolution.config
                await self._set_groups(config)
            daemons = self._sync_daemons(resolution.config)
            desired = plan(resolution.config, self._verdicts.value, found, desired, daemons, self._config.node)
            self.desired.set(desired)

    async def _set_groups(self, config: Config) -> None:
        """The data plane first: it hands out the leases. Without them the election works all the same."""
        groups, leases = config.vip_groups, dict[str, int]()
        before, self.lease_problem = self.lease_problem, ""
        try:
            leases = dict(await self._plane.set_leases(leased(groups, self._config.node)))
        except DataPlaneError as error:
            self.lease_problem = str(error)
        if self.lease_problem not in ("", before):
            self._journal.record(Kind.DATAPLANE, "leases", "could not be set", self.lease_problem)
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
                self.sync_interface = self.sync_interface or interface_of(address)
            if self.sync_interface is not None:
                own = SyncDaemon(self.sync_interface, 1 + crc32(self._config.cluster.encode()) % 255, port=port)
        return sync_daemons(config.settings, self._election.roles.value.values(), own)
