"""Restart and SIGKILL of lbnoded: a restart moves nothing. Beside a peer the VIP moves when nobody restarts it, or what
was started hangs, and is never held twice; alone, not a packet is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.lab import observe
from lbnode.lab.demo import CLUSTER, GATEWAYS, VIP, WEB
from lbnode.lab.lab import Lab
from tests.e2e.cluster import HolderWatch, Probe, configure, daemon, hung_daemon, probing, shipped_lab, until

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.timeout(240)]
IDLE = ["sleep", "infinity"]

SINGLE = """
networks:
  front: {ipam: {config: [{subnet: 192.0.2.0/24}]}}
  back: {ipam: {config: [{subnet: 198.51.100.0/24}]}}
services:
  gw1:
    init: true
    privileged: true
    command: [sleep, infinity]
    sysctls: {net.ipv4.ip_forward: 1, net.ipv4.conf.all.rp_filter: 0}
    networks: {front: {ipv4_address: 192.0.2.2}, back: {ipv4_address: 198.51.100.2}}
    volumes: ["./node.toml:/etc/lbnode/node.toml:ro"]
  rs1: &server
    init: true
    cap_add: [NET_ADMIN]
    command: python3 -m lbnode.lab.realserver --gateway 198.51.100.2 --http 80 --udp-echo 7 --tcp-echo 2222
    networks: {back: {ipv4_address: 198.51.100.31}}
  rs2:
    <<: *server
    networks: {back: {ipv4_address: 198.51.100.32}}
  client:
    init: true
    command: [sleep, infinity]
    networks: {front: {ipv4_address: 192.0.2.100}}
"""


def epoch_of(lab: Lab, node: str) -> int | None:
    """Of the VIP group's owner in etcd, if that is this node."""
    text = lab.run("etcd1", ["etcdctl", "get", "--print-value-only", f"{CLUSTER}/owners/front"]).stdout
    document = json.loads(text) if text.strip() else None
    return int(document["epoch"]) if document and document["node"] == node else None


def test_beside_a_peer_a_restart_moves_nothing_and_a_kill_moves_the_vip_and_both_never_hold_it() -> None:
    with shipped_lab("kl", commands=dict.fromkeys(GATEWAYS, IDLE)) as lab:
        lab.up()
        with daemon(lab, "gw1") as kill, daemon(lab, "gw2"):
            configure(lab)
            with probing(lab) as probe:
                assert probe.ask("sessions")["lost"] == 0
                until(lambda: observe.in_sync(lab, "gw2"), "gw2 is in sync")
                first = until(lambda: epoch_of(lab, "gw1"), "gw1 owns the group in etcd")
                watch = HolderWatch(lab, VIP)
                started = observe.api(lab, "gw1", "status")["started"]
                probe.ask("window")
                lab.run("gw1", ["sh", "-c", "kill -HUP $(cat /run/lbnoded.pid)"])
                until(lambda: (observe.api(lab, "gw1", "status") or {}).get("started", 0) > started, "gw1 runs anew")
                until(lambda: observe.in_sync(lab, "gw2"), "gw2 is in sync with it")
                probe.flows()
                watch.drain()
                assert (watch.holders, watch.most) == ({"gw1"}, 1)
                report = probe.ask("report")
                assert report["http"]["failed"] == 0
                assert report["udp"]["sent"] - report["udp"]["answered"] <= 1  # the last one may still be on its way
                kill()

                def moved() -> bool:
                    watch.drain()
                    return watch.holders == {"gw2"}

                with hung_daemon(lab, "gw1"):
                    until(moved, "gw2 alone holds the VIP", 50)  # another lbnoded could take over for 20 s
                probe.flows()
                watch.drain()
                watch.close()
                assert watch.most == 1, "both gateways held the VIP at one time"
                assert observe.holders(lab, VIP) == ("gw2",)
                second = until(lambda: epoch_of(lab, "gw2"), "gw2 owns the group in etcd")
                assert second == first + 1, "the restart changed nothing"
                assert probe.ask("sessions")["lost"] == 0
                with daemon(lab, "gw1"):
                    until(lambda: observe.in_sync(lab, "gw1"), "gw1 is in sync")
                    an_active_that_was_stopped_is_refused(lab, probe)


def an_active_that_was_stopped_is_refused(lab: Lab, probe: Probe) -> None:
    """Its daemon is stopped before its election process, so that its kernel has changes which it has not sent when gw1
    takes over. They come once it goes on: from another epoch."""
    pid = lab.run("gw2", ["cat", "/run/lbnoded.pid"]).stdout.strip()
    election = lab.run("gw2", ["pgrep", "-P", pid, "-f", "lbnode.election.driver"]).stdout.strip()
    lab.run("gw2", ["kill", "-STOP", pid])
    try:
        probe.flows()
        lab.run("gw2", ["kill", "-STOP", election])
        until(lambda: epoch_of(lab, "gw1"), "gw1 has taken over")
        assert refused_records(lab, "gw1") == 0
    finally:
        lab.run("gw2", ["kill", "-CONT", pid, election])
    until(lambda: refused_records(lab, "gw1") > 0, "gw1 refuses what gw2 had not sent")
    until(lambda: observe.in_sync(lab, "gw1") and observe.in_sync(lab, "gw2"), "both are in sync again")
    events = lab.run("gw1", ["lbctl", "events"]).stdout
    assert events.count("VIP group front: of epoch 2, the group has had epoch 3 since") == 1
    for node in GATEWAYS:
        until(lambda node=node: kept_epochs(lab, node) == {"front": [3, 3]}, f"{node} has the epoch on disk")  # type: ignore[misc]
    probe.flows()
    assert probe.ask("sessions")["lost"] == 0


def refused_records(lab: Lab, node: str) -> int:
    return sum(peer["refused_records"] for peer in (observe.api(lab, node, "status") or {"sync": ()})["sync"])


def kept_epochs(lab: Lab, node: str) -> object:
    return json.loads(lab.run(node, ["cat", "/var/lib/lbnode/epochs.json"]).stdout)


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Lab]:
    """One gateway without etcd; the VIP is an address of its own."""
    (tmp_path / "node.toml").write_text('node = "gw1"\n')
    path = tmp_path / "single.yml"
    path.write_text(SINGLE)
    with Lab(path, name=f"lbt-k1{os.getpid()}") as lab:
        lab.up()
        lab.run("gw1", ["ip", "address", "add", f"{VIP}/24", "dev", lab.interface("gw1", "front")])
        yield lab


def test_killed_on_a_single_node_forwarding_goes_on_and_a_restart_adopts(single: Lab) -> None:
    servers = ("198.51.100.31", "198.51.100.32")
    services = {f"tcp:{VIP}:80": 80, f"udp:{VIP}:7": 7, f"tcp:{VIP}:2222": 2222}
    document = {
        "services": {
            service: {"scheduler": "rr", "check": {"type": "tcp", "port": 80, "interval": 0.2, "timeout": 1.0},
                      "servers": {f"{address}:{port}": {"weight": 1} for address in servers}}
            for service, port in services.items()
        }
    }  # fmt: skip

    def connections() -> int:
        found = observe.service(single, "gw1", WEB)
        return int(found["counters"]["connections"]) if found else 0

    def serving() -> bool:
        return observe.effective_weights(single, "gw1", WEB) == dict.fromkeys(servers, 1)

    with daemon(single, "gw1") as kill:
        single.run("gw1", ["lbctl", "apply", "-f", "-"], stdin=json.dumps(document))
        until(serving, "both servers are in the data plane")
        with probing(single) as probe:
            assert probe.ask("sessions")["lost"] == 0
            probe.flows()
            probe.ask("window")
            until(lambda: connections() > 0, "the service counts")
            before = connections()
            kill()
            probe.flows(40)  # nobody is there to decide anything, and packets flow
            with daemon(single, "gw1"):
                until(serving, "the new daemon has both servers")
                assert connections() >= before, "counters began again: the data plane was rebuilt"
                probe.flows(40)
            report = probe.ask("report")
            assert report["http"]["failed"] == 0
            assert set(report["http"]["servers"]) == {"rs1", "rs2"}
            assert report["udp"]["sent"] - report["udp"]["answered"] <= 1  # the last one may still be on its way
            assert probe.ask("sessions")["lost"] == 0
