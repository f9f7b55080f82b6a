"""The configuration feed with a store in memory: what is taken over, kept, recorded and cached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbnode.feed import ConfigFeed
from lbnode.journal import Journal
from lbnode.store.base import Entry, StoreHealth, View
from lbnode.store.cache import ConfigCache
from lbnode.watched import Watched

WEB = "services/tcp:192.0.2.10:80"
SERVER = f"{WEB}/servers/198.51.100.31:80"


class Views:
    """The part of a store that the feed uses: a sequence of views."""

    def __init__(self) -> None:
        self.health = Watched(StoreHealth("test", False, "", 0.0, "no endpoint answers"))
        self.queue: asyncio.Queue[View] = asyncio.Queue()

    async def watch(self) -> AsyncIterator[View]:
        while True:
            yield await self.queue.get()

    def show(self, revision: int, **values: Any) -> None:
        entries = {key: Entry(value, revision) for key, value in values.items()}
        self.queue.put_nowait(View(revision, entries))


class Case:
    def __init__(self, path: Path) -> None:
        self.store = Views()
        self.cache = ConfigCache(path / "cache")
        self.journal = Journal("gw1")
        self.seen: list[int] = []
        self.feed = ConfigFeed(self.store, self.cache, self.journal, self.observe)  # type: ignore[arg-type]

    def observe(self, view: View) -> None:
        self.seen.append(view.revision)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    def services(self) -> list[str]:
        resolution = self.feed.resolution.value
        return [str(key) for key in resolution.config.services] if resolution else []

    def told(self) -> str:
        return "\n".join(f"{event.what} {event.message} {event.why}" for event in self.journal.since(0))


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    case = Case(tmp_path)
    task = asyncio.create_task(case.feed.run())
    yield case
    task.cancel()
    await asyncio.wait([task])


GOOD = {WEB: json.dumps({"scheduler": "wrr"}), SERVER: json.dumps({"weight": 2})}


async def test_nodes_keys_are_no_new_revision(case: Case) -> None:
    entries = {key: Entry(value, 5) for key, value in GOOD.items()}
    case.store.queue.put_nowait(View(5, entries))
    await case.until(lambda: bool(case.services()))
    seen = case.feed.resolution.version
    case.store.queue.put_nowait(View(7, {**entries, "nodes/gw2": Entry("{}", 7)}))
    await case.until(lambda: 7 in case.seen)
    case.store.queue.put_nowait(View(8, {**entries, SERVER: Entry('{"weight": 3}', 8)}))
    await case.until(lambda: case.feed.resolution.version > seen)
    assert case.feed.resolution.version == seen + 1
    assert case.feed.resolution.value is not None
    assert case.feed.resolution.value.config.revision == 8


async def test_changes_and_problems_are_journalled_and_good_values_cached(case: Case) -> None:
    case.store.show(5, **GOOD)
    await case.until(lambda: bool(case.services()))
    case.store.show(6, **{WEB: GOOD[WEB], SERVER: '{"weight": -1}'})
    await case.until(lambda: "rejected" in case.told())
    assert f"{SERVER} changed" in case.told()
    resolution = case.feed.resolution.value
    assert resolution is not None
    assert next(iter(resolution.config.services.values())).servers[0].weight == 2
    await case.until(lambda: (view := case.cache.load()) is not None and view.entries[SERVER].value == GOOD[SERVER])
    case.store.show(7, **{WEB: GOOD[WEB]})
    await case.until(lambda: f"{SERVER} deleted" in case.told())


async def test_deleting_everything_is_obeyed(case: Case) -> None:
    case.store.show(5, **GOOD)
    await case.until(lambda: bool(case.services()))
    case.store.show(6)
    await case.until(lambda: not case.services())


async def test_a_store_that_comes_back_empty_unloads_nothing(case: Case) -> None:
    case.store.show(50, **GOOD)
    await case.until(lambda: bool(case.services()))
    case.store.show(1)
    await case.until(lambda: "came back empty" in case.told())
    assert case.services() == ["tcp:192.0.2.10:80"]
    resolution = case.feed.resolution.value
    assert resolution is not None
    assert any("came back empty" in problem.message for problem in resolution.problems)
    case.store.show(2, **{"services/tcp:192.0.2.11:80": "{}"})
    await case.until(lambda: case.services() == ["tcp:192.0.2.11:80"])
    assert case.feed.resolution.value is not None
    assert case.feed.resolution.value.problems == ()


async def test_a_silent_store_starts_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbnode.feed.CACHE_AFTER_S", 0.01)
    case = Case(tmp_path)
    case.cache.save(View(9, {key: Entry(value, 9) for key, value in GOOD.items()}))
    task = asyncio.create_task(case.feed.run())
    try:
        await case.until(lambda: case.services() == ["tcp:192.0.2.10:80"])
        assert "taken from the disk cache no endpoint answers" in case.told()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_restart_beside_an_emptied_store_keeps_the_cache(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.cache.save(View(90, {key: Entry(value, 90) for key, value in GOOD.items()}))
    case.store.show(1)
    task = asyncio.create_task(case.feed.run())
    try:
        await case.until(lambda: "came back empty" in case.told())
        assert case.services() == ["tcp:192.0.2.10:80"]
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_journal_tells_when_the_store_is_lost_and_back(case: Case) -> None:
    lost = StoreHealth("etcd", False, "", 0.0, "no etcd member answers")
    back = StoreHealth("etcd", True, "198.51.100.11:2379", 0.0)
    for health, told in ((back, "etcd connected 198.51.100.11:2379"), (lost, "etcd not connected no etcd member")):
        case.store.health.set(health)
        await case.until(lambda told=told: told in case.told())  # type: ignore[misc]
    case.store.health.set(replace(lost, problem="another reason"))
    case.store.health.set(back)
    await case.until(lambda: case.told().count("etcd connected") == 2)
    assert case.told().count("not connected") == 1
