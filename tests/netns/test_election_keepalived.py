"""Interoperation with a live keepalived: VRRPv3 over IPv4 and IPv6, by multicast and unicast, and VRRPv2."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbnode.lab.netns import Net
from tests.netns.election_lab import BOTH, GROUP, LINK_LOCAL_VIP, VIP, VIP6, Keepalived, Lab, until

pytestmark = [pytest.mark.root, pytest.mark.keepalived]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Net(f"lbt-ka{os.getpid()}") as net:
        yield Lab(net)


@pytest.mark.parametrize("interval", [0.1, 1.0])
def test_keepalived_follows_us_and_takes_over_when_we_release(lab: Lab, tmp_path: Path, interval: float) -> None:
    ours = replace(GROUP, priorities={"a": 200, "b": 100}, advert_interval_s=interval)
    a = lab.daemon("a", ours)
    until(lambda: lab.holds("a"), "we become active")
    keepalived = Keepalived(lab, "b", tmp_path, 100, interval)
    until(lambda: keepalived.says("Entering BACKUP STATE"), "keepalived is backup")
    with lab.never_both():
        a.kill(signal.SIGTERM)
        until(lambda: lab.holds("b"), "keepalived takes over")
    assert not lab.holds("a") and not keepalived.says("checksum")


def test_we_follow_keepalived_and_take_over_when_it_releases(lab: Lab, tmp_path: Path) -> None:
    keepalived = Keepalived(lab, "b", tmp_path, 200)
    until(lambda: lab.holds("b"), "keepalived becomes active")
    a = lab.daemon("a", replace(GROUP, priorities={"a": 100, "b": 200}))
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow")
    assert a.problem == ""  # the same addresses, a checksum we know
    keepalived.stop()
    until(lambda: lab.holds("a") and not lab.holds("b"), "we take over")
    until(lambda: a.roles[-1]["reason"] == "released by 192.0.2.2", "and say why")
    until(lambda: lab.client_reaches("a"), "the client reaches us")


def test_we_take_over_when_keepalived_is_silent_and_yield_when_it_comes_back(lab: Lab, tmp_path: Path) -> None:
    Keepalived(lab, "b", tmp_path, 200)
    until(lambda: lab.holds("b"), "keepalived becomes active")
    a = lab.daemon("a", replace(GROUP, priorities={"a": 100, "b": 200}))
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow")
    lab.isolate("b")
    until(lambda: lab.holds("a"), "we take over")
    lab.heal("b")
    until(lambda: not lab.holds("a"), "the lower priority (ours) yields")
    assert lab.holds("b")
    until(lambda: lab.client_reaches("b"), "keepalived announces after our last advertisement")


def test_whoever_answers_for_our_address_beside_us_is_named_and_clients_are_told_again(lab: Lab) -> None:
    a = lab.daemon("a", GROUP)
    until(lambda: lab.holds("a"), "we become active")
    lab.net.run("b", "ip", "addr", "add", f"{VIP}/24", "dev", "front")
    until(lambda: a.problem == f"{lab.mac('b')} answers for our addresses, too", "we say who has it")
    until(lambda: lab.client_reaches("a"), "the client reaches us")
    lab.net.run("b", "ip", "addr", "del", f"{VIP}/24", "dev", "front")
    until(lambda: not a.problem, "and that it has it no more")


def test_keepalived_with_a_lower_priority_yields_to_us_after_a_split(lab: Lab, tmp_path: Path) -> None:
    a = lab.daemon("a", replace(GROUP, priorities={"a": 200, "b": 100}))
    until(lambda: lab.holds("a"), "we become active")
    Keepalived(lab, "b", tmp_path, 100)
    lab.isolate("b")
    until(lambda: lab.holds("b"), "keepalived becomes active alone")
    lab.heal("b")
    until(lambda: not lab.holds("b"), "it yields")
    until(lambda: lab.client_reaches("a"), "the client reaches us")
    assert lab.holds("a") and [event for event in a.events if "became" in event][-1].startswith("front became active")


def test_we_preempt_a_lower_priority_only_when_told_to(lab: Lab, tmp_path: Path) -> None:
    Keepalived(lab, "b", tmp_path, 100)
    until(lambda: lab.holds("b"), "keepalived becomes active")
    polite = replace(GROUP, priorities={"a": 200, "b": 100})
    a = lab.daemon("a", polite)
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow a lower priority")
    a.configure(replace(polite, preempt=True))
    until(lambda: lab.holds("a") and not lab.holds("b"), "we preempt")
    until(lambda: a.roles[-1]["reason"] == "preempted priority 100 of 192.0.2.2", "and say so")


def test_keepalived_preempts_us_with_a_higher_priority(lab: Lab, tmp_path: Path) -> None:
    a = lab.daemon("a", replace(GROUP, priorities={"a": 100, "b": 200}))
    until(lambda: lab.holds("a"), "we become active")
    Keepalived(lab, "b", tmp_path, 200)
    until(lambda: lab.holds("b") and not lab.holds("a"), "keepalived preempts")
    until(lambda: a.state == "backup" and a.roles[-1]["reason"] == "priority 200 from 192.0.2.2", "we say why")


V6_ONLY = replace(BOTH, addresses=BOTH.addresses[1:])


def holds_all(lab: Lab, name: str) -> bool:
    return all(lab.holds(name, str(vip.address)) for vip in BOTH.addresses)


def holds_none(lab: Lab, name: str) -> bool:
    return not any(lab.holds(name, str(vip.address)) for vip in BOTH.addresses)


def test_both_families_move_as_one_between_keepalived_and_us(lab: Lab, tmp_path: Path) -> None:
    a = lab.daemon("a", replace(BOTH, priorities={"a": 200, "b": 100}))
    until(lambda: holds_all(lab, "a"), "we become active")
    keepalived = Keepalived(lab, "b", tmp_path, 100, both=True)
    until(lambda: keepalived.log.read_text().count("Entering BACKUP STATE") == 2, "keepalived is backup in both")
    until(lambda: lab.client_reaches("a", VIP6), "the client reaches us over IPv6")
    assert a.problem == "" and holds_none(lab, "b")
    a.kill(signal.SIGTERM)
    until(lambda: holds_all(lab, "b") and holds_none(lab, "a"), "keepalived takes over both")
    until(lambda: lab.client_reaches("b", VIP6), "the client reaches keepalived over IPv6")
    a = lab.daemon("a", replace(BOTH, priorities={"a": 200, "b": 100}))
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow")
    keepalived.stop()
    until(lambda: holds_all(lab, "a") and holds_none(lab, "b"), "we take over both")
    until(lambda: lab.client_reaches("a", VIP6), "the client's neighbour cache was corrected")
    assert not keepalived.says("checksum") and not keepalived.says("mismatch")


def test_ipv6_alone_is_elected_by_link_local_addresses(lab: Lab, tmp_path: Path) -> None:
    keepalived = Keepalived(lab, "b", tmp_path, 200, both=True)
    until(lambda: lab.holds("b", LINK_LOCAL_VIP), "keepalived becomes active")
    a = lab.daemon("a", replace(V6_ONLY, priorities={"a": 100, "b": 200}))
    until(lambda: a.state == "backup" and str(a.roles[-1]["active_address"]).startswith("fe80::"), "we follow")
    assert a.problem == ""
    keepalived.stop()
    until(lambda: lab.holds("a", VIP6) and lab.holds("a", LINK_LOCAL_VIP), "we take over when it releases")
    until(lambda: lab.client_reaches("a", VIP6), "the client reaches us")


def test_unicast_with_keepalived_in_both_directions(lab: Lab, tmp_path: Path) -> None:
    peers = tuple(ip_address(f"192.0.2.{n}") for n in (1, 2))
    group = replace(GROUP, priorities={"a": 100, "b": 200}, unicast_peers=peers)
    unicast = "unicast_src_ip 192.0.2.2\n    unicast_peer {\n        192.0.2.1\n    }"
    keepalived = Keepalived(lab, "b", tmp_path, 200, more=unicast)
    until(lambda: lab.holds("b"), "keepalived becomes active")
    a = lab.daemon("a", group)
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow its unicast")
    keepalived.stop()
    until(lambda: lab.holds("a"), "we take over")
    keepalived = Keepalived(lab, "b", tmp_path, 50, more=unicast)
    until(lambda: keepalived.says("Entering BACKUP STATE"), "keepalived starts as backup")
    with lab.never_both():
        a.kill(signal.SIGTERM)
        until(lambda: lab.holds("b"), "keepalived hears our unicast release")
    assert not keepalived.says("checksum")


def test_version_2_for_a_migration(lab: Lab, tmp_path: Path) -> None:
    group = replace(GROUP, priorities={"a": 100, "b": 200}, version=2, advert_interval_s=1.0)
    keepalived = Keepalived(lab, "b", tmp_path, 200, 1, version=2)
    until(lambda: lab.holds("b"), "keepalived becomes active")
    a = lab.daemon("a", group)
    until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "we follow version 2")
    assert a.problem == ""
    keepalived.stop()
    until(lambda: lab.holds("a"), "we take over")
    keepalived = Keepalived(lab, "b", tmp_path, 50, 1, version=2)
    until(lambda: keepalived.says("Entering BACKUP STATE"), "keepalived starts as backup")
    with lab.never_both():
        a.kill(signal.SIGTERM)
        until(lambda: lab.holds("b"), "keepalived hears our release in version 2")
