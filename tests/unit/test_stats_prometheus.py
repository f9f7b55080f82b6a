"""/metrics, read back with Prometheus' own parser."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from prometheus_client.parser import text_string_to_metric_families

from lbnode.alarms import TableAlarm
from lbnode.control import AccessLimits, NodeStatus, ServerInfo, ServiceInfo
from lbnode.dataplane.base import LeaseStatus, PlaneStatus
from lbnode.election.figures import AdvertFigures, DroppedPackets
from lbnode.model import Admission, ConnectionRate, Counters, Problem, Rates, Role, Severity, VrrpState
from lbnode.stats.prometheus import CONTENT_TYPE, Source, render
from lbnode.store.base import StoreHealth
from lbnode.sync.status import SyncPeerInfo
from lbnode.watched import Watched

SERVER = ServerInfo(
    id="198.51.100.1:80",
    forward="masquerade",
    configured_weight=5,
    effective_weight=0,
    drain=True,
    health="up",
    health_reason="",
    health_since=0.0,
    last_checked=0.0,
    counters=Counters(7, 70, 71, 700, 701, 3, 4),
    rates=Rates(),
    status="programmed at revision 4",
)
SERVICE = ServiceInfo(
    id="tcp:192.0.2.10:80",
    scheduler="wrr",
    scheduler_flags=(),
    persistent_s=0,
    persistent_netmask=None,
    one_packet=False,
    vip_group="front",
    check="",
    state="ok",
    counters=Counters(2**53 - 1, 20, 21, 200, 201, 5, 6),
    rates=Rates(),
    status="programmed at revision 4",
    limits=AccessLimits(deny=3, new_connections=ConnectionRate(10, 20, 24), syn_proxy=0),
    admission=Admission({"denied": 31, "no-server": 0}, 40, 38, 1, 7),
    servers=(
        SERVER,
        replace(SERVER, id="198.51.100.2:80", health="down", effective_weight=None),
        replace(SERVER, id="198.51.100.3:80", health="unchecked", effective_weight=5),
    ),
)
STATUS = NodeStatus(
    node="gw1",
    cluster='we"ird\\name\n',
    version="0.1.0",
    started=1000.0,
    store=StoreHealth("etcd", connected=False, endpoint="", since=0.0, problem="no answer"),
    revision=12,
    programmed_revision=11,
    dataplane=PlaneStatus(
        "xdp",
        (),
        30,
        1000,
        {"table-full": 9, "no-route": 0},
        adopted=False,
        events={"untracked": 4, "evicted": 2},
        cpu_packets=(70, 0),
        leases=(LeaseStatus("front", 0.18), LeaseStatus("back", -3.0), LeaseStatus("broken", None)),
    ),
    roles=(
        Role("front", VrrpState.ACTIVE, 250, 0.0, ""),
        Role("back", VrrpState.BACKUP, 150, 0.0, ""),
        Role("broken", VrrpState.INITIALIZE, 150, 0.0, ""),
    ),
    sync=(SyncPeerInfo("gw2", "203.0.113.2:1", "in-sync", 100, 50, 0.25, bad_datagrams=2, refused_records=3),),
    nodes=(),
    problems=(
        Problem("services/x", "", "wrong"),
        Problem("services/y", "", "odd", severity=Severity.WARNING),
    ),
    time=2000.0,
)


def samples(
    status: NodeStatus = STATUS, services: tuple[ServiceInfo, ...] = (SERVICE,)
) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names) -> value; two samples with the same identity are an error."""
    source = cast(Source, SimpleNamespace(services=Watched(services), node_status=Watched(status)))
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(render(source).decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            identity = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert identity not in found
            found[identity] = sample.value
    return found


def test_every_figure_comes_back() -> None:
    found = samples()
    service, server = SERVICE.id, SERVER.id
    expected: dict[tuple[str, ...], float] = {
        ("lbnode_build_info", STATUS.cluster, "gw1", "0.1.0"): 1,
        ("lbnode_start_time_seconds",): 1000,
        ("lbnode_status_time_seconds",): 2000,
        ("lbnode_config_revision", "latest"): 12,
        ("lbnode_vip_lease_seconds", "front"): 0.18,
        ("lbnode_vip_lease_seconds", "back"): -3,
        ("lbnode_vip_lease_seconds", "broken"): 0,
        ("lbnode_config_revision", "programmed"): 11,
        ("lbnode_store_connected", "etcd"): 0,
        ("lbnode_problems", "error"): 1,
        ("lbnode_problems", "warning"): 1,
        ("lbnode_vrrp_state", "front"): 2,
        ("lbnode_vrrp_state", "back"): 1,
        ("lbnode_vrrp_state", "broken"): 0,
        ("lbnode_connection_table_entries",): 30,
        ("lbnode_connection_table_size",): 1000,
        ("lbnode_connection_table_alarm",): 0,
        ("lbnode_dataplane_drops_total", "table-full"): 9,
        ("lbnode_dataplane_drops_total", "no-route"): 0,
        ("lbnode_dataplane_events_total", "evicted"): 2,
        ("lbnode_dataplane_events_total", "untracked"): 4,
        ("lbnode_connection_insert_failures_total", "dropped"): 9,
        ("lbnode_connection_insert_failures_total", "untracked"): 4,
        ("lbnode_cpu_packets_total", "0"): 70,
        ("lbnode_cpu_packets_total", "1"): 0,
        ("lbnode_sync_in_sync", "gw2"): 1,
        ("lbnode_sync_lag_seconds", "gw2"): 0.25,
        ("lbnode_sync_sent_records_total", "gw2"): 100,
        ("lbnode_sync_received_records_total", "gw2"): 50,
        ("lbnode_sync_bad_datagrams_total", "gw2"): 2,
        ("lbnode_sync_refused_records_total", "gw2"): 3,
        ("lbnode_service_connections_total", service): 2**53 - 1,
        ("lbnode_service_incoming_packets_total", service): 20,
        ("lbnode_service_outgoing_packets_total", service): 21,
        ("lbnode_service_incoming_bytes_total", service): 200,
        ("lbnode_service_outgoing_bytes_total", service): 201,
        ("lbnode_service_connections_active", service): 5,
        ("lbnode_service_connections_inactive", service): 6,
        ("lbnode_service_refused_packets_total", "denied", service): 31,
        ("lbnode_service_refused_packets_total", "no-server", service): 0,
        ("lbnode_service_syn_cookies_total", "sent", service): 40,
        ("lbnode_service_syn_cookies_total", "accepted", service): 38,
        ("lbnode_service_syn_cookies_total", "refused", service): 1,
        ("lbnode_service_mss_clamped_packets_total", service): 7,
        ("lbnode_service_prefixes", "deny", service): 3,
        ("lbnode_service_new_connections_limit", service): 10,
        ("lbnode_service_new_connections_burst", service): 20,
        ("lbnode_service_half_open_limit", service): 0,
        ("lbnode_server_connections_total", server, service): 7,
        ("lbnode_server_incoming_packets_total", server, service): 70,
        ("lbnode_server_outgoing_packets_total", server, service): 71,
        ("lbnode_server_incoming_bytes_total", server, service): 700,
        ("lbnode_server_outgoing_bytes_total", server, service): 701,
        ("lbnode_server_connections_active", server, service): 3,
        ("lbnode_server_connections_inactive", server, service): 4,
        ("lbnode_server_weight_configured", server, service): 5,
        ("lbnode_server_weight_effective", server, service): 0,
        ("lbnode_server_health", server, service): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    others = {key for key in found if key not in expected}
    assert all("198.51.100.1:80" not in key and "lbnode_server" in key[0] for key in others), others


def test_the_tables_alarm_is_that_of_the_problems() -> None:
    """Whoever is called by it need not know at which fill it begins and ends."""
    plane = replace(STATUS.dataplane, connections=800, drops={})
    _, problem = TableAlarm().look(plane)
    assert problem is not None
    full = replace(STATUS, dataplane=plane, problems=(*STATUS.problems, problem))
    assert samples(full)["lbnode_connection_table_alarm",] == 1


def test_what_a_data_plane_does_not_count_or_a_service_does_not_limit_has_no_sample() -> None:
    found = samples(services=(replace(SERVICE, admission=None, limits=AccessLimits()),))
    names = {key[0].removeprefix("lbnode_service_") for key in found if key[0].startswith("lbnode_service_")}
    assert not [name for name in names if name.startswith(("refused", "syn_", "mss", "prefixes", "new_", "half_"))]


def test_unknown_values_have_no_sample() -> None:
    found = samples()
    assert found["lbnode_server_health", "198.51.100.2:80", SERVICE.id] == 0
    assert ("lbnode_server_weight_effective", "198.51.100.2:80", SERVICE.id) not in found
    assert ("lbnode_server_health", "198.51.100.3:80", SERVICE.id) not in found


def test_a_node_without_anything_still_answers() -> None:
    bare = replace(STATUS, roles=(), sync=(), problems=(), dataplane=replace(STATUS.dataplane, drops={}, events={}))
    found = samples(bare, ())
    assert found["lbnode_problems", "error"] == 0
    assert not [key for key in found if key[0].startswith("lbnode_connection_insert")]
    assert not [key for key in found if key[0].startswith(("lbnode_server", "lbnode_service", "lbnode_sync"))]
    assert CONTENT_TYPE.startswith("text/plain")


def test_lateness_of_advertisements_is_a_histogram_and_drops_have_their_reason() -> None:
    figures = AdvertFigures("front", (5, 0, 2, 0, 0, 0, 0, 0, 1), 0.5)
    found = samples(replace(STATUS, adverts=(figures,), vrrp_dropped=(DroppedPackets("eth0", "checksum", 3),)))
    late = "lbnode_vrrp_advert_lateness_seconds"
    assert found[f"{late}_bucket", "front", "0.0001"] == 5
    assert found[f"{late}_bucket", "front", "0.001"] == 7
    assert found[f"{late}_bucket", "front", "+Inf"] == found[f"{late}_count", "front"] == 8
    assert found[f"{late}_sum", "front"] == 0.5
    assert found["lbnode_vrrp_dropped_packets_total", "eth0", "checksum"] == 3
