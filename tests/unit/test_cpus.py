"""Long system calls and the election process keep to different CPUs."""

from __future__ import annotations

import os

import pytest

from lbnode import cpus


@pytest.mark.parametrize(
    ("there_are", "long_calls", "clear"),
    [({0, 1, 2, 3}, {0}, {1, 2, 3}), ({2, 5}, {2}, {5}), ({3}, {3}, {3})],
)
def test_they_share_a_cpu_only_where_there_is_one(there_are: set[int], long_calls: set[int], clear: set[int]) -> None:
    assert cpus.for_long_calls(there_are) == long_calls
    assert cpus.kept_clear(there_are) == clear


def test_a_thread_goes_back_to_where_it_was() -> None:
    before = os.sched_getaffinity(0)
    with cpus.long_call():
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
