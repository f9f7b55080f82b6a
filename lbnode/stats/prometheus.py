"""/metrics: what a node knows, in Prometheus' text format.

Names follow node_exporter's IPVS collector with lbnode's vocabulary. Every label has as many values as the
configuration has objects, never more (no client addresses, no messages).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from lbnode import alarms
from lbnode.control import NodeStatus, ServerInfo, ServiceInfo
from lbnode.election.figures import BUCKETS_S
from lbnode.model import Counters, Severity, VrrpState
from lbnode.watched import Watched

CONTENT_TYPE = CONTENT_TYPE_LATEST

_VRRP = {VrrpState.INITIALIZE: 0, VrrpState.BACKUP: 1, VrrpState.ACTIVE: 2}
_HEALTH = {"up": 1, "down": 0}  # unknown and unchecked servers have no sample

_TOTALS: tuple[tuple[str, str, Callable[[Counters], int]], ...] = (
    ("connections", "Connections scheduled", lambda c: c.connections),
    ("incoming_packets", "Packets from clients", lambda c: c.packets_in),
    ("outgoing_packets", "Packets to clients (only those that pass the gateway)", lambda c: c.packets_out),
    ("incoming_bytes", "Bytes from clients", lambda c: c.bytes_in),
    ("outgoing_bytes", "Bytes to clients (only those that pass the gateway)", lambda c: c.bytes_out),
)
_GAUGES: tuple[tuple[str, str, Callable[[Counters], int]], ...] = (
    ("connections_active", "Connections in state ESTABLISHED", lambda c: c.active),
    ("connections_inactive", "Tracked connections in any other state", lambda c: c.inactive),
)


class Source(Protocol):
    """The part of lbnode.control.Control that is needed here."""

    services: Watched[tuple[ServiceInfo, ...]]
    node_status: Watched[NodeStatus]


def render(control: Source) -> bytes:
    """The exposition of the node's latest values; serve it as CONTENT_TYPE."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(control.node_status.value, control.services.value))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, status: NodeStatus, services: tuple[ServiceInfo, ...]) -> None:
        self._status = status
        self._services = services

    def describe(self) -> Iterable[Metric]:
        return ()  # spares the registry a collection just to learn the names

    def collect(self) -> Iterator[Metric]:
        yield from _node(self._status)
        yield from _dataplane(self._status)
        yield from _sync(self._status)
        yield from _services(self._services)
        yield from _servers([(service.id, server) for service in self._services for server in service.servers])


def _node(status: NodeStatus) -> Iterator[Metric]:
    build = InfoMetricFamily("lbnode_build", "Version of lbnode on this node", labels=["node", "cluster"])
    build.add_metric([status.node, status.cluster], {"version": status.version})
    yield build
    yield GaugeMetricFamily("lbnode_start_time_seconds", "Unix time at which the daemon started", status.started)
    yield GaugeMetricFamily("lbnode_status_time_seconds", "Unix time at which these figures were true", status.time)

    revision = GaugeMetricFamily(
        "lbnode_config_revision",
        "Store revision: the latest seen, and the latest that is completely in the data plane",
        labels=["kind"],
    )
    revision.add_metric(["latest"], status.revision)
    revision.add_metric(["programmed"], status.programmed_revision)
    yield revision

    store = GaugeMetricFamily("lbnode_store_connected", "1 if the configuration store answers", labels=["kind"])
    store.add_metric([status.store.kind], int(status.store.connected))
    yield store

    count = Counter(problem.severity for problem in status.problems)
    problems = GaugeMetricFamily("lbnode_problems", "Problems found in the configuration", labels=["severity"])
    for severity in Severity:
        problems.add_metric([severity], count[severity])
    yield problems

    vrrp = GaugeMetricFamily(
        "lbnode_vrrp_state", "State of the VIP group: 0 Initialize, 1 Backup, 2 Active", labels=["group"]
    )
    for role in status.roles:
        vrrp.add_metric([role.group], _VRRP[role.state])
    yield vrrp

    late = HistogramMetricFamily(
        "lbnode_vrrp_advert_lateness_seconds", "How long after its time an advertisement left", labels=["group"]
    )
    for one in status.adverts:
        totals = list(accumulate(one.late))
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        late.add_metric([one.group], list(zip(bounds, totals, strict=True)), one.late_s)
    yield late

    dropped = CounterMetricFamily(
        "lbnode_vrrp_dropped_packets", "VRRP packets and heartbeats refused", labels=["interface", "reason"]
    )
    for packets in status.vrrp_dropped:
        dropped.add_metric([packets.interface, packets.reason], packets.count)
    yield dropped


def _dataplane(status: NodeStatus) -> Iterator[Metric]:
    plane = status.dataplane
    yield GaugeMetricFamily("lbnode_connection_table_entries", "Connections being tracked", plane.connections)
    yield GaugeMetricFamily("lbnode_connection_table_size", "Connections that can be tracked", plane.connections_max)
    yield GaugeMetricFamily(
        "lbnode_connection_table_alarm",
        "1 from 80 % of the table on, or while it refuses connections, until it is below 70 %",
        int(any((problem.where, problem.field) == alarms.TABLE for problem in status.problems)),
    )
    drops = CounterMetricFamily("lbnode_dataplane_drops", "Packets dropped by the data plane", labels=["reason"])
    for reason, packets in sorted(plane.drops.items()):
        drops.add_metric([reason], packets)
    yield drops
    events = CounterMetricFamily(
        "lbnode_dataplane_events",
        "What the data plane counts beside packets dropped",
        labels=["event"],
    )
    for event, packets in sorted(plane.events.items()):
        events.add_metric([event], packets)
    yield events
    failures = CounterMetricFamily(
        "lbnode_connection_insert_failures",
        "New connections without room in the table: dropped, or forwarded by hash without an entry (untracked)",
        labels=["outcome"],
    )
    for outcome, found in (("dropped", plane.drops.get("table-full")), ("untracked", plane.events.get("untracked"))):
        if found is not None:
            failures.add_metric([outcome], found)
    yield failures
    load = CounterMetricFamily("lbnode_cpu_packets", "Packets of balanced connections by CPU", labels=["cpu"])
    for cpu, packets in enumerate(plane.cpu_packets):
        load.add_metric([str(cpu)], packets)
    yield load
    half_open = GaugeMetricFamily(
        "lbnode_service_half_open_connections",
        "TCP connections that no packet of the client has confirmed yet, of services with syn_proxy",
        labels=["service"],
    )
    flooded = GaugeMetricFamily(
        "lbnode_service_syn_flood", "1 while SYNs are answered with cookies", labels=["service"]
    )
    for proxy in plane.syn_proxies:
        half_open.add_metric([proxy.service], proxy.half_open)
        flooded.add_metric([proxy.service], int(proxy.flooded))
    yield from (half_open, flooded)
    leases = GaugeMetricFamily(
        "lbnode_vip_lease_seconds", "Until the node stops serving the VIP group; 0 or less: it has", labels=["group"]
    )
    for lease in plane.leases:
        leases.add_metric([lease.group], 0 if lease.remaining_s is None else lease.remaining_s)
    yield leases


def _sync(status: NodeStatus) -> Iterator[Metric]:
    in_sync = GaugeMetricFamily(
        "lbnode_sync_in_sync", "1 if the peer has all of this node's connections", labels=["peer"]
    )
    lag = GaugeMetricFamily(
        "lbnode_sync_lag_seconds", "Age of the oldest connection record the peer has not acknowledged", labels=["peer"]
    )
    sent = CounterMetricFamily("lbnode_sync_sent_records", "Connection records sent", labels=["peer"])
    received = CounterMetricFamily("lbnode_sync_received_records", "Connection records received", labels=["peer"])
    bad = CounterMetricFamily(
        "lbnode_sync_bad_datagrams", "Datagrams refused: malformed, forged or replayed", labels=["peer"]
    )
    refused = CounterMetricFamily(
        "lbnode_sync_refused_records",
        "Connection records refused: of an older epoch of their VIP group",
        labels=["peer"],
    )
    for peer in status.sync:
        in_sync.add_metric([peer.name], int(peer.state == "in-sync"))
        lag.add_metric([peer.name], peer.lag_s)
        sent.add_metric([peer.name], peer.sent_records)
        received.add_metric([peer.name], peer.received_records)
        bad.add_metric([peer.name], peer.bad_datagrams)
        refused.add_metric([peer.name], peer.refused_records)
    yield from (in_sync, lag, sent, received, bad, refused)


def _services(services: tuple[ServiceInfo, ...]) -> Iterator[Metric]:
    yield from _counters("service", "of the virtual service", ["service"], [([s.id], s.counters) for s in services])
    yield from _admissions(services)
    yield from _limits(services)


def _admissions(services: Iterable[ServiceInfo]) -> Iterator[Metric]:
    refused = CounterMetricFamily(
        "lbnode_service_refused_packets",
        "Packets that would have opened a connection to the virtual service, but were dropped",
        labels=["service", "reason"],
    )
    cookies = CounterMetricFamily(
        "lbnode_service_syn_cookies",
        "SYNs answered with a SYN cookie, ACKs that brought a valid one, and ACKs without, while some are out",
        labels=["service", "outcome"],
    )
    clamped = CounterMetricFamily(
        "lbnode_service_mss_clamped_packets", "SYN and SYN-ACK whose MSS was more than `mss`", labels=["service"]
    )
    for service in services:
        counted = service.admission
        if counted is None:
            continue
        for reason, packets in counted.refused.items():
            refused.add_metric([service.id, reason], packets)
        cookies.add_metric([service.id, "sent"], counted.cookies_sent)
        cookies.add_metric([service.id, "accepted"], counted.cookies_accepted)
        cookies.add_metric([service.id, "refused"], counted.cookies_refused)
        clamped.add_metric([service.id], counted.mss_clamped)
    yield from (refused, cookies, clamped)


def _limits(services: Iterable[ServiceInfo]) -> Iterator[Metric]:
    """Only of services that have them. The prefixes themselves would be labels without end: the document has them."""
    prefixes = GaugeMetricFamily(
        "lbnode_service_prefixes", "Prefixes in the virtual service's list", labels=["service", "list"]
    )
    rate = GaugeMetricFamily(
        "lbnode_service_new_connections_limit", "New connections per second from each source", labels=["service"]
    )
    burst = GaugeMetricFamily(
        "lbnode_service_new_connections_burst", "New connections at once from each source", labels=["service"]
    )
    half_open = GaugeMetricFamily(
        "lbnode_service_half_open_limit",
        "Half-open connections from which on SYNs are answered with cookies",
        labels=["service"],
    )
    for service in services:
        limits = service.limits
        for name, length in (("allow", limits.allow), ("deny", limits.deny)):
            if length:
                prefixes.add_metric([service.id, name], length)
        if limits.new_connections is not None:
            rate.add_metric([service.id], limits.new_connections.rate)
            burst.add_metric([service.id], limits.new_connections.burst)
        if limits.syn_proxy is not None:
            half_open.add_metric([service.id], limits.syn_proxy)
    yield from (prefixes, rate, burst, half_open)


def _servers(servers: list[tuple[str, ServerInfo]]) -> Iterator[Metric]:
    labels = ["service", "server"]
    counted = [([service, server.id], server.counters) for service, server in servers]
    yield from _counters("server", "of the real server", labels, counted)

    configured = GaugeMetricFamily("lbnode_server_weight_configured", "Weight the operator wrote", labels=labels)
    effective = GaugeMetricFamily("lbnode_server_weight_effective", "Weight in the data plane", labels=labels)
    health = GaugeMetricFamily("lbnode_server_health", "Verdict of the health checks: 1 up, 0 down", labels=labels)
    for service, server in servers:
        configured.add_metric([service, server.id], server.configured_weight)
        if server.effective_weight is not None:
            effective.add_metric([service, server.id], server.effective_weight)
        if server.health in _HEALTH:
            health.add_metric([service, server.id], _HEALTH[server.health])
    yield from (configured, effective, health)


def _counters(kind: str, of: str, labels: list[str], rows: list[tuple[list[str], Counters]]) -> Iterator[Metric]:
    for name, text, value in _TOTALS:
        family = CounterMetricFamily(f"lbnode_{kind}_{name}", f"{text}, {of}", labels=labels)
        for values, counters in rows:
            family.add_metric(values, value(counters))
        yield family
    for name, text, value in _GAUGES:
        gauge = GaugeMetricFamily(f"lbnode_{kind}_{name}", f"{text}, {of}", labels=labels)
        for values, counters in rows:
            gauge.add_metric(values, value(counters))
        yield gauge
