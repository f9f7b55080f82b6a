"""Rise and fall, against a model that looks at the whole past instead of keeping a state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthcheck.spec import Health, Result, Verdict
from healthcheck.tracker import UNCHECKED, Tracker

OK = Result(True, "", 0.01)
COUNTS = st.integers(1, 5)


def failed(reason: str = "connect refused") -> Result:
    return Result(False, reason, 0.02)


def history_of(rise: int, fall: int, oks: list[bool]) -> list[Verdict]:
    tracker = Tracker(rise, fall)
    return [tracker.record(OK if ok else failed(), float(now)) for now, ok in enumerate(oks, 1)]


def test_nothing_is_known_before_the_first_probe() -> None:
    assert Tracker(2, 3).verdict == UNCHECKED
    assert UNCHECKED.health is Health.UNKNOWN


@pytest.mark.parametrize(("ok", "health"), [(True, Health.UP), (False, Health.DOWN)])
def test_the_first_result_decides_at_once(ok: bool, health: Health) -> None:
    assert history_of(5, 5, [ok])[0].health is health


def test_fall_then_rise() -> None:
    up, down = Health.UP, Health.DOWN
    found = history_of(2, 3, [True, False, False, True, False, False, False, True, False, True, True])
    assert [v.health for v in found] == [up, up, up, up, up, up, down, down, down, down, up]
    assert [v.streak for v in found] == [1, 1, 2, 1, 1, 2, 3, 1, 1, 1, 2]
    assert [v.since for v in found] == [1.0] * 6 + [7.0] * 4 + [11.0]
    assert [v.last_checked for v in found] == [float(n) for n in range(1, 12)]


@given(COUNTS, COUNTS, st.lists(st.booleans(), min_size=1, max_size=60))
def test_flips_exactly_after_enough_agreeing_results(rise: int, fall: int, oks: list[bool]) -> None:
    verdicts = history_of(rise, fall, oks)
    assert (verdicts[0].health is Health.UP) == oks[0]
    for n in range(1, len(oks)):
        was_up, is_up = verdicts[n - 1].health is Health.UP, verdicts[n].health is Health.UP
        needed = fall if was_up else rise
        recent = oks[max(0, n + 1 - needed) : n + 1]
        must_flip = len(recent) == needed and all(ok != was_up for ok in recent)
        assert (was_up != is_up) == must_flip
        assert verdicts[n].since == (n + 1.0 if must_flip else verdicts[n - 1].since)


@given(COUNTS, COUNTS, st.lists(st.sampled_from(["", "refused", "timeout"]), min_size=1, max_size=40))
def test_the_reason_is_that_of_the_latest_failure_until_it_is_over(rise: int, fall: int, reasons: list[str]) -> None:
    tracker = Tracker(rise, fall)
    latest = ""
    for now, reason in enumerate(reasons):
        verdict = tracker.record(failed(reason) if reason else OK, float(now))
        latest = reason or latest
        if reason or verdict.health is Health.DOWN:
            assert verdict.reason == latest
        else:
            assert verdict.reason == ""


def test_an_heir_goes_on_under_its_own_rules() -> None:
    old = Tracker(2, 3)
    old.record(OK, 1.0)
    old.record(failed(), 2.0)
    heir = Tracker(1, 2)
    heir.inherit(old)
    assert heir.verdict == old.verdict
    assert heir.record(failed(), 3.0).health is Health.DOWN  # the second failure in a row, one of them the old one's


@pytest.mark.parametrize(("rise", "fall"), [(0, 1), (1, 0), (-1, 2)])
def test_counts_below_one_are_refused(rise: int, fall: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Tracker(rise, fall)
