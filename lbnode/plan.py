"""plan(): the one place that decides what the data plane should contain; targets(): what is to be checked. Pure.

Services are programmed on every gateway, active or backup: a backup has to forward the moment it takes over. So roles
decide who holds the addresses, not what the data plane contains.

Both functions take their previous result and pass on what did not change; without it they compute everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from healthcheck.spec import Health, Target, Verdict
from lbnode.delta import changed_keys
from lbnode.model import (
    Address,
    Config,
    DropRules,
    ForwardingMethod,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    RealServer,
    Role,
    ServerId,
    ServiceId,
    Settings,
    SyncDaemon,
    VipGroup,
    VirtualService,
    VrrpState,
    WhenAllDown,
    WhenDown,
)
from lbnode.tuning.profile import ipvs_sysctls

NOTHING_FOUND = Programmed()


def leased(groups: Mapping[str, VipGroup], node: str) -> dict[str, frozenset[Address]]:
    """The VIP groups that a node may serve only under a lease, with their addresses: those it shares with others.

    Nobody else would serve a sole member's addresses, so nothing is gained by going dark.
    """
    return {
        name: frozenset(vip.address for vip in group.addresses)
        for name, group in groups.items()
        if node in group.priorities and len(group.priorities) > 1
    }


@dataclass(frozen=True, slots=True, eq=False)
class Desired:
    """What the data plane shall contain. Compared by identity: plan() returns the previous one if nothing differs."""

    revision: int  # of the configuration
    programmed: Programmed
    remove_foreign: bool = False  # True: services of the data plane that no configuration names are removed
    # What it was made of:
    config: Config = field(default_factory=Config, repr=False)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict, repr=False)
    # None: not ours to decide
    sync_daemons: Mapping[str, SyncDaemon] | None = None  # of ip_vs, to run on this node; see sync_daemons()
    sysctls: Mapping[str, str] | None = None  # net.ipv4.vs.*
    drop_rules: DropRules = field(default_factory=DropRules)


def server_name(service_id: ServiceId, server_id: ServerId) -> str:
    """The name of a server behind a service, in verdicts, statuses, journal: 'SERVICE/SERVER'."""
    return f"{service_id}/{server_id}"


def plan(
    config: Config,
    verdicts: Mapping[str, Verdict],
    found: Programmed = NOTHING_FOUND,
    previous: Desired | None = None,
    sync_daemons: Mapping[str, SyncDaemon] | None = None,
    node: str = "",
) -> Desired:
    """Effective weights from configuration and health, full NAT's local addresses from VIP groups and settings.

    verdicts: by 'SERVICE/SERVER'; a server without one, or without a check, counts as up.
    found: what the data plane contained when this process began. As long as the first check of a server has not
        ended, the weight 0 (or the absence) in which an earlier process left it stays: a restart must not send
        connections to a server that is known to be down.
    node: this one.
    """
    if previous is None:
        todo = set(config.services)
        services: dict[ServiceId, ProgrammedService] = {}
    else:
        todo = changed_keys(previous.config.services, config.services)
        todo |= _other_local_addresses(previous.config, config, node)
        for name in changed_keys(previous.verdicts, verdicts):
            if _matters(previous.verdicts.get(name), verdicts.get(name)):
                service_id = ServiceId.parse(name.partition("/")[0])
                if service_id in config.services:
                    todo.add(service_id)
        same = previous.config.settings == config.settings and previous.sync_daemons == sync_daemons
        if not todo and same and previous.revision == config.revision:
            return previous
        services = dict(previous.programmed.services) if todo else {}
    for service_id in todo:
        service = config.services.get(service_id)
        if service is None:
            services.pop(service_id, None)
        else:
            local = _local_addresses(config, service, node)
            services[service_id] = plan_service(service, verdicts, found.services.get(service_id), local)
    programmed = Programmed(
        previous.programmed.services if previous is not None and not todo else services, config.settings.timeouts
    )
    return Desired(
        *(config.revision, programmed, config.settings.foreign_services == "remove", config, verdicts),
        sync_daemons=sync_daemons,
        sysctls=ipvs_sysctls(config.settings.sysctl),
        drop_rules=config.settings.drop,
    )


def sync_daemons(settings: Settings, roles: Iterable[Role], own: SyncDaemon | None = None) -> Mapping[str, SyncDaemon]:
    """Which of ip_vs's sync daemons run on this node: "master" sends its connections, "backup" takes those of others.

    Those of `settings.sync_daemons`, always or, with `by_role`, by the VRRP roles: master while the node is active in
    any VIP group, backup while it is backup in any. So with several groups both may run, on several gateways: each
    sends what it forwards. Without any in the settings, `own` (from the node's [sync]) runs by role in both states.
    """
    wanted = settings.sync_daemons
    if wanted and not settings.sync_by_role:
        return wanted
    if not wanted and own is not None:
        wanted = {"master": own, "backup": own}
    held = {role.state for role in roles}
    states = {"master": VrrpState.ACTIVE, "backup": VrrpState.BACKUP}
    return {name: daemon for name, daemon in wanted.items() if states[name] in held}


def _matters(old: Verdict | None, new: Verdict | None) -> bool:
    return old is None or new is None or old.health is not new.health or old.since != new.since


def _local_addresses(config: Config, service: VirtualService, node: str) -> tuple[Address, ...]:
    """Those of its VIP group, which move with it, so that a peer can go on with the connections; else the node's."""
    group = config.vip_groups.get(service.vip_group or "")
    own = config.settings.local_addresses.get(node, ())
    return (group.local_addresses if group is not None else ()) or own


def _other_local_addresses(before: Config, now: Config, node: str) -> set[ServiceId]:
    """The services that both have, and that get other local addresses."""
    if before.vip_groups is now.vip_groups and before.settings is now.settings:
        return set()
    return {
        service_id
        for service_id, service in now.services.items()
        if any(server.forward is ForwardingMethod.FULLNAT for server in service.servers)
        and _local_addresses(before, service, node) != _local_addresses(now, service, node)
    }


def plan_service(
    service: VirtualService,
    verdicts: Mapping[str, Verdict],
    found: ProgrammedService | None = None,
    local_addresses: tuple[Address, ...] = (),
) -> ProgrammedService:
    down = _down(service, verdicts, found) if service.check is not None else {}
    if service.when_all_down is WhenAllDown.KEEP_LAST:
        could_serve = [server.id for server in service.servers if server.weight > 0 and not server.drain]
        if could_serve and all(server_id in down for server_id in could_serve):
            last = max(down[server_id] for server_id in could_serve)
            for server_id in could_serve:
                if down[server_id] == last:
                    del down[server_id]
    servers = {}
    for server in service.servers:
        if server.id not in down:
            servers[server.id] = _programmed(server, 0 if server.drain else server.weight, local_addresses)
        elif service.when_down is WhenDown.WEIGHT_ZERO or server.drain:
            servers[server.id] = _programmed(server, 0, local_addresses)
    host = 128 if service.id.family == 6 else 32  # the same as None, which is how a data plane tells it
    return ProgrammedService(
        id=service.id,
        scheduler=service.scheduler,
        scheduler_flags=service.scheduler_flags,
        persistent_s=service.persistent_s,
        persistent_netmask=None if service.persistent_netmask == host else service.persistent_netmask,
        persistence_engine=service.persistence_engine,
        one_packet=service.one_packet,
        syn_proxy=service.syn_proxy,
        mss=service.mss,
        access=service.access,
        timeouts=service.timeouts,
        servers=servers,
    )


def _down(
    service: VirtualService, verdicts: Mapping[str, Verdict], found: ProgrammedService | None
) -> dict[ServerId, float]:
    """The servers that are down, and since when (Unix time; 0 = since before this process)."""
    down = {}
    for server in service.servers:
        verdict = verdicts.get(server_name(service.id, server.id))
        if verdict is None or verdict.health is Health.UNKNOWN:
            if found is not None and _left_down(service, server, found):
                down[server.id] = 0.0
        elif verdict.health is Health.DOWN:
            down[server.id] = verdict.since
    return down


def _left_down(service: VirtualService, server: RealServer, found: ProgrammedService) -> bool:
    left = found.servers.get(server.id)
    return service.when_down is WhenDown.REMOVE if left is None else left.weight == 0


def _programmed(server: RealServer, weight: int, local_addresses: tuple[Address, ...]) -> ProgrammedServer:
    full = server.forward is ForwardingMethod.FULLNAT
    family = server.id.address.version
    return ProgrammedServer(
        *(server.id, weight, server.forward, server.upper_threshold, server.lower_threshold, server.tunnel),
        local_addresses=tuple(one for one in local_addresses if one.version == family) if full else (),
        toa=server.toa,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Everything that is to be checked. `tuple(targets)` for the runner."""

    services: Mapping[ServiceId, VirtualService] = field(default_factory=dict, repr=False)
    by_service: Mapping[ServiceId, tuple[Target, ...]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Target]:
        return chain.from_iterable(self.by_service.values())

    def __len__(self) -> int:
        return sum(len(targets) for targets in self.by_service.values())


def targets(config: Config, previous: Targets | None = None) -> Targets:
    """What to check: every server of every service with a check, drained and weight-0 ones too.

    Returns a Targets whose `by_service` is the previous one's if no target differs.
    """
    previous = previous or Targets()
    by_service = dict(previous.by_service)
    touched = False
    for service_id in changed_keys(previous.services, config.services):
        service = config.services.get(service_id)
        now = _service_targets(service) if service is not None else ()
        if now != by_service.get(service_id, ()):
            touched = True
            if now:
                by_service[service_id] = now
            else:
                del by_service[service_id]
    return Targets(config.services, by_service if touched else previous.by_service)


def _service_targets(service: VirtualService) -> tuple[Target, ...]:
    spec = service.check
    if spec is None:
        return ()
    return tuple(
        Target(server_name(service.id, server.id), server.id.address, spec.port or server.id.port, spec)
        for server in service.servers
    )
