"""Follows a store's watch in the background and waits for what it shall show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lbnode.store.base import Store, StoreHealth, View

PATIENCE_S = 30.0


class Follower:
    """`views` are all that the watch has yielded."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self._more = asyncio.Event()

    async def run(self, store: Store) -> None:
        async for view in store.watch():
            self.views.append(view)
            self._more.set()

    async def until(self, wanted: Callable[[View], bool]) -> View:
        """The newest view once it is as wanted."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (self.views and wanted(self.views[-1])):
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            seen = values(self.views[-1]) if self.views else "nothing"
            raise AssertionError(f"the watch never showed what was waited for; last: {str(seen)[:500]}") from None
        return self.views[-1]

    async def until_value(self, key: str, value: str | None) -> View:
        return await self.until(lambda view: values(view).get(key) == value)


@asynccontextmanager
async def follow(store: Store) -> AsyncIterator[Follower]:
    """Begin to watch `store`, and wait for the first view."""
    follower = Follower()
    task = asyncio.create_task(follower.run(store))
    try:
        await follower.until(lambda _view: True)
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def values(view: View) -> dict[str, str]:
    return {key: entry.value for key, entry in view.entries.items()}


async def health_until(store: Store, wanted: Callable[[StoreHealth], bool]) -> StoreHealth:
    """The store's health once it is as wanted."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for health in store.health.changes():
                if wanted(health):
                    return health
    except TimeoutError:
        pass
    raise AssertionError(f"health is still {store.health.value}")
