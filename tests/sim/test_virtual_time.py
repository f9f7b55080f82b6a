"""The virtual clock itself: it jumps, keeps the order of timers, and names a deadlock."""

from __future__ import annotations

import asyncio

import pytest

from tests.sim.virtual_time import Deadlock, run_virtual


def test_a_day_of_sleeps_takes_no_time_and_keeps_its_order() -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, delay_s: float) -> None:
        start = asyncio.get_running_loop().time()
        await asyncio.sleep(delay_s)
        woken.append((name, asyncio.get_running_loop().time() - start))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, delay_s in (("day", 86400.0), ("second", 1.0), ("minute", 60.0)):
                group.create_task(sleeper(name, delay_s))

    run_virtual(main())
    assert [name for name, _ in woken] == ["second", "minute", "day"]
    assert [slept for _, slept in woken] == pytest.approx([1.0, 60.0, 86400.0])


def test_timeouts_fire() -> None:
    async def main() -> None:
        async with asyncio.timeout(3600):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        run_virtual(main())


def test_waiting_for_nothing_is_named() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        run_virtual(main())
