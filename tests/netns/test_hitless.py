"""What costs a gateway that carries traffic no packet: restarts of lbnoded, interfaces that come and go.

The daemon is the real one. One that is started anew loads its program and swaps it into the links.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.traffic import IN_FLIGHT, Traffic
from tests.netns.xdp_lab import PORT, VIP, Lab, server_address
from tests.node.daemon import Daemon, until

pytestmark = pytest.mark.root
ENOUGH = 200  # datagrams that show that traffic flows


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(servers=2) as lab:
        yield lab


@pytest.fixture(scope="module")
def daemon(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Not under `ip netns exec`, whose mounts, and the pins in them, would end with the process."""
    root = tmp_path_factory.mktemp("gw")
    daemon = Daemon(root, plane="xdp", prefix=("nsenter", f"--net=/run/netns/{lab.net.ns('gw')}"))
    lab.uses(root / "run")
    document = root / "lb.yaml"
    document.write_text("services:\n" + "".join(service(protocol) for protocol in ("tcp", "udp")))
    try:
        daemon.start()
        done = daemon.run("lbctl", "apply", "-f", str(document), "--wait")
        assert done.returncode == 0, done.stderr
        yield daemon
    finally:
        daemon.close()


def service(protocol: str) -> str:
    servers = "".join(f"      {server_address(number)}:{PORT}: {{}}\n" for number in (1, 2))
    return f"  {protocol}:{VIP}:{PORT}:\n    scheduler: wlc\n    servers:\n{servers}"


@pytest.fixture
def traffic(lab: Lab, daemon: Daemon) -> Iterator[Traffic]:
    with Traffic(lab) as traffic:
        flows(traffic)
        yield traffic


def flows(traffic: Traffic) -> None:
    """Until so many more datagrams and a line came back."""
    number, lines = traffic.sent + ENOUGH, traffic.lines
    until(lambda: traffic.oldest_unanswered > number or traffic.sent > number + ENOUGH, "datagrams come back")
    until(lambda: traffic.lines > lines or traffic.broken, "the TCP connection is served")


def lost_nothing(traffic: Traffic) -> None:
    flows(traffic)
    traffic.stop()
    assert (traffic.lost, traffic.twice, traffic.broken) == ([], 0, None), f"{traffic.sent} were sent"


def interfaces(daemon: Daemon) -> dict[str, Any]:
    return {one["name"]: one for one in daemon.status()["dataplane"]["interfaces"]}


def test_a_restart_in_place(daemon: Daemon, traffic: Traffic) -> None:
    assert daemon.process is not None
    started = daemon.status()["started"]
    daemon.process.send_signal(signal.SIGHUP)
    status = until(lambda: (now := daemon.status())["started"] > started and now, "it has started again")
    assert status["dataplane"]["adopted"] and daemon.running()
    lost_nothing(traffic)


def test_kill_9_and_a_new_start(daemon: Daemon, traffic: Traffic) -> None:
    daemon.close()
    flows(traffic)
    daemon.start()
    assert daemon.status()["dataplane"]["adopted"]
    lost_nothing(traffic)


def test_another_interface_flaps(lab: Lab, daemon: Daemon, traffic: Traffic) -> None:
    lab.net.veth("gw", "side", "203.0.113.1/24", "sw", "s-gw", None)
    try:
        until(lambda: "side" in interfaces(daemon), "it is followed")
        for _ in range(3):
            for state in ("down", "up"):
                lab.net.run("gw", "ip", "link", "set", "side", state)
            flows(traffic)
    finally:
        lab.net.run("gw", "ip", "link", "del", "side")
    until(lambda: "side" not in interfaces(daemon), "it is let go of")
    lost_nothing(traffic)


@pytest.mark.parametrize(("interface", "far_end"), [("front", "f-gw"), ("back", "b-gw")])
def test_its_own_interface_flaps(lab: Lab, traffic: Traffic, interface: str, far_end: str) -> None:
    """Only what was under way while the link was down is lost."""
    first = traffic.oldest_unanswered
    lab.net.run("gw", "ip", "link", "set", interface, "down")
    down = traffic.sent
    until(lambda: traffic.sent > down + IN_FLIGHT, "more is sent")
    lab.net.run("gw", "ip", "link", "set", interface, "up")
    until(lambda: "forwarding" in lab.net.run("sw", "bridge", "link", "show", "dev", far_end), "the link is up")
    last = traffic.sent
    flows(traffic)
    lines = traffic.lines
    until(lambda: traffic.lines > lines, "the TCP connection has come through")
    traffic.stop()
    assert down + 1 in range(traffic.lost[0], traffic.lost[-1]), "the first that was sent while the link was down"
    assert first <= traffic.lost[0] and traffic.lost[-1] <= last
    assert (traffic.twice, traffic.broken) == (0, None)


def test_a_new_interface_takes_over_and_goes(lab: Lab, daemon: Daemon, traffic: Traffic) -> None:
    run = lab.net.run
    lab.net.veth("client", "eth9", "192.0.2.129/25", "gw", "hot", "192.0.2.130/25")
    until(lambda: "hot" in interfaces(daemon), "the new interface is served")
    run("client", "ip", "route", "add", f"{VIP}/32", "via", "192.0.2.130")
    until(lambda: _packets_in(lab, "hot") > ENOUGH, "traffic comes in by it")
    flows(traffic)
    run("client", "ip", "route", "del", f"{VIP}/32")
    run("client", "ip", "link", "del", "eth9")
    until(lambda: "hot" not in interfaces(daemon), "it is let go of")
    lost_nothing(traffic)


def _packets_in(lab: Lab, interface: str) -> int:
    return int(lab.net.run("gw", "cat", "/proc/net/dev").split(f"{interface}:")[1].split()[1])
