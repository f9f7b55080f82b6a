"""When to probe what: jittered intervals, and a first round that does not fire all at once. Pure.

`now` is any monotonic clock in seconds. An item is either waiting (it has a due time) or taken (a probe of it runs):
`take_due` takes items, `put_back` gives one its next due time, so that no item is ever probed twice at the same time.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_ROUND_S = 1.0  # the first probes are spread over the interval, but over no more than this


@dataclass(slots=True)
class _Item:
    interval_s: float
    jitter: float
    due: float  # of the waiting, or of the running probe
    serial: int  # distinguishes heap entries of this item from those of its past


class Schedule(Generic[K]):
    """Due times of items. Each interval is drawn from `interval_s * (1 ± jitter)`; O(log n) per probe."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._items: dict[K, _Item] = {}
        self._heap: list[tuple[float, int, K]] = []  # may hold stale entries: those whose serial is not the item's
        self._serial = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: K, interval_s: float, jitter: float, now: float) -> None:
        """Schedule (anew) an item. Its first probe comes at a random moment within min(interval, 1 s)."""
        if interval_s <= 0 or not 0 <= jitter < 1:
            raise ValueError(f"interval {interval_s} s must be above 0, jitter {jitter} at least 0 and below 1")
        due = now + self._random.uniform(0, min(interval_s, FIRST_ROUND_S))
        self._items[key] = item = _Item(interval_s, jitter, due, 0)
        self._push(key, item)

    def remove(self, key: K) -> None:
        """Forget an item, waiting or taken. KeyError if it is not there."""
        del self._items[key]
        self._compact()

    def take_due(self, now: float, limit: int) -> list[K]:
        """Take up to `limit` items that are due, the longest overdue first."""
        taken: list[K] = []
        while len(taken) < limit and self._heap and self._heap[0][0] <= now:
            _, serial, key = heapq.heappop(self._heap)
            if self._is_current(serial, key):
                taken.append(key)
        return taken

    def put_back(self, key: K, now: float, *, at_once: bool = False) -> float:
        """The item's probe has ended: give it its next due time, one drawn interval after its last one; return it.

        Counted from the due time, not from the end of the probe, so that slow answers do not stretch the interval;
        a probe that took longer than the interval is followed by the next one at once. `at_once`: so is this one.
        """
        item = self._items[key]
        drawn_s = item.interval_s * self._random.uniform(1 - item.jitter, 1 + item.jitter)
        item.due = now if at_once else max(item.due + drawn_s, now)
        self._push(key, item)
        return item.due

    def next_due(self) -> float | None:
        """When the next waiting item is due (may be in the past), None if none is waiting."""
        while self._heap and not self._is_current(self._heap[0][1], self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _push(self, key: K, item: _Item) -> None:
        self._serial += 1
        item.serial = self._serial
        heapq.heappush(self._heap, (item.due, item.serial, key))

    def _is_current(self, serial: int, key: K) -> bool:
        item = self._items.get(key)
        return item is not None and item.serial == serial

    def _compact(self) -> None:
        """Drop stale entries once they are the majority, so that churn does not grow the heap."""
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self._items):
            self._heap = [entry for entry in self._heap if self._is_current(entry[1], entry[2])]
            heapq.heapify(self._heap)
