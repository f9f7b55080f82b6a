"""The configuration store of a single node without etcd: SQLite in one file, the same contract as etcd's.

Other processes may open the same file (`lbctl` while the daemon runs): their commits are noticed within POLL_S.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lbnode.errors import StoreUnavailable
from lbnode.store.base import Entry, Expect, View
from lbnode.store.following import FollowingStore
from lbnode.store.keyspace import Change, check_transaction
from lbnode.store.lease import LeaseGone
from lbnode.store.sqlite_db import Database

POLL_S = 0.25  # one poll costs some 50 us

T = TypeVar("T")


def _hint(error: Exception) -> str:
    """What the operator can do."""
    code = getattr(error, "sqlite_errorcode", None)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return " (put a backup in its place, or move it away to begin with an empty configuration)"
    if code == sqlite3.SQLITE_BUSY:
        return " (by another process; which one: fuser FILE)"
    return ""


class EmbeddedStore(FollowingStore):
    """Store of store/base.py. All SQLite calls run in one thread of its own."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opened at first use; the file and its directory are made if need be."""
        super().__init__("embedded", str(path))
        self._path = Path(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedded-store")
        self._database: Database | None = None  # touched by that thread only, like:
        self._listed = False  # the keyspace was read from this database; False after it was opened anew
        self._written = asyncio.Event()  # we committed something: do not wait for the next poll

    async def snapshot(self) -> View:
        return View(*await self._run(Database.read_all))

    async def txn(self, puts: Mapping[str, str], deletes: Sequence[str] = (), expect: Sequence[Expect] = ()) -> int:
        check_transaction(puts, deletes)
        return await self._run(lambda database: database.write(puts, deletes, expect))

    async def grant(self, ttl_s: int) -> int:
        return await self._run(lambda database: database.grant(ttl_s))

    async def keep_alive(self, lease_id: int) -> bool:
        return await self._run(lambda database: database.keep_alive(lease_id))

    async def put_leased(self, lease_id: int, puts: Mapping[str, str]) -> None:
        if not await self._run(lambda database: database.write_leased(lease_id, puts)):
            raise LeaseGone

    async def revoke(self, lease_id: int) -> None:
        await self._run(lambda database: database.revoke(lease_id))

    async def _follow(self) -> None:
        while True:
            self._written.clear()
            try:
                news = await self._run(self._poll, wakes=False)
            except StoreUnavailable:
                news = []  # told in health; the last view stays
            if isinstance(news, list):
                changed = self._keyspace.apply(news)
            else:
                changed = self._keyspace.replace(*news) or self._steps.value == 0
            if changed:
                self._step()
            try:
                async with asyncio.timeout(POLL_S):
                    await self._written.wait()
            except TimeoutError:
                continue

    def _poll(self, database: Database) -> list[Change] | tuple[int, dict[str, Entry]]:
        """What changed since the keyspace's revision, or a complete list where that cannot be told."""
        changes = database.changes_after(self._keyspace.revision) if self._listed else None
        self._listed = True
        return database.read_all() if changes is None else changes

    async def _run(self, work: Callable[[Database], T], wakes: bool = True) -> T:
        """Run `work` in the thread. StoreUnavailable; the next call opens the file anew."""
        if self._closed:
            raise StoreUnavailable(f"{self._path}: the store was closed")
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, self._call, work)
        except (sqlite3.Error, OSError) as error:
            problem = f"{self._path}: {error}{_hint(error)}"
            self._report(connected=False, endpoint=str(self._path), problem=problem)
            raise StoreUnavailable(problem) from error
        self._report(connected=True, endpoint=str(self._path))
        if wakes:
            self._written.set()
        return result

    def _call(self, work: Callable[[Database], T]) -> T:
        if self._database is not None and self._database.replaced():
            self._discard()
        if self._database is None:
            self._database = Database(self._path)
        try:
            self._database.expire()
            return work(self._database)
        except sqlite3.Error:
            self._discard()
            raise

    def _discard(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
            self._listed = False

    async def _disconnect(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._discard)
        self._thread.shutdown()
