"""Allocation of map elements: nothing is handed out twice, everything given back can be used again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.dataplane.xdp.allocate import IndexPool, RangePool


@settings(max_examples=50)
@given(st.sets(st.integers(1, 20)), st.lists(st.booleans(), max_size=60))
def test_indexes_are_unique_and_all_of_them_can_be_used(reserved: set[int], steps: list[bool]) -> None:
    pool = IndexPool(20, first=1)
    for index in sorted(reserved, reverse=True):
        pool.reserve(index)
    used = set(reserved)
    for take in steps:
        if take:
            index = pool.take()
            assert (index is None) == (len(used) == 20)
            if index is not None:
                assert index not in used and 1 <= index <= 20
                used.add(index)
        elif used:
            pool.give(used.pop())
    assert len(pool) == len(used)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=60))
def test_ranges_never_overlap_and_merge_again(steps: list[tuple[bool, int]]) -> None:
    pool = RangePool(100, first=7)
    held: list[tuple[int, int]] = []
    for now, (take, length) in enumerate(steps):
        if take or not held:
            start = pool.take(length, now)
            if start is not None:
                assert start >= 7 and start + length <= 107
                assert all(start + length <= other or other + n <= start for other, n in held)
                held.append((start, length))
        else:
            pool.retire(*held.pop(length % len(held)), until=now)
    for start, length in held:
        pool.retire(start, length, until=1000)
    assert pool.take(100, 1000) == 7


def test_a_retired_range_waits() -> None:
    pool = RangePool(10)
    assert pool.take(10, 0.0) == 0
    pool.retire(0, 10, until=1.0)
    assert pool.take(1, 0.9) is None
    assert pool.take(10, 1.0) == 0


def test_what_the_maps_hold_is_respected() -> None:
    pool = RangePool(10)
    pool.reserve(3, 4)
    assert (pool.take(4, 0), pool.take(3, 0), pool.take(3, 0)) == (None, 0, 7)
    with pytest.raises(ValueError, match="not free"):
        pool.reserve(5, 1)
