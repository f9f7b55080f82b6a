"""Who may hand a VIP group over to whom, with and without a shared store."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbnode.control import NodeInfo
from lbnode.errors import ConfigError
from lbnode.handover import heir
from lbnode.model import Role, VipAddress, VipGroup, VrrpState

PAIR = VipGroup("front", 51, (VipAddress(ip_address("192.0.2.10"), 24),), {"gw1": 250, "gw2": 150})
THREE = replace(PAIR, priorities={"gw1": 250, "gw2": 150, "gw3": 100})
ACTIVE = Role("front", VrrpState.ACTIVE, 250, 0.0, "test")
HEARD = replace(ACTIVE, backups=("gw2",))


def stored(name: str, state: VrrpState, *, priority: int = 100, reachable: bool = True) -> NodeInfo:
    return NodeInfo(name, "1", 0.0, (Role("front", state, priority, 0.0, ""),), 7, 0, reachable=reachable)


def refusal(role: Role, *others: NodeInfo, group: VipGroup = PAIR, silent: tuple[str, ...] = (), to: str = "") -> str:
    try:
        heir(group, role, "gw1", others, silent, to)
    except ConfigError as error:
        return str(error).removeprefix("VIP group front: ")
    return ""


def test_a_backup_that_heartbeats_or_the_store_tell_of_is_enough() -> None:
    backup = stored("gw2", VrrpState.BACKUP)
    for role, others in ((HEARD, ()), (ACTIVE, (backup,)), (HEARD, (replace(backup, reachable=False),))):
        assert refusal(role, *others) == refusal(role, *others, to="gw2") == ""
        assert refusal(role, *others, to="gw3") == "gw3 is not backup now; these are: gw2"


def test_the_heir_is_who_was_named_or_the_best_backup() -> None:
    backup = VrrpState.BACKUP
    others = (stored("gw2", backup, priority=100), stored("gw3", backup, priority=150))
    heard = replace(ACTIVE, backups=("gw4", "gw2"))
    assert heir(THREE, ACTIVE, "gw1", others, ()) == heir(THREE, heard, "gw1", others, ()) == "gw3"
    assert heir(THREE, ACTIVE, "gw1", others, (), "gw2") == "gw2"
    assert heir(THREE, heard, "gw1", (), ()) == "gw4", "the first that it hears"
    assert heir(THREE, ACTIVE, "gw1", (), ("gw2", "gw3")) == "", "VRRP finds out"
    assert heir(PAIR, ACTIVE, "gw1", (), ("gw2",), "gw2") == "gw2", "it can only be that one"


@pytest.mark.parametrize(
    "others",
    [(), (stored("gw2", VrrpState.INITIALIZE),), (stored("gw2", VrrpState.BACKUP, reachable=False),)],
)
def test_without_any_it_is_refused(others: tuple[NodeInfo, ...]) -> None:
    assert refusal(ACTIVE, *others) == "no other node is backup now: nobody would take over"


def test_elsewhere_than_on_the_active_node_it_says_where_to_run_it() -> None:
    backup = Role("front", VrrpState.BACKUP, 150, 0.0, "", ip_address("192.0.2.3"))
    for role, others, hint in (
        (replace(backup, active_node="gw3"), (), "gw3 has it: run this there"),
        (backup, (stored("gw2", VrrpState.ACTIVE),), "gw2 has it: run this there"),
        (backup, (), "192.0.2.3 has it: run this there"),
        (replace(backup, active_address=None), (), "no active node is known here"),
    ):
        assert refusal(role, *others) == f"gw1 is backup, and only the active node can hand over; {hint}"


def test_members_that_cannot_tell_are_left_to_vrrp() -> None:
    assert refusal(ACTIVE, silent=("gw2",)) == refusal(ACTIVE, silent=("gw2",), to="gw2") == ""
    assert refusal(ACTIVE, silent=("gw2", "gw3"), group=THREE) == ""
    named = refusal(ACTIVE, silent=("gw2", "gw3"), group=THREE, to="gw3")
    assert named.startswith("gw3 and gw1 exchange no heartbeats, so it cannot be named")
    assert refusal(ACTIVE, silent=("gw2",), to="gw9") == "gw9 is not backup now; none is known here"


def test_a_sole_member_has_nobody() -> None:
    assert refusal(ACTIVE, group=replace(PAIR, priorities={"gw1": 250})) == (
        "gw1 is its only member; there is nobody to hand over to"
    )


def test_one_in_maintenance_does_not_take_over_whatever_is_told_of_it() -> None:
    told = stored("gw2", VrrpState.BACKUP)
    for others, silent in (((told,), ()), ((), ("gw2",))):
        with pytest.raises(ConfigError, match="nobody would take over"):
            heir(PAIR, HEARD, "gw1", others, silent, resting=("gw2",))
    assert heir(THREE, HEARD, "gw1", (told, stored("gw3", VrrpState.BACKUP)), (), resting=("gw2",)) == "gw3"
