"""overview(): what CLI, UI and metrics show of the services, joined from all parts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from healthcheck.spec import CheckSpec, Health, Verdict
from lbnode.control import AccessLimits, ServerInfo, ServiceInfo
from lbnode.model import (
    Access,
    Config,
    Counters,
    Network,
    ObjectStatus,
    Programmed,
    ProgrammedService,
    Rates,
    RealServer,
    ServerId,
    ServiceCounters,
    ServiceId,
    VirtualService,
    WhenDown,
)

NO_RATES = Rates()
NO_COUNTERS = Counters()
SHOWN_PREFIXES = 3  # of each list, in the line about a service


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the overview is made of; each part is the latest value of its owner."""

    config: Config = field(default_factory=Config)
    actual: Programmed = field(default_factory=Programmed)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    statuses: Mapping[str, ObjectStatus] = field(default_factory=dict)
    counters: Mapping[ServiceId, ServiceCounters] = field(default_factory=dict)
    service_rates: Mapping[ServiceId, Rates] = field(default_factory=dict)
    server_rates: Mapping[tuple[ServiceId, ServerId], Rates] = field(default_factory=dict)
    history: Mapping[ServiceId, Sequence[float]] = field(default_factory=dict)  # connections/s, oldest first


def overview(facts: Facts) -> tuple[ServiceInfo, ...]:
    """All configured services, then foreign ones that only the data plane has, each group sorted by id."""
    configured = sorted(facts.config.services.values(), key=lambda service: service.id.sort_key())
    foreign = sorted(
        (service for key, service in facts.actual.services.items() if key not in facts.config.services),
        key=lambda service: service.id.sort_key(),
    )
    return (
        *(_configured(service, facts) for service in configured),
        *(_foreign(service, facts) for service in foreign),
    )


def describe_check(check: CheckSpec | None) -> str:
    """One line for people: `http GET / every 2s, rise 2, fall 3`."""
    if check is None:
        return ""
    what = str(check.type)
    if check.http is not None:
        what += f" {check.http.method} {check.http.host}{check.http.path}"
    if check.dns is not None:
        what += f" {check.dns.name} {check.dns.type}"
    if check.udp is not None:
        what += "" if check.udp.reply is None else f" reply {check.udp.reply or 'any'}"
    if check.script is not None:
        what += f" {' '.join((check.script.path, *check.script.arguments))}"
    port = f" port {check.port}" if check.port else ""
    return f"{what}{port} every {check.interval_s:g}s, rise {check.rise}, fall {check.fall}"


def describe_access(access: Access, syn_proxy: int | None) -> str:
    """One line for people: `deny 203.0.113.0/24, 10 new/s per /32, burst 20, SYN cookies from 1000 half-open on`."""
    parts = [f"{word} {_some(found)}" for word, found in (("allow", access.allow), ("deny", access.deny)) if found]
    if access.rate is not None:
        parts.append(f"{access.rate.rate} new/s per /{access.rate.prefix_len}, burst {access.rate.burst}")
    if syn_proxy is not None:
        parts.append(f"SYN cookies from {syn_proxy} half-open on" if syn_proxy else "SYN cookies always")
    return ", ".join(parts)


def limits_of(access: Access, syn_proxy: int | None) -> AccessLimits:
    return AccessLimits(len(access.allow), len(access.deny), access.rate, syn_proxy)


def _some(networks: Iterable[Network]) -> str:
    """The first ones, and how many more."""
    texts = [str(network) for network in sorted(networks, key=lambda one: (one.version, one.network_address, one))]
    more = f" and {len(texts) - SHOWN_PREFIXES} more" if len(texts) > SHOWN_PREFIXES else ""
    return " ".join(texts[:SHOWN_PREFIXES]) + more


def service_state(servers: Iterable[ServerInfo], *, refused: bool = False) -> str:
    """ok: every server takes connections or was taken out on purpose; down: none takes any; else degraded.

    A service whose newest parameters the data plane `refused` goes on with the former ones: degraded, not down.
    """
    servers = tuple(servers)
    if not any(server.effective_weight for server in servers):
        return "down"
    failed = refused or any(server.health == Health.DOWN or server.status.startswith("error") for server in servers)
    return "degraded" if failed else "ok"


def _configured(service: VirtualService, facts: Facts) -> ServiceInfo:
    actual = facts.actual.services.get(service.id)
    counters = facts.counters.get(service.id)
    servers = tuple(_server(service, server, actual, counters, facts) for server in service.servers)
    status = facts.statuses.get(str(service.id))
    return ServiceInfo(
        id=str(service.id),
        scheduler=service.scheduler,
        scheduler_flags=tuple(sorted(service.scheduler_flags)),
        persistent_s=service.persistent_s,
        persistent_netmask=service.persistent_netmask,
        persistence_engine=service.persistence_engine,
        one_packet=service.one_packet,
        vip_group=service.vip_group,
        check=describe_check(service.check),
        state=service_state(servers, refused=status is not None and bool(status.error)),
        counters=counters.total if counters else NO_COUNTERS,
        rates=facts.service_rates.get(service.id, NO_RATES),
        status=str(status) if status else "pending",
        servers=servers,
        history=tuple(facts.history.get(service.id, ())),
        effective_scheduler=actual.scheduler if actual else None,
        access=describe_access(service.access, service.syn_proxy),
        limits=limits_of(service.access, service.syn_proxy),
        admission=counters.admission if counters else None,
    )


def _server(
    service: VirtualService,
    server: RealServer,
    actual: ProgrammedService | None,
    counters: ServiceCounters | None,
    facts: Facts,
) -> ServerInfo:
    key = f"{service.id}/{server.id}"
    programmed = actual.servers.get(server.id) if actual else None
    verdict = facts.verdicts.get(key)
    status = facts.statuses.get(key)
    if verdict is not None:
        health = str(verdict.health)
    else:
        health = "unchecked" if service.check is None else str(Health.UNKNOWN)
    return ServerInfo(
        id=str(server.id),
        forward=str(server.forward),
        configured_weight=server.weight,
        effective_weight=programmed.weight if programmed else None,
        drain=server.drain,
        health=health,
        health_reason=verdict.reason if verdict else "",
        health_since=verdict.since if verdict else 0.0,
        last_checked=verdict.last_checked if verdict else 0.0,
        counters=counters.servers.get(server.id, NO_COUNTERS) if counters else NO_COUNTERS,
        rates=facts.server_rates.get((service.id, server.id), NO_RATES),
        status=str(status) if status else _not_programmed(service, verdict, facts),
        upper_threshold=server.upper_threshold,
        lower_threshold=server.lower_threshold,
        tunnel=server.tunnel,
    )


def _not_programmed(service: VirtualService, verdict: Verdict | None, facts: Facts) -> str:
    """Why a server that has no status of its own is not in the data plane."""
    if verdict is not None and verdict.health is Health.DOWN and service.when_down is WhenDown.REMOVE:
        return "removed while down"
    parent = facts.statuses.get(str(service.id))
    return "waiting for its service" if parent is not None and parent.error else "pending"


def _foreign(service: ProgrammedService, facts: Facts) -> ServiceInfo:
    counters = facts.counters.get(service.id)
    servers = tuple(
        ServerInfo(
            id=str(server.id),
            forward=str(server.forward),
            configured_weight=server.weight,
            effective_weight=server.weight,
            drain=False,
            health="unchecked",
            health_reason="",
            health_since=0.0,
            last_checked=0.0,
            counters=counters.servers.get(server.id, NO_COUNTERS) if counters else NO_COUNTERS,
            rates=facts.server_rates.get((service.id, server.id), NO_RATES),
            status="foreign",
            upper_threshold=server.upper_threshold,
            lower_threshold=server.lower_threshold,
            tunnel=server.tunnel,
        )
        for server in sorted(service.servers.values(), key=lambda server: server.id.sort_key())
    )
    return ServiceInfo(
        id=str(service.id),
        scheduler=service.scheduler,
        scheduler_flags=tuple(sorted(service.scheduler_flags)),
        persistent_s=service.persistent_s,
        persistent_netmask=service.persistent_netmask,
        persistence_engine=service.persistence_engine,
        one_packet=service.one_packet,
        vip_group=None,
        check="",
        state="foreign",
        counters=counters.total if counters else NO_COUNTERS,
        rates=facts.service_rates.get(service.id, NO_RATES),
        status="foreign",
        servers=servers,
        foreign=True,
        effective_scheduler=service.scheduler,
        access=describe_access(service.access, service.syn_proxy),
        limits=limits_of(service.access, service.syn_proxy),
        admission=counters.admission if counters else None,
        history=tuple(facts.history.get(service.id, ())),
    )
