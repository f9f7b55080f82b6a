"""Two gateways with lbnoded and IPVS: VRRP moves the addresses, the kernel's sync daemons the connections."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.dataplane.ipvs.connections import parse_lines
from tests.node.daemon import Daemon, until
from tests.uml.gateways import BACK_VIP, DIRECT, GATEWAYS, MASQUERADED, VIP, Held, Lab

pytestmark = [pytest.mark.root, pytest.mark.ipvs]

HELD = 8  # connections for each of masquerading and direct routing
DOCUMENT = {
    "vip-groups": {
        "front": {
            "vrid": 51,
            "interface": "eth0",
            "addresses": [f"{VIP}/24 dev eth0", f"{BACK_VIP}/24 dev eth1"],
            "priorities": {"gw1": 250, "gw2": 150},
            "advert_interval": 0.5,
        }
    },
    "services": {
        f"tcp:{VIP}:80": {
            "scheduler": "rr",
            "vip_group": "front",
            "check": {"interval": 0.3, "rise": 1, "fall": 1},
            "servers": {f"{address}:80": {} for address in MASQUERADED.values()},
        },
        f"tcp:{VIP}:81": {
            "scheduler": "rr",
            "vip_group": "front",
            "servers": {f"{address}:81": {"forward": "direct"} for address in DIRECT.values()},
        },
    },
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def daemons(lab: Lab, tmp_path: Path) -> Iterator[dict[str, Daemon]]:
    """Each with a store of its own: the configuration is given to both."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, host in GATEWAYS.items():
            sync = f'[sync]\nlisten = "198.51.100.{host}:8848"\nkey = "not used: ip_vs has none"\n'
            found[name] = Daemon(tmp_path / name, name, sync, plane="ipvs")
            stack.callback(found[name].close)
            with lab.inside(name):
                found[name].start()
        yield found


def established(lab: Lab, gateway: str) -> int:
    with lab.inside(gateway):
        text = Path("/proc/thread-self/net/ip_vs_conn").read_text()
    return sum(item.state == "ESTABLISHED" for item in parse_lines(text))


def weights(daemon: Daemon) -> list[int | None]:
    return [server["effective_weight"] for server in daemon.service(f"tcp:{VIP}:80")["servers"]]


def states(daemon: Daemon) -> list[str]:
    return [role["state"] for role in daemon.status()["roles"]]


def sync_daemons(daemon: Daemon) -> list[str]:
    return list(daemon.status()["dataplane"]["sync_daemons"])


@pytest.mark.timeout(180)
def test_held_connections_survive_health_and_failover(lab: Lab, daemons: dict[str, Daemon]) -> None:
    gw1, gw2 = daemons["gw1"], daemons["gw2"]
    listeners = [lab.listen(name, address, 80) for name, address in MASQUERADED.items()]
    direct = [lab.listen(name, VIP, 81) for name in DIRECT]
    for daemon in daemons.values():
        daemon.client.call("POST", "/api/v1/apply", {"document": DOCUMENT})
    until(lambda: states(gw1) == ["active"] and states(gw2) == ["backup"], "gw1 is active, gw2 backup")
    until(lambda: sync_daemons(gw1) == ["master"] and sync_daemons(gw2) == ["backup"], "their daemons follow")
    until(lambda: weights(gw1) == weights(gw2) == [1, 1], "the checks have found the servers")

    with contextlib.ExitStack() as stack:
        # Nothing is said on them: a handshake alone must be enough to be synchronised.
        held = [Held(lab, 80, listeners) for _ in range(HELD)] + [Held(lab, 81, direct) for _ in range(HELD)]
        for connection in held:
            stack.callback(connection.close)
        assert {connection.server for connection in held} == {*MASQUERADED.values(), VIP}

        listeners.pop().close()  # rs2 takes no new connections, its old ones live
        until(lambda: weights(gw1) == [1, 0], "the check has found rs2 down")
        fresh = [Held(lab, 80, listeners) for _ in range(2)]
        for connection in fresh:
            stack.callback(connection.close)
        assert {connection.server for connection in fresh} == {MASQUERADED["rs1"]}
        assert [connection.is_live() for connection in held] == [True] * len(held)

        until(lambda: established(lab, "gw2") >= len(held) + len(fresh), "gw2 knows all connections")
        lab.unplug("gw1")
        until(lambda: states(gw2) == ["active"], "gw2 takes over")
        assert [connection.is_live() for connection in held] == [True] * len(held)
        until(lambda: sync_daemons(gw2) == ["master"], "gw2 sends its connections now")

        lab.plug("gw1")
        until(lambda: sorted(map(str, (states(gw1), states(gw2)))) == ["['active']", "['backup']"], "one is active")
        until(lambda: sorted(sync_daemons(gw1) + sync_daemons(gw2)) == ["backup", "master"], "daemons of both roles")


@pytest.mark.timeout(180)
def test_a_gateway_whose_processes_are_all_killed_is_dark(lab: Lab, daemons: dict[str, Daemon]) -> None:
    """Its kernel keeps the address and ip_vs's services: the guard before it ends the lease."""
    gw1, gw2 = daemons["gw1"], daemons["gw2"]
    listener = lab.listen("rs1", MASQUERADED["rs1"], 80)
    for daemon in daemons.values():
        daemon.client.call("POST", "/api/v1/apply", {"document": DOCUMENT})
    until(lambda: states(gw1) == ["active"] and states(gw2) == ["backup"], "gw1 is active, gw2 backup")
    until(lambda: weights(gw1) == weights(gw2) == [1, 0], "the checks have found the servers")
    held = Held(lab, 80, [listener])
    assert held.is_live()
    (lease,) = gw1.status()["dataplane"]["leases"]
    assert lease["group"] == "front" and 0 < lease["remaining_s"] <= 2.5 * 0.5
    (lease,) = gw2.status()["dataplane"]["leases"]
    assert lease["remaining_s"] is None or lease["remaining_s"] <= 0

    kill_all(gw1)
    until(lambda: states(gw2) == ["active"], "gw2 takes over")
    until(lambda: answering(lab) == {lab.mac("gw2", "eth0")}, "gw2 alone answers for the address")
    assert holds(lab, "gw1"), "nobody was there to take it off"
    assert held.is_live()
    held.close()

    with lab.inside("gw1"):
        gw1.start()  # finds the guard in place and takes the address off
    until(lambda: not holds(lab, "gw1") and states(gw1) == ["backup"], "gw1 comes back as backup")
    assert gw1.status()["dataplane"]["drops"]["solicitation"] > 0
    assert answering(lab) == {lab.mac("gw2", "eth0")}

    assert "tc_lease" in lab.run("gw1", "tc", "filter", "show", "dev", "eth0", "ingress")
    gw1.stop()
    lab.run("gw1", sys.executable, "-m", "lbnode", "--config", str(gw1.config), "--unload")
    assert lab.run("gw1", "tc", "filter", "show", "dev", "eth0", "ingress") == ""


def kill_all(daemon: Daemon) -> None:
    """lbnoded and its election process, stopped first: neither lives to see the other die."""
    assert daemon.process is not None
    pid = daemon.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert children
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for each in (pid, *map(int, children)):
            os.kill(each, number)
    daemon.process.wait()


def holds(lab: Lab, gateway: str) -> bool:
    return f" {VIP}/" in lab.run(gateway, "ip", "-o", "addr", "show", "dev", "eth0")


def answering(lab: Lab) -> set[str]:
    """MAC addresses of all who answer when the client asks who has the VIP."""
    asked = lab.run("client", "arping", "-c", "3", "-w", "4", "-I", "eth0", VIP, check=False)
    return {word.strip("[]").lower() for word in asked.split() if word.startswith("[") and word.count(":") == 5}
