"""An event loop whose clock jumps: a sleep takes no time, an hour of timers runs as fast as its callbacks.

`run_virtual(main())` is asyncio.run() on such a loop. `loop.time()` is the only clock that moves; code under test has
to take its time from there (or get it as an argument). Meant for code without sockets: whenever no callback is ready,
the clock jumps to the next timer at once, so an answer from a real socket would always come too late.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: on a real clock the program would wait for ever."""


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: the time it was told to wait is added to `now` instead."""

    def __init__(self, start_s: float) -> None:
        super().__init__()
        self.now = start_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Deadlock("every task waits for something that nobody will do, and no timer is set")
            self.now += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self, start_s: float = 1000.0) -> None:
        self._jumping = _JumpingSelector(start_s)
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a fresh virtual-time loop. Deadlock is raised instead of hanging."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
