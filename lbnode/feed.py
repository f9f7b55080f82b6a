"""The configuration feed: store -> resolve -> Watched[Resolution], with the last good state on disk behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from lbnode.config.keys import is_config_key
from lbnode.config.resolve import Resolution, resolve
from lbnode.delta import changed_keys
from lbnode.journal import Journal, Kind
from lbnode.model import Problem, Severity
from lbnode.store.base import Entry, Store, View
from lbnode.store.cache import ConfigCache
from lbnode.watched import Watched

# How long a start waits for the store before it takes the configuration from the disk cache.
CACHE_AFTER_S = 2.0

log = logging.getLogger(__name__)


class ConfigFeed:
    """`resolution` is None until a configuration is known, from the store or from the cache.

    A configuration's revision is the store revision at which its keys last changed: keys of nodes/ and owners/ do not
    count, so that publishing "programmed at revision N" is no new revision to program.
    """

    def __init__(
        self, store: Store, cache: ConfigCache, journal: Journal, observe: Callable[[View], None] = lambda _: None
    ) -> None:
        self.resolution: Watched[Resolution | None] = Watched(None)
        self._store = store
        self._cache = cache
        self._journal = journal
        self._observe = observe
        self._taking = asyncio.Lock()
        self._cached: View | None = None
        self._good: Mapping[str, Entry] = {}

    async def run(self) -> None:
        cached = await asyncio.to_thread(self._cache.load)
        if self._cache.problem:
            self._journal.record(Kind.CONFIG, str(self._cache.path), "cache not usable", self._cache.problem)
        if cached is not None:
            self._good = cached.entries
            self._cached = cached
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._save())
            tasks.create_task(self._record_health())
            if cached is not None:
                tasks.create_task(self._start_from(cached))

    async def _start_from(self, cached: View) -> None:
        await asyncio.sleep(CACHE_AFTER_S)
        if self.resolution.value is None:
            why = self._store.health.value.problem or "the store does not answer"
            self._journal.record(Kind.CONFIG, f"revision {cached.revision}", "taken from the disk cache", why)
            await self._take(cached, unless_known=True)

    async def _record_health(self) -> None:
        """Into the journal when the store is lost and when it is back; a flapping reason alone is no event."""
        connected: bool | None = None
        async for health in self._store.health.changes():
            if health.connected:
                if connected is not True:
                    self._journal.record(Kind.STORE, health.kind, "connected", health.endpoint)
                connected = True
            elif connected:
                self._journal.record(Kind.STORE, health.kind, "not connected", health.problem)
                connected = False

    async def _follow(self) -> None:
        async for view in self._store.watch():
            self._observe(view)
            await self._take(view)

    async def _take(self, view: View, *, unless_known: bool = False) -> None:
        async with self._taking:
            if not (unless_known and self.resolution.value is not None):
                await self._resolve(view)

    async def _resolve(self, view: View) -> None:
        entries = {key: entry for key, entry in view.entries.items() if is_config_key(key)}
        known = self.resolution.value
        if not entries and known is None and self._cached is not None and view.revision < self._cached.revision:
            await self._resolve(self._cached)
            known = self.resolution.value
        if known is not None and known.config.services and not entries and view.revision < known.config.revision:
            self._keep_in_force(view, known)
            return
        changed = changed_keys(known.entries if known else {}, entries)
        if known is not None and not changed:
            return
        # The first time everything is new: seconds for 100k keys. Later only what changed is work.
        if known is None:
            resolution = await asyncio.to_thread(resolve, entries, self._good, view.revision)
        else:
            resolution = resolve(entries, known, view.revision)
        self._record_problems(resolution, known)
        if known is None:
            self._journal.record(Kind.CONFIG, f"revision {view.revision}", f"loaded {len(entries)} keys")
        else:
            for key in sorted(changed):
                self._record_change(key, known.entries.get(key), entries.get(key))
        self.resolution.set(resolution)

    def _keep_in_force(self, view: View, known: Resolution) -> None:
        """A store that went back in time and is empty was replaced or lost its data: nobody deleted all that."""
        problem = Problem(
            where="store",
            field="",
            message=f"came back empty at revision {view.revision}, known was {known.config.revision}: "
            "the configuration in force is kept",
            hint="restore the store from a backup, or apply the configuration again",
        )
        if problem not in known.problems:
            self._journal.record(Kind.STORE, "store", problem.message, problem.hint)
            self.resolution.set(replace(known, problems=(*known.problems, problem)))

    def _record_problems(self, resolution: Resolution, known: Resolution | None) -> None:
        before = frozenset(known.problems) if known else frozenset()
        for problem in resolution.problems:
            if problem not in before:
                what = "rejected" if problem.severity is Severity.ERROR else "doubtful"
                detail = f"{problem.field}: {problem.message}" if problem.field else problem.message
                hint = f" ({problem.hint})" if problem.hint else ""
                self._journal.record(Kind.CONFIG, problem.where, what, detail + hint)

    def _record_change(self, key: str, old: Entry | None, new: Entry | None) -> None:
        if new is None:
            self._journal.record(Kind.CONFIG, key, "deleted")
        elif old is None or old.value != new.value:
            self._journal.record(Kind.CONFIG, key, "created" if old is None else "changed", new.value)

    async def _save(self) -> None:
        """One write at a time, always of the newest; a full disk costs the cache, not the service."""
        seen = 0
        while True:
            seen = await self.resolution.wait_changed(seen)
            resolution = self.resolution.value
            assert resolution is not None
            try:
                await asyncio.to_thread(self._write_cache, resolution)
            except OSError as error:
                self._journal.record(Kind.CONFIG, str(self._cache.path), "cache not written", str(error))

    def _write_cache(self, resolution: Resolution) -> None:
        self._cache.save(View(resolution.config.revision, resolution.good))
