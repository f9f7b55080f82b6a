"""Interoperation with a live FRR vrrpd: VRRPv3 over IPv4 and IPv6, elected in both directions."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lbnode.lab.netns import Net
from tests.netns.election_lab import BOTH, GROUP, LINK_LOCAL_VIP, VIP6, Lab, until
from tests.netns.frr import Frr

pytestmark = [pytest.mark.root, pytest.mark.frr]
ABOVE = replace(GROUP, priorities={"a": 200, "b": 100})
BELOW = replace(GROUP, priorities={"a": 100, "b": 200})


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Net(f"lbt-fr{os.getpid()}") as net:
        yield Lab(net)


@pytest.fixture
def directory() -> Iterator[Path]:
    """That the daemons, which are not root, can reach: no parent of it is root's alone, as those of tmp_path are."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_frr_follows_us_and_takes_over_when_we_release(lab: Lab, directory: Path) -> None:
    a = lab.daemon("a", ABOVE)
    until(lambda: lab.holds("a"), "we become active")
    frr = Frr(lab, "b", directory, 100)
    until(lambda: frr.status() == "Backup", "FRR is backup")
    until(lambda: lab.client_reaches("a"), "the client reaches us")
    a.kill(signal.SIGTERM)
    until(lambda: frr.status() == "Master", "FRR takes over")
    assert not lab.holds("a") and "checksum" not in frr.log


def test_we_follow_frr_and_take_over_when_it_releases(lab: Lab, directory: Path) -> None:
    frr = Frr(lab, "b", directory, 200)
    until(lambda: frr.status() == "Master", "FRR becomes active")
    a = lab.daemon("a", BELOW)
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow")
    assert a.problem == "" and not [event for event in a.events if "dropped" in event]
    frr.stop()
    until(lambda: lab.holds("a"), "we take over")
    until(lambda: a.roles[-1]["reason"] == "released by 192.0.2.2", "and say why")
    until(lambda: lab.client_reaches("a"), "the client reaches us, not the virtual MAC")


def test_we_take_over_when_frr_is_silent_and_yield_when_it_comes_back(lab: Lab, directory: Path) -> None:
    frr = Frr(lab, "b", directory, 200)
    until(lambda: frr.status() == "Master", "FRR becomes active")
    a = lab.daemon("a", BELOW)
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow")
    lab.isolate("b")
    until(lambda: lab.holds("a"), "we take over")
    lab.heal("b")
    until(lambda: not lab.holds("a"), "the lower priority (ours) yields")
    assert frr.status() == "Master"


def test_frr_with_a_higher_priority_preempts_us(lab: Lab, directory: Path) -> None:
    a = lab.daemon("a", BELOW)
    until(lambda: lab.holds("a"), "we become active")
    frr = Frr(lab, "b", directory, 200)
    until(lambda: frr.status() == "Master" and not lab.holds("a"), "FRR preempts")
    until(lambda: a.state == "backup" and a.roles[-1]["reason"] == "priority 200 from 192.0.2.2", "we say why")


def test_we_preempt_frr_with_a_higher_priority_when_told_to(lab: Lab, directory: Path) -> None:
    frr = Frr(lab, "b", directory, 100)
    until(lambda: frr.status() == "Master", "FRR becomes active")
    a = lab.daemon("a", replace(ABOVE, preempt=True))
    until(lambda: a.state == "active" and lab.holds("a"), "we preempt")
    until(lambda: frr.status() == "Backup", "FRR yields")
    until(lambda: lab.client_reaches("a"), "the client reaches us")


def test_both_families_move_between_frr_and_us(lab: Lab, directory: Path) -> None:
    frr = Frr(lab, "b", directory, 200, vips6=(LINK_LOCAL_VIP, VIP6))
    until(lambda: frr.status("v4") == frr.status("v6") == "Master", "FRR becomes active in both")
    a = lab.daemon("a", replace(BOTH, priorities={"a": 100, "b": 200}))
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow")
    assert a.problem == "" and not [event for event in a.events if "dropped" in event]
    frr.stop()
    until(lambda: lab.holds("a") and lab.holds("a", VIP6), "we take over both when it releases")
    until(lambda: lab.client_reaches("a") and lab.client_reaches("a", VIP6), "the client reaches us by both")


def test_frr_takes_both_families_over_from_us(lab: Lab, directory: Path) -> None:
    a = lab.daemon("a", replace(BOTH, priorities={"a": 200, "b": 100}))
    until(lambda: lab.holds("a") and lab.holds("a", VIP6), "we become active")
    frr = Frr(lab, "b", directory, 100, vips6=(LINK_LOCAL_VIP, VIP6))
    until(lambda: frr.status("v4") == frr.status("v6") == "Backup", "FRR is backup in both")
    a.kill(signal.SIGTERM)
    until(lambda: frr.status("v4") == frr.status("v6") == "Master", "FRR takes over both")
    assert not lab.holds("a") and not lab.holds("a", VIP6)
