"""The shipped lab with its real daemons: what a client and an operator see when things are put, die and come back."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from lbnode.lab import observe
from lbnode.lab.demo import CLUSTER, GATEWAYS, SERVERS, VIP, WEB, documents
from lbnode.lab.lab import Lab
from tests.e2e.cluster import configure, probing, put, requests, shipped_lab, until

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.timeout(240)]
RS1 = SERVERS["rs1"][0]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with shipped_lab("cl") as lab:
        lab.up()
        configure(lab)
        yield lab


@pytest.fixture(autouse=True)
def restored(lab: Lab) -> None:
    """Every test gets a whole lab with the first configuration, and gw1 active."""
    for name in lab.project.containers:
        if lab.pid(name) is None:
            lab.power_on(name)
    for name in ("etcd1", "etcd2", "etcd3"):
        lab.wait_healthy(name)
    for key in lab.run("etcd1", ["etcdctl", "get", "--prefix", "--keys-only", f"{CLUSTER}/services/"]).stdout.split():
        if key.removeprefix(f"{CLUSTER}/") not in documents():
            lab.run("etcd1", ["etcdctl", "del", key])
    for node in GATEWAYS:
        until(lambda node=node: observe.in_sync(lab, node), f"{node} is in sync")  # type: ignore[misc]
        until(lambda node=node: observe.role(lab, node) in ("active", "backup"), f"{node} takes part")  # type: ignore[misc]
    configure(lab)


def problems(lab: Lab, node: str) -> str:
    status: Any = observe.api(lab, node, "status")
    return " / ".join(f"{problem['where']} {problem['field']} {problem['message']}" for problem in status["problems"])


def test_page_through_the_vip_and_ui_through_the_published_port(lab: Lab) -> None:
    seen, failed = requests(lab, 12)
    assert failed == 0 and set(seen) == set(SERVERS)
    for node in GATEWAYS:
        port = lab.project.containers[node].ports[0].host_port
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            assert answer.status == 200 and b"lbnode" in answer.read()


def test_weight_changed_by_etcdctl_is_followed_by_both_gateways(lab: Lab) -> None:
    put(lab, f"services/{WEB}/servers/{RS1}:80", {"weight": 0})
    for node in GATEWAYS:
        until(lambda node=node: observe.effective_weights(lab, node, WEB)[RS1] == 0, f"{node} has weight 0")  # type: ignore[misc]
    seen, failed = requests(lab, 12)
    assert failed == 0 and seen["rs1"] == 0
    put(lab, f"services/{WEB}/servers/{RS1}:80", {"weight": 3})
    until(lambda: requests(lab, 6)[0]["rs1"] > 0, "rs1 gets requests again")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (f"services/{WEB}", '{"scheduler": "wrr",', "JSON"),
        (f"services/{WEB}", {"scheduler": "wrr", "sheduler": "rr"}, "sheduler"),
        (f"services/{WEB}/servers/{RS1}:80", {"weight": 5_000_000_000}, "weight"),
        (f"services/{WEB}/servers/{RS1}:81", {"forward": "direct"}, "port"),
        ("services/tcp:192.0.2.11:80/servers/198.51.100.31:80", {"weight": 1}, "service"),
        ("vip-groups/second", {"vrid": 52, "addresses": [f"{VIP}/24"], "priorities": {"gw1": 100}}, VIP),
    ],
    ids=[
        "not-json",
        "unknown-field",
        "weight-out-of-range",
        "direct-other-port",
        "server-without-service",
        "vip-twice",
    ],
)
def test_bad_input_is_named_and_unloads_nothing(lab: Lab, key: str, value: object, told: str) -> None:
    put(lab, key, value)
    try:
        for node in GATEWAYS:
            until(lambda node=node: key in problems(lab, node), f"{node} names {key}")  # type: ignore[misc]
            assert told in problems(lab, node)
        seen, failed = requests(lab, 12)
        assert failed == 0 and set(seen) == set(SERVERS)
        assert observe.holders(lab, VIP) == ("gw1",)
    finally:
        good = documents().get(key)
        if good is None:
            lab.run("etcd1", ["etcdctl", "del", f"{CLUSTER}/{key}"])
        else:
            put(lab, key, good)
    until(lambda: key not in problems(lab, "gw1"), "the problem goes with its cause")


def test_power_cut_of_the_active_gateway_keeps_connections(lab: Lab) -> None:
    with probing(lab, sessions=5) as probe:
        assert probe.ask("sessions")["kept"] == 5
        probe.flows()
        until(lambda: observe.in_sync(lab, "gw2"), "gw2 is in sync")
        lab.power_off("gw1")
        until(lambda: observe.holders(lab, VIP) == ("gw2",), f"gw2 holds {VIP}")
        probe.flows()
        assert probe.ask("sessions") == {"sessions": 5, "kept": 5, "lost": 0, "errors": []}
        lab.power_on("gw1")
        until(lambda: observe.in_sync(lab, "gw1"), "gw1 is in sync")
        assert observe.holders(lab, VIP) == ("gw2",)  # no preemption


def test_clean_stop_hands_over_and_no_connection_fails(lab: Lab) -> None:
    with probing(lab) as probe:
        assert probe.ask("sessions")["lost"] == 0
        probe.flows()
        probe.ask("window")
        lab.stop("gw1")
        until(lambda: observe.holders(lab, VIP) == ("gw2",), f"gw2 holds {VIP}")
        probe.flows()
        assert probe.ask("report")["http"]["failed"] == 0
        assert probe.ask("sessions")["lost"] == 0


def test_all_etcd_members_down(lab: Lab) -> None:
    """Forwarding and failover go on; a gateway that starts meanwhile takes its configuration from its own disk."""
    with probing(lab) as probe:
        for member in ("etcd1", "etcd2", "etcd3"):
            lab.power_off(member)
        until(lambda: not observe.api(lab, "gw1", "status")["store"]["connected"], "gw1 says that the store is gone")
        probe.ask("window")
        probe.flows(200)
        lab.power_off("gw2")
        lab.power_on("gw2")
        until(lambda: observe.effective_weights(lab, "gw2", WEB) == dict(SERVERS.values()), "gw2 serves from its cache")
        until(lambda: observe.in_sync(lab, "gw2"), "gw2 is in sync")
        assert probe.ask("report")["http"]["failed"] == 0
        lab.power_off("gw1")
        until(lambda: observe.holders(lab, VIP) == ("gw2",), f"gw2 holds {VIP}")
        probe.flows()
        assert probe.ask("sessions")["lost"] == 0
    for member in ("etcd1", "etcd2", "etcd3"):
        lab.power_on(member)
    lab.wait_healthy("etcd1")
    put(lab, f"services/{WEB}/servers/{RS1}:80", {"weight": 5})
    until(lambda: observe.effective_weights(lab, "gw2", WEB)[RS1] == 5, "gw2 follows the store again")


def test_maintenance_is_shown_then_done_and_refused_where_nobody_would_take_over(lab: Lab) -> None:
    until(
        lambda: "front: gw1 -> gw2" in lbctl(lab, "maintenance", "on", "--dry-run")[1], "gw1 knows that gw2 is backup"
    )
    assert observe.holders(lab, VIP) == ("gw1",)
    assert "front: gw1 -> gw2\n" in lbctl(lab, "maintenance", "on")[1]
    until(lambda: observe.holders(lab, VIP) == ("gw2",), "gw2 holds the addresses")
    until(lambda: observe.role(lab, "gw1") == "initialize", "gw1 takes no part")
    until(lambda: "maintenance" in lbctl(lab, "election", "front", node="gw2")[1], "gw2 shows why")
    code, text = lbctl(lab, "maintenance", "on", node="gw2")
    assert code == 1 and "nobody would hold what stays; nothing was changed" in text, text
    assert "front: stays at gw2, no other node is backup" in text
    lbctl(lab, "maintenance", "off")
    until(lambda: observe.role(lab, "gw1") == "backup", "gw1 takes part again")
    until(lambda: lbctl(lab, "failover", "front", "--to", "gw3", node="gw2")[0] == 1, "there is no gw3")
    until(lambda: lbctl(lab, "failover", "front", "--to", "gw1", node="gw2")[0] == 0, "gw2 hands over to gw1")
    until(lambda: observe.holders(lab, VIP) == ("gw1",), "gw1 holds the addresses")


def test_metrics_tell_how_late_advertisements_leave(lab: Lab) -> None:
    command = ["curl", "-s", "--unix-socket", "/run/lbnode/api.sock", "http://node/metrics"]

    def sent() -> float | None:
        lines = lab.run("gw1", command).stdout.splitlines()
        found = [line for line in lines if line.startswith('lbnode_vrrp_advert_lateness_seconds_count{group="front"}')]
        return float(found[0].split()[1]) if found else None

    before = until(sent, "the histogram is there")
    until(lambda: (sent() or 0.0) > before + 10, "it grows with each advertisement")


def lbctl(lab: Lab, *arguments: str, node: str = "gw1") -> tuple[int, str]:
    """(exit code, what it printed)"""
    done = lab.run(node, ["lbctl", *arguments], check=False)
    return done.returncode, done.stdout + done.stderr
