"""The virtual router's MAC address (RFC 9568 section 7.3): what neighbours know stays true over a failover."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lbnode.lab.netns import Net, ip
from tests.netns.election_lab import BOTH, ETH_P_ALL, LINK_LOCAL_VIP, VIP, VIP6, Keepalived, Lab, until
from tests.netns.test_lease_netns import signal_everything

pytestmark = [pytest.mark.root]

GROUP = replace(BOTH, virtual_mac=True)
MAC, MAC6 = "00:00:5e:00:01:33", "00:00:5e:00:02:33"  # VRID 51
ALL = {VIP: MAC, VIP6: MAC6, LINK_LOCAL_VIP: MAC6}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Net(f"lbt-vm{os.getpid()}") as net:
        yield Lab(net)


def interfaces(lab: Lab, name: str, *of: str) -> set[str]:
    """Those with the MAC address of a virtual router. `of`: "up" = those that are up alone."""
    text = lab.net.run(name, "ip", "-br", "link", "show", "type", "macvlan", *of)
    return {line.split("@")[0] for line in text.splitlines()}


def up(lab: Lab, name: str) -> int:
    return len(interfaces(lab, name, "up"))


def speakers(lab: Lab) -> Callable[[], set[tuple[int, str]]]:
    """From now on, (IP version, source MAC address) of the advertisements that come to the client."""

    def listen() -> socket.socket:
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.ntohs(ETH_P_ALL))
        packets.bind(("front", 0))
        return packets

    packets, seen = lab.net.call("client", listen), set[tuple[int, str]]()

    def heard() -> set[tuple[int, str]]:
        try:
            while frame := packets.recv(2048):
                if frame[12:14] + frame[23:24] == b"\x08\x00\x70" or frame[12:14] + frame[20:21] == b"\x86\xdd\x70":
                    seen.add((frame[14] >> 4, frame[6:12].hex(":")))
        except BlockingIOError:
            return seen

    return heard


def reach_all(lab: Lab, addresses: dict[str, str] = ALL) -> None:
    for address in addresses:
        device = ("-I", "front") if address == LINK_LOCAL_VIP else ()

        def answers(command: tuple[str, ...] = ("ping", "-c1", "-W1", *device, address)) -> bool:
            try:
                return bool(lab.net.run("client", *command))
            except RuntimeError:
                return False

        until(answers, f"the client reaches {address}")


def pin(lab: Lab, addresses: dict[str, str] = ALL) -> None:
    """The client knows these neighbours, and whatever it hears from now on, it learns nothing."""
    for address, mac in addresses.items():
        ip("-n", lab.net.ns("client"), "neigh", "replace", address, "lladdr", mac, "dev", "front", "nud", "permanent")


def test_what_the_client_knows_stays_true(lab: Lab) -> None:
    heard = speakers(lab)
    a = lab.daemon("a", GROUP)
    until(lambda: lab.holds("a", VIP6), "a is active")
    b = lab.daemon("b", GROUP)
    until(lambda: b.state == "backup" and b.roles[-1]["active_address"] == "192.0.2.1", "b follows a")
    until(lambda: len(interfaces(lab, "b")) == 2, "b is ready for a takeover")
    assert up(lab, "a") == 2 and not up(lab, "b"), "a Backup accepts no frame to the virtual MAC address"
    assert f"from {VIP} [{MAC.upper()}]" in lab.net.run("client", "arping", "-c1", "-w2", "-I", "front", VIP)
    reach_all(lab)
    known = lab.net.run("client", "ip", "neigh", "show", "dev", "front")
    assert all(f"{address} lladdr {mac}" in known for address, mac in ALL.items()), known
    pin(lab)

    signal_everything(lab, "a", signal.SIGSTOP, signal.SIGKILL)
    until(lambda: lab.holds("b", VIP6), "b takes over")
    reach_all(lab)
    answers = lab.net.run("client", "arping", "-c2", "-w3", "-I", "front", VIP)
    assert answers.count("[") == answers.count(MAC.upper()) == 2, "one answer to each: a is dark"

    assert up(lab, "a") == 2, "nobody was there to set them down"
    kept = interfaces(lab, "b")
    a = lab.daemon("a", GROUP)
    until(lambda: not up(lab, "a") and not lab.holds("a"), "a takes up what was left, and sets it down")
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
    b.handover("front")
    until(lambda: lab.holds("a", VIP6) and up(lab, "a") == 2 and not up(lab, "b"), "b gives everything away")
    assert interfaces(lab, "b") == kept
    reach_all(lab)
    removals = lab.count_removals("a")
    a.kill(signal.SIGKILL)
    a = lab.daemon("a", GROUP)
    until(lambda: a.state == "active" and any("it held front" in event for event in a.events), "the next one holds on")
    reach_all(lab)
    assert removals() == 0
    a.kill(signal.SIGTERM)
    assert not interfaces(lab, "a")
    assert not a.problem and not b.problem
    assert heard() == {(4, MAC), (6, MAC6)}


def test_keepalived_with_use_vmac_has_the_same(lab: Lab, tmp_path: Path) -> None:
    keepalived = Keepalived(lab, "a", tmp_path, 200, more="use_vmac")
    until(lambda: lab.holds("a"), "keepalived becomes active")
    b = lab.daemon("b", replace(GROUP, addresses=GROUP.addresses[:1], priorities={"a": 200, "b": 100}))
    until(lambda: b.state == "backup" and b.roles[-1]["active_address"] == "192.0.2.1", "we follow it")
    pin(lab, {VIP: MAC})
    reach_all(lab, {VIP: MAC})
    keepalived.stop()
    until(lambda: lab.holds("b"), "we take over")
    reach_all(lab, {VIP: MAC})
    assert not b.problem
