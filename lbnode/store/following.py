"""What all stores share: one background task follows the keys for all readers, leases are kept, health is told."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from lbnode.store.base import Expect, Lease, StoreHealth, View
from lbnode.store.keyspace import Keyspace
from lbnode.store.lease import KeptLease
from lbnode.watched import Watched


class FollowingStore(ABC):
    """Store of store/base.py but for its calls. `_follow` is started by the first `watch()`."""

    def __init__(self, kind: str, endpoint: str) -> None:
        self.health: Watched[StoreHealth] = Watched(
            StoreHealth(kind, connected=False, endpoint=endpoint, since=time.time(), problem="not connected yet")
        )
        self._keyspace = Keyspace()
        self._steps: Watched[int] = Watched(0)  # grows with each change of the keyspace
        self._following = False
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None

    @abstractmethod
    async def snapshot(self) -> View: ...

    @abstractmethod
    async def txn(self, puts: Mapping[str, str], deletes: Sequence[str] = (), expect: Sequence[Expect] = ()) -> int: ...

    @abstractmethod
    async def grant(self, ttl_s: int) -> int: ...

    @abstractmethod
    async def keep_alive(self, lease_id: int) -> bool: ...

    @abstractmethod
    async def put_leased(self, lease_id: int, puts: Mapping[str, str]) -> None: ...

    @abstractmethod
    async def revoke(self, lease_id: int) -> None: ...

    @abstractmethod
    async def _follow(self) -> None:
        """Keep the keyspace up to date for ever, and call `_step` after each change and after the first list."""

    @abstractmethod
    async def _disconnect(self) -> None: ...

    async def watch(self) -> AsyncIterator[View]:
        if not self._following and not self._closed:
            self._following = True
            self._spawn(self._follow())
        async for step in self._steps.changes():
            if self._crash is not None:
                raise self._crash
            if self._closed:
                return
            if step:
                yield self._keyspace.view()

    async def lease(self, ttl_s: int) -> Lease:
        """Returns at once: it is granted with the first put, so that a node can start while its store is away."""
        lease = KeptLease(self, ttl_s)
        self._spawn(lease.keep())
        return lease

    async def close(self) -> None:
        """Ends all watches. Leases are not revoked: their keys stay until they expire."""
        if self._closed:
            return
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._step()
        await self._disconnect()

    def _report(self, connected: bool, endpoint: str, problem: str = "") -> None:
        old = self.health.value
        since = old.since if old.connected == connected else time.time()
        self.health.set(StoreHealth(old.kind, connected, endpoint, since, problem))

    def _step(self) -> None:
        self._steps.update(lambda step: step + 1)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A background task that raised is a bug: hand it to whoever watches."""
        self._tasks.discard(task)
        if not task.cancelled() and (crash := task.exception()) is not None:
            self._crash = crash
            self._step()
