"""Packets by CPU out of counters that are zeroed and change hands; moves out of one that wraps."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.xdp.counts import CpuPackets, Moves


def stats(*packets: int) -> bytes:
    """One service's element of `service_stats`: incoming packets by CPU, and one outgoing packet on each."""
    return b"".join(struct.pack("=5Q", 1, one, 1, 100, 100) for one in packets)


def test_what_is_zeroed_or_gone_is_not_taken_back() -> None:
    load = CpuPackets()
    load.update({})
    assert load.total == ()
    load.update({0: stats(10, 20), 3: stats(5, 0)})
    assert load.total == (17, 22)
    load.update({0: stats(0, 0), 3: stats(6, 0)})  # 0 was zeroed; each CPU has seen one packet out since
    assert load.total == (19, 23)
    load.update({0: stats(0, 4)})  # 3 was deleted
    load.update({0: stats(0, 4), 3: stats(9, 9)})  # its index has another service
    assert load.total == (29, 37)


@given(st.lists(st.lists(st.integers(0, 1000), min_size=2, max_size=2), max_size=20))
def test_it_only_grows(readings: list[list[int]]) -> None:
    load, last = CpuPackets(), (0, 0)
    for reading in readings:
        load.update({7: stats(*reading)})
        assert all(now >= then for now, then in zip(load.total, last, strict=True))
        last = load.total


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_moves_only_grow_although_their_counter_wraps(before: int, steps: list[int]) -> None:
    """`before`: those that an earlier daemon saw."""
    moves, moved = Moves(), before
    for step in (0, *steps):
        moved += step
        moves.update(struct.pack("=4I", 7, 8, moved % 2**32, 9))
        assert moves.total == moved
