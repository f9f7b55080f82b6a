"""The composed daemon on a real etcd: changes by etcdctl, a wrong password, outages, a start without any member."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.etcd_cluster import EtcdCluster
from tests.node.daemon import Daemon, until

pytestmark = pytest.mark.etcd
WEB = "tcp:192.0.2.10:80"
PREFIX = "/lbnode/test/"


def toml(cluster: EtcdCluster, **more: str) -> str:
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    return f"[store]\netcd = {json.dumps(cluster.endpoints)}\n{lines}"


def put(cluster: EtcdCluster, key: str, document: object) -> None:
    cluster.ctl("put", PREFIX + key, document if isinstance(document, str) else json.dumps(document))


def weight(daemon: Daemon) -> int | None:
    service = daemon.service(WEB)
    return service["servers"][0]["effective_weight"] if service and service["servers"] else None


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    (tmp_path / "etcd").mkdir()
    with EtcdCluster(tmp_path / "etcd", members=3) as cluster:
        yield cluster


@pytest.fixture
def daemon(tmp_path: Path, cluster: EtcdCluster) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "gw1", toml=toml(cluster))
    daemon.start()
    yield daemon
    daemon.close()


def configure(cluster: EtcdCluster, value: int) -> None:
    put(cluster, f"services/{WEB}", {"scheduler": "wrr"})
    put(cluster, f"services/{WEB}/servers/198.51.100.31:80", {"weight": value})


def test_two_nodes_follow_etcdctl_and_see_each_other(tmp_path: Path, cluster: EtcdCluster, daemon: Daemon) -> None:
    other = Daemon(tmp_path / "gw2", node="gw2", toml=toml(cluster))
    try:
        other.start()
        configure(cluster, 5)
        for node in (daemon, other):
            until(lambda node=node: weight(node) == 5, "programmed on both")
        assert daemon.run("lbctl", "weight", "198.51.100.31:80", "6").returncode == 0
        for node in (daemon, other):
            until(lambda node=node: weight(node) == 6, "lbctl's change is programmed on both")
        names = until(lambda: [n["name"] for n in daemon.status()["nodes"] if n["reachable"]][1:], "the other node")
        assert names == ["gw2"]
        other.stop(signal.SIGKILL)
        until(lambda: not daemon.status()["nodes"][1]["reachable"], "a dead node is shown as unreachable")
    finally:
        other.close()


def test_outage_of_all_members_and_a_restart_meanwhile(cluster: EtcdCluster, daemon: Daemon) -> None:
    configure(cluster, 5)
    until(lambda: weight(daemon) == 5, "programmed")
    cluster.stop_all()
    until(lambda: not daemon.status()["store"]["connected"], "the outage is shown")
    assert weight(daemon) == 5
    assert daemon.run("lbctl", "weight", "198.51.100.31:80", "6").returncode == 1
    daemon.stop(signal.SIGKILL)
    daemon.start()
    until(lambda: weight(daemon) == 5, "programmed from the disk cache")
    assert any(event["message"] == "taken from the disk cache" for event in daemon.events())
    cluster.heal()
    until(lambda: daemon.status()["store"]["connected"], "connected again")
    put(cluster, f"services/{WEB}/servers/198.51.100.31:80", {"weight": 7})
    until(lambda: weight(daemon) == 7, "changes are followed again")


def test_a_bad_value_survives_a_restart_without_unloading(cluster: EtcdCluster, daemon: Daemon) -> None:
    configure(cluster, 5)
    until(lambda: weight(daemon) == 5, "programmed")
    put(cluster, f"services/{WEB}/servers/198.51.100.31:80", '{"weight": ')
    until(lambda: daemon.status()["problems"], "reported")
    daemon.stop(signal.SIGKILL)
    daemon.start()
    until(lambda: daemon.status()["problems"], "reported again")
    until(lambda: weight(daemon) == 5, "the last good value is in force")


def test_a_wrong_password_is_named_and_the_right_one_heals(tmp_path: Path, cluster: EtcdCluster) -> None:
    configure(cluster, 5)
    cluster.enable_auth("lb", "right", PREFIX)
    daemon = Daemon(tmp_path / "gw1", toml=toml(cluster, user="lb", password="s3cret-typo"))
    try:
        daemon.start()
        problem = until(
            lambda: "'lb'" in daemon.status()["store"]["problem"] and daemon.status()["store"]["problem"],
            "the problem names the user",
        )
        assert "password" in problem
        assert "s3cret-typo" not in daemon.text()
        shown = daemon.run("lbctl", "status").stdout
        assert "NOT CONNECTED" in shown
        assert daemon.stop() == 0
        daemon = Daemon(tmp_path / "gw1", toml=toml(cluster, user="lb", password="right"))
        daemon.start()
        until(lambda: weight(daemon) == 5, "programmed with the right password")
    finally:
        daemon.close()
