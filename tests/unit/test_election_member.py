"""What a group's configuration means on one node: authentication, weights, alarms."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbnode.election.authentication import Mode
from lbnode.election.member import Member, authentication_for, why_unauthenticated
from lbnode.election.messages import Setup, setup_from, setup_message
from lbnode.election.placement import Link
from lbnode.model import Track, VipAddress, VipGroup

KEYS = {7: bytes(32), 1: bytes(range(32))}
SETUP = Setup(KEYS, frozenset({"gw1", "gw2"}), ("198.51.100.2", 8849), {"gw2": ("198.51.100.3", 8849)})
GROUP = VipGroup("front", 51, (VipAddress(ip_address("192.0.2.10"), 24),), {"gw1": 250, "gw2": 150})
ETH1 = Link(3, "eth1", bytes(6), running=True)


def test_between_nodes_with_a_common_key_authentication_is_on_and_asks_for_no_common_clock() -> None:
    found, problem = authentication_for(GROUP, SETUP)
    assert (found.mode, found.send_key, found.fresh, problem) == (Mode.ENFORCE, 7, False, "")
    assert why_unauthenticated(GROUP, SETUP) == ""


@pytest.mark.parametrize(
    ("group", "setup", "why"),
    [
        (GROUP, Setup(), "this node has no key"),
        (replace(GROUP, priorities={"gw1": 250, "ka": 100}), SETUP, "ka is not among the [sync] peers"),
        (replace(GROUP, priorities={"gw1": 250}), SETUP, ""),
        (replace(GROUP, authentication="off"), SETUP, ""),
    ],
)
def test_otherwise_it_is_off_and_says_why(group: VipGroup, setup: Setup, why: str) -> None:
    assert authentication_for(group, setup)[0].mode is Mode.OFF
    assert why_unauthenticated(group, setup).startswith(why)


def test_what_the_operator_demands_is_had_or_refused() -> None:
    demanded = replace(GROUP, authentication="permissive", priorities={"gw1": 250, "ka": 100})
    found, problem = authentication_for(demanded, SETUP)
    assert (found.mode, found.fresh, problem) == (Mode.PERMISSIVE, True, "")
    assert "node.toml has no keys" in authentication_for(demanded, Setup())[1]


def test_the_setup_survives_the_way_to_the_process_with_the_order_of_its_keys() -> None:
    arrived = setup_from(setup_message(SETUP)["setup"])
    assert arrived == SETUP and list(arrived.keys) == [7, 1]
    assert "00" * 32 not in repr(arrived)


def test_weights_lower_the_priority_and_what_has_none_ends_the_part() -> None:
    uplink, file = Track("interface", "eth1", weight=100), Track("file", "/run/serve")
    member = Member(replace(GROUP, track=(uplink, file)), "gw1", SETUP)
    assert not member.weigh([ETH1], 0) and (member.effective_priority, member.fault) == (250, "")
    assert member.weigh([replace(ETH1, running=False)], 0)
    assert (member.effective_priority, member.fault) == (150, "")
    member.failing = {str(file): "/run/serve does not exist"}
    assert member.weigh([ETH1], 0) and (member.effective_priority, member.fault) == (250, "/run/serve does not exist")
    heavy = Member(replace(GROUP, track=(replace(uplink, weight=253),)), "gw2", SETUP)
    heavy.weigh([], 0)
    assert heavy.effective_priority == 1


def test_a_sole_member_takes_part_whatever_fails() -> None:
    alone = Member(replace(GROUP, priorities={"gw1": 250}, track=(Track("file", "/run/serve"),)), "gw1", SETUP)
    alone.failing = {"file /run/serve": "/run/serve does not exist"}
    assert alone.weigh([], 0) and alone.fault == ""
    assert "/run/serve does not exist" in alone.role((), 0).problem


def test_a_stranger_is_told_about_for_a_while() -> None:
    member = Member(GROUP, "gw1", SETUP)
    member.stranger = ("192.0.2.9", 10**12)
    assert "192.0.2.9 uses VRID 51, too" in member.role((), 10**12 + 1).problem
    assert member.role((), 10**12 + 11 * 10**9).problem == ""
