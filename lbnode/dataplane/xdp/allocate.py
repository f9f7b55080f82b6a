"""Which parts of the fixed-size maps are in use. Pure; rebuilt from the maps' own content at every start."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque


class IndexPool:
    """Numbers first..first+size-1 for the elements of an array map; low numbers are handed out first."""

    def __init__(self, size: int, first: int = 0) -> None:
        self._next = first
        self._end = first + size
        self._free: list[int] = []
        self._used: set[int] = set()

    def reserve(self, index: int) -> None:
        """Mark as used what the maps already hold. Only before the first `take`."""
        self._used.add(index)

    def take(self) -> int | None:
        """A free number, or None if all are used."""
        if self._free:
            index = heapq.heappop(self._free)
        else:
            while self._next in self._used:
                self._next += 1
            index = self._next
            if index >= self._end:
                return None
        self._used.add(index)
        return index

    def give(self, index: int) -> None:
        self._used.remove(index)
        heapq.heappush(self._free, index)

    def __len__(self) -> int:
        return len(self._used)


class RangePool:
    """Consecutive ranges of an array map, first fit. A retired range is free again only some time later: a packet in
    flight may still read it."""

    def __init__(self, size: int, first: int = 0) -> None:
        self._free: list[tuple[int, int]] = [(first, size)] if size else []  # (start, length), sorted, never adjacent
        self._retired: deque[tuple[float, int, int]] = deque()

    def reserve(self, start: int, length: int) -> None:
        """Mark as used what the maps already hold; ValueError if it is used already."""
        if length == 0:
            return
        place = bisect_left(self._free, (start + 1, 0)) - 1
        if place < 0:
            raise ValueError(f"range {start}+{length} is not free")
        free_start, free_length = self._free[place]
        if start + length > free_start + free_length:
            raise ValueError(f"range {start}+{length} is not free")
        self._free[place : place + 1] = [
            part
            for part in ((free_start, start - free_start), (start + length, free_start + free_length - start - length))
            if part[1]
        ]

    def take(self, length: int, now: float) -> int | None:
        """Start of a range of this length, or None if no gap is long enough."""
        while self._retired and self._retired[0][0] <= now:
            _, start, retired = self._retired.popleft()
            self._give(start, retired)
        for place, (start, free) in enumerate(self._free):
            if free >= length:
                if free == length:
                    del self._free[place]
                else:
                    self._free[place] = (start + length, free - length)
                return start
        return None

    def retire(self, start: int, length: int, until: float) -> None:
        """Free from time `until` on."""
        if length:
            self._retired.append((until, start, length))

    def _give(self, start: int, length: int) -> None:
        place = bisect_left(self._free, (start, 0))
        if place < len(self._free) and self._free[place][0] == start + length:
            length += self._free.pop(place)[1]
        if place and sum(self._free[place - 1]) == start:
            start, length = self._free[place - 1][0], self._free.pop(place - 1)[1] + length
        insort(self._free, (start, length))
