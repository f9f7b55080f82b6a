"""Spread of the first round, bounds of the jitter, fairness, and no leak under churn."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthcheck.schedule import FIRST_ROUND_S, Schedule

EVERYTHING = 10**9


@given(st.floats(0.01, 3600), st.floats(0, 0.9), st.integers(0, 2**32))
def test_the_first_probe_comes_within_the_interval_and_a_second(interval_s: float, jitter: float, seed: int) -> None:
    schedule: Schedule[str] = Schedule(Random(seed))
    schedule.add("a", interval_s, jitter, now=100.0)
    due = schedule.next_due()
    assert due is not None and 100.0 <= due <= 100.0 + min(interval_s, FIRST_ROUND_S)


@given(st.floats(0.01, 3600), st.floats(0, 0.9), st.integers(0, 2**32))
def test_intervals_stay_within_the_jitter_and_do_not_drift_with_slow_probes(
    interval_s: float, jitter: float, seed: int
) -> None:
    schedule: Schedule[str] = Schedule(Random(seed))
    schedule.add("a", interval_s, jitter, now=0.0)
    last = schedule.next_due()
    for _ in range(20):
        assert last is not None
        assert schedule.take_due(last, EVERYTHING) == ["a"]
        schedule.put_back("a", last + interval_s * (1 - jitter) / 2)  # the probe took a while
        due = schedule.next_due()
        assert due is not None
        assert interval_s * (1 - jitter) - 1e-6 <= due - last <= interval_s * (1 + jitter) + 1e-6
        last = due


def test_ten_thousand_first_probes_are_spread_evenly() -> None:
    schedule: Schedule[int] = Schedule(Random(1))
    for key in range(10_000):
        schedule.add(key, 5.0, 0.1, now=0.0)
    per_100_ms = [len(schedule.take_due(now / 10, EVERYTHING)) for now in range(1, 11)]
    assert sum(per_100_ms) == 10_000
    assert max(per_100_ms) < 1200 and min(per_100_ms) > 800


def test_a_taken_item_is_not_taken_again_before_it_is_back() -> None:
    schedule: Schedule[str] = Schedule(Random(1))
    schedule.add("a", 1.0, 0.0, now=0.0)
    assert schedule.take_due(5.0, 10) == ["a"]
    assert schedule.take_due(500.0, 10) == [] and schedule.next_due() is None
    schedule.put_back("a", 7.0)
    assert schedule.next_due() == 7.0  # longer than its interval: again at once, and no burst to catch up
    assert schedule.take_due(7.0, 10) == ["a"] and schedule.take_due(7.0, 10) == []


def test_at_once() -> None:
    schedule: Schedule[str] = Schedule(Random(1))
    schedule.add("a", 60.0, 0.0, now=0.0)
    schedule.take_due(1.0, 1)
    schedule.put_back("a", 2.0, at_once=True)
    assert schedule.next_due() == 2.0


def test_with_too_little_room_everybody_still_has_a_turn() -> None:
    """1000 items due each second, room for 100 probes a second: ten rounds probe each item about once."""
    schedule: Schedule[int] = Schedule(Random(3))
    for key in range(1000):
        schedule.add(key, 1.0, 0.1, now=0.0)
    probes: Counter[int] = Counter()
    for second in range(1, 51):
        taken = schedule.take_due(float(second), 100)
        probes.update(taken)
        for key in taken:
            schedule.put_back(key, float(second))
    assert len(probes) == 1000
    assert min(probes.values()) >= 4 and max(probes.values()) <= 6


def test_removed_items_are_gone_even_when_taken() -> None:
    schedule: Schedule[str] = Schedule(Random(1))
    schedule.add("waiting", 1.0, 0.1, now=0.0)
    schedule.remove("waiting")
    assert schedule.next_due() is None and schedule.take_due(9.0, 9) == [] and len(schedule) == 0
    with pytest.raises(KeyError):
        schedule.put_back("waiting", 1.0)


def test_adding_again_replaces_the_due_time() -> None:
    schedule: Schedule[str] = Schedule(Random(1))
    schedule.add("a", 1.0, 0.1, now=0.0)
    schedule.add("a", 1.0, 0.1, now=50.0)
    assert schedule.take_due(49.0, 9) == [] and schedule.take_due(60.0, 9) == ["a"]
    assert schedule.take_due(60.0, 9) == []


def test_churn_leaves_nothing_behind() -> None:
    schedule: Schedule[int] = Schedule(Random(1))
    for key in range(20_000):
        schedule.add(key, 60.0, 0.1, now=0.0)
        if key >= 10:
            schedule.remove(key - 10)
    assert len(schedule) == 10 and len(schedule._heap) < 200


@pytest.mark.parametrize(("interval_s", "jitter"), [(0.0, 0.1), (-1.0, 0.1), (1.0, 1.0), (1.0, -0.1)])
def test_nonsense_is_refused(interval_s: float, jitter: float) -> None:
    with pytest.raises(ValueError, match="jitter"):
        Schedule(Random(1)).add("a", interval_s, jitter, now=0.0)
