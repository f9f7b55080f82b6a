"""Exponential back-off per object. Pure: the time is an argument (monotonic seconds)."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_S = 0.1
FACTOR = 2.0
MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Failure:
    wanted: object  # what failed; when something else is wanted, it is tried at once
    attempts: int
    retry_at: float  # monotonic seconds; infinity = not until something else is wanted


class Backoff(Generic[K]):
    """Which objects failed, and when each is due again."""

    def __init__(self) -> None:
        self._failures: dict[K, Failure] = {}
        self._heap: list[tuple[float, int, K]] = []  # may hold outdated items; the dict decides
        self._order = count()

    def __len__(self) -> int:
        return len(self._failures)

    def __contains__(self, key: K) -> bool:
        return key in self._failures

    def failed(self, key: K, wanted: object, now: float, *, retry: bool = True) -> Failure:
        """Note a failed attempt to reach `wanted`."""
        before = self._failures.get(key)
        attempts = before.attempts + 1 if before is not None and before.wanted == wanted else 1
        retry_at = now + min(FIRST_S * FACTOR ** min(attempts - 1, 60), MAX_S) if retry else float("inf")
        failure = self._failures[key] = Failure(wanted, attempts, retry_at)
        if retry:
            heapq.heappush(self._heap, (retry_at, next(self._order), key))
        return failure

    def clear(self, key: K) -> bool:
        """Forget the object's failures; True if it had any."""
        return self._failures.pop(key, None) is not None

    def may_try(self, key: K, wanted: object, now: float) -> bool:
        if not self._failures:  # hashing the addresses in keys takes most of a large start
            return True
        failure = self._failures.get(key)
        return failure is None or failure.wanted != wanted or failure.retry_at <= now

    def due(self, now: float) -> list[K]:
        """Objects whose time has come. They stay failed until `clear` or `failed`."""
        found = []
        while (at := self.next_at()) is not None and at <= now:
            found.append(heapq.heappop(self._heap)[2])
        return found

    def next_at(self) -> float | None:
        """When `due` will next return something."""
        while self._heap:
            at, _, key = self._heap[0]
            failure = self._failures.get(key)
            if failure is not None and failure.retry_at == at:
                return at
            heapq.heappop(self._heap)
        return None
