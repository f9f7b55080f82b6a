"""Watched: the latest value, never an old one, nobody woken for nothing."""

from __future__ import annotations

import asyncio

from lbnode.watched import Watched
from tests.sim.virtual_time import run_virtual


def test_a_slow_reader_sees_the_newest_value() -> None:
    async def main() -> None:
        watched = Watched(0)
        seen = []

        async def reader() -> None:
            async for value in watched.changes():
                seen.append(value)
                await asyncio.sleep(1)

        task = asyncio.create_task(reader())
        for value in range(1, 30):
            watched.set(value)
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        task.cancel()
        assert seen[-1] == 29
        assert len(seen) < 7
        assert seen == sorted(seen)

    run_virtual(main())


def test_equal_values_wake_nobody() -> None:
    async def main() -> None:
        watched = Watched(1)
        woken = asyncio.create_task(watched.wait_changed(watched.version))
        watched.set(1)
        await asyncio.sleep(1)
        assert not woken.done()
        watched.update(lambda value: value + 1)
        assert await woken == watched.version == 1
        assert watched.value == 2

    run_virtual(main())


def test_a_change_between_reading_and_waiting_is_not_missed() -> None:
    async def main() -> None:
        watched = Watched("a")
        seen = watched.version
        watched.set("b")
        assert await watched.wait_changed(seen) == 1

    run_virtual(main())
