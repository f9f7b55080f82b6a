"""Random faults by the thousand, judged by goals (episode.PROFILES), and the seeds that once failed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.election.campaign import run_campaign
from tests.sim.election.episode import PROFILES, Episode
from tests.sim.election.figures import LEGEND, Figures, table

FEW, MANY = 2_000, 200_000  # cluster-seconds

# (profile, seed, number, what it found). The episode of a seed changes with the simulation, so each of these bugs has
# a story of its own too, in test_cluster or in the machine's tests.
FOUND = [
    ("preempt-storm", 1, 3, "an Active that was paused just then was preempted while its kernel served"),
    ("preempt-storm", 1, 11, "the same, from the queue of a process that had been paused itself"),
    ("preempt-storm", 1, 18, "the same, with four nodes"),
    ("2-lan", 1, 3, "nobody took over from a node without clients that its peers heard on the second path"),
    ("3-isolation", 1, 3, "an owner that was cut off but for the store vouched for itself"),
    ("3-isolation", 1, 11, "an answer of the owner counted for a later silence"),
    ("3-isolation", 1, 13, "an owner gave up for a node that had yielded before its claim was written"),
    ("3-partition", 1, 44, "an owner vouched for itself with peers that were cut off from the clients as well"),
    ("3-deafness", 1, 13, "the same, again and again, among nodes of equal priority"),
    ("3-storm", 1, 3, "two Actives yielded to each other, one by epoch, one by priority"),
    ("3-consistency", 2036, 6, "the same after a heal, and then they waited too long for a third to speak"),
    (
        "3-isolation",
        95001,
        176,
        "a claim that the store delivered late was taken for a sign of life of who had made it",
    ),
    ("3-local", 2060, 8, "the same, after local faults alone"),
]


def problems(results: dict[str, Figures]) -> str:
    return "\n".join(violation for figures in results.values() for violation in figures.violations)


@pytest.mark.parametrize("seed", [101, 102])
def test_a_short_campaign_meets_every_goal(seed: int) -> None:
    assert not problems(run_campaign(FEW, seed))


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_a_long_campaign_meets_every_goal(record_property: Callable[[str, object], None]) -> None:
    results = run_campaign(MANY, seed=1)
    title = f"\nelection, {MANY} simulated cluster-seconds"
    record_property("figures", "\n".join((title, table(results.items()), LEGEND)))
    assert not problems(results)
    assert sum(figures.seconds for figures in results.values()) >= MANY


@pytest.mark.parametrize("profile", PROFILES)
def test_episodes_replay_bit_by_bit(profile: str) -> None:
    first, again, other = (Episode(PROFILES[profile], seed, 0).run().digest for seed in (5, 5, 6))
    assert first == again != other


@pytest.mark.parametrize(("profile", "seed", "number", "found"), FOUND)
def test_a_seed_that_failed_once(profile: str, seed: int, number: int, found: str) -> None:
    assert Episode(PROFILES[profile], seed, number).run().violations == []
