"""Long work on the event loop gives others their turn."""

from __future__ import annotations

import asyncio

SLICE_S = 0.003  # longest work without a turn for others; what is between two looks at the clock may come on top


class Turns:
    """One for each kind of long work: `await turns.take()` between its pieces."""

    def __init__(self) -> None:
        self._end = 0.0

    async def take(self) -> bool:
        """True if others had a turn."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._end:
            return False
        await asyncio.sleep(0)
        self._end = loop.time() + SLICE_S
        return True
