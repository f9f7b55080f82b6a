"""Deliberate bugs are caught, and by the figure that is meant to catch them."""

from __future__ import annotations

import pytest

from tests.sim.election.episode import PROFILES, Episode
from tests.sim.election.mutants import MUTANTS, preempts_without_waiting
from tests.sim.election.test_cluster import SEEDS, preempted

CAUGHT_BY = {
    "lease of 4 intervals": "two nodes served for",
    "no socket drain": "took over from",
    "no announcement on contact": "clients look for the VIP at the wrong node",
    "loser says nothing": "clients look for the VIP at the wrong node",
    "tie rule inverted": "yielded to the lesser claim",
    "two intervals of patience": "two nodes served for",
    "holds on without the gateway": "dark for",
    "does not care who hears it": "two nodes served for",
    "heir starts anew": "dark for",
    "heir counts in its own interval": "dark for",
}
EPISODES = 60


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it, profile = MUTANTS[name]
    assert [Episode(PROFILES[profile], 7, number).run().violations for number in range(5)] == [[]] * 5
    break_it(monkeypatch)
    found = (
        violation for number in range(EPISODES) for violation in Episode(PROFILES[profile], 7, number).run().violations
    )
    assert any(CAUGHT_BY[name] in violation for violation in found), f"{name} was not caught in {EPISODES} episodes"


def test_one_that_preempts_without_waiting_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the story alone, test_cluster has it: the overlap is the time that an advertisement takes."""
    preempts_without_waiting(monkeypatch)
    assert all(preempted(seed).judge.double.total > 0 for seed in SEEDS)
