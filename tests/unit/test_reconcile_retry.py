"""Back-off: doubles to a bound, ends when something else is wanted, forgets nothing that is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.reconcile.retry import FIRST_S, MAX_S, Backoff


def test_delays_double_up_to_the_bound() -> None:
    backoff: Backoff[str] = Backoff()
    now, delays = 100.0, []
    for _ in range(12):
        failure = backoff.failed("a", "wanted", now)
        delays.append(failure.retry_at - now)
        assert not backoff.may_try("a", "wanted", failure.retry_at - 0.01)
        assert backoff.may_try("a", "wanted", failure.retry_at)
        now = failure.retry_at
    assert delays == pytest.approx([min(FIRST_S * 2**attempt, MAX_S) for attempt in range(12)])


def test_another_wish_is_tried_at_once_and_starts_anew() -> None:
    backoff: Backoff[str] = Backoff()
    for _ in range(5):
        backoff.failed("a", 1, 0.0)
    assert backoff.may_try("a", 2, 0.0)
    assert backoff.failed("a", 2, 0.0).retry_at == FIRST_S


def test_what_is_unsupported_is_never_due() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.failed("a", 1, 0.0, retry=False)
    assert backoff.next_at() is None
    assert backoff.due(1e9) == []
    assert not backoff.may_try("a", 1, 1e9)
    assert backoff.may_try("a", 2, 0.0)
    assert "a" in backoff


def test_cleared_objects_are_not_due() -> None:
    backoff: Backoff[str] = Backoff()
    backoff.failed("a", 1, 0.0)
    backoff.failed("b", 1, 0.05)
    assert backoff.clear("a")
    assert not backoff.clear("a")
    assert backoff.next_at() == 0.05 + FIRST_S
    assert backoff.due(10.0) == ["b"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["fail", "clear", "never"]), st.floats(0, 5))))
def test_due_finds_exactly_the_failed_objects_whose_time_has_come(steps: list[tuple[str, str, float]]) -> None:
    backoff: Backoff[str] = Backoff()
    model: dict[str, float] = {}
    now = 0.0
    for key, what, wait in steps:
        now += wait
        due = backoff.due(now)
        assert sorted(due) == sorted(key for key, at in model.items() if at <= now)
        for name in due:  # as the driver does: what is due is tried, and fails again
            model[name] = backoff.failed(name, 1, now).retry_at
        if what == "clear":
            backoff.clear(key)
            model.pop(key, None)
        else:
            model[key] = backoff.failed(key, 1, now, retry=what == "fail").retry_at
    assert len(backoff) == len(model)
