"""Watched[T]: the channel between parts: the latest value, and waiting for a newer one. Coalesces, never queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Watched(Generic[T]):
    """Holds one value. Readers that are slow see fewer values, never old ones and never a growing queue.

    For use within one event loop. `set` with an equal value wakes nobody.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 0
        self._changed = asyncio.Event()

    @property
    def value(self) -> T:
        return self._value

    @property
    def version(self) -> int:
        """Grows by one with each change."""
        return self._version

    def set(self, value: T) -> None:
        if value == self._value:
            return
        self._value = value
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def update(self, change: Callable[[T], T]) -> None:
        self.set(change(self._value))

    async def wait_changed(self, seen: int) -> int:
        """Return the version once it differs from `seen`; at once if it already does."""
        while self._version == seen:
            await self._changed.wait()
        return self._version

    async def changes(self) -> AsyncIterator[T]:
        """The present value, then each newer one that the reader is fast enough to see."""
        while True:
            seen = self._version
            yield self._value
            await self.wait_changed(seen)


async def changes_of(*watched: Watched[Any]) -> AsyncIterator[None]:
    """Yields at once, then each time any of `watched` has changed since the last yield."""
    while True:
        seen = [one.version for one in watched]
        yield
        waiting = [asyncio.ensure_future(one.wait_changed(version)) for one, version in zip(watched, seen, strict=True)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
