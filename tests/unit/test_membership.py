"""What a node shows of the others: what they published, less what this node knows better."""

from __future__ import annotations

from dataclasses import replace

from lbnode.control import NodeInfo
from lbnode.membership import DEATH_IS_SEEN_AFTER_S, decode, encode, without_superseded
from lbnode.model import Role, VrrpState

NOW = 1_000_000.0
DEAD = NodeInfo("gw2", "1", 0.0, (Role("front", VrrpState.ACTIVE, 150, NOW - 60, "nobody was heard"),), 7, 0)
TAKEN = Role("front", VrrpState.ACTIVE, 250, NOW - 1, "no advertisement from gw2 for 302 ms")


def states(*mine: Role, now: float = NOW) -> list[str]:
    return [role.state for role in without_superseded(DEAD, mine, now).roles]


def test_what_is_published_is_read_back() -> None:
    assert decode(encode(replace(DEAD, seen=5.0))) == DEAD


def test_a_node_whose_group_was_just_taken_over_is_not_shown_as_active() -> None:
    assert states(TAKEN) == ["initialize"]
    assert states(replace(TAKEN, state=VrrpState.BACKUP)) == states(replace(TAKEN, group="back")) == ["active"]


def test_it_is_shown_as_active_if_it_goes_on_or_became_so_later() -> None:
    assert states(TAKEN, now=NOW + DEATH_IS_SEEN_AFTER_S) == ["active"]
    assert states(replace(TAKEN, since=NOW - 61)) == ["active"]
