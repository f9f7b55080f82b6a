"""Nothing fails, but every core is busy: how often does the role move all the same?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from tests.bench.failover.run import scene

BUSY = (sys.executable, "-c", "while True: pass")


def false_takeovers(pairs: Sequence[tuple[tuple[str, str], float]], seconds: float) -> list[int]:
    """Of each pair (kinds, interval in seconds), all at once: addresses that either gateway lost within `seconds` while
    two busy loops ran on each core."""
    with ExitStack() as stack:
        scenes = [stack.enter_context(scene(*pair, number)) for number, pair in enumerate(pairs)]
        for each in scenes:
            each.settle()
        lost = [[each.lab.count_removals(name) for name in ("a", "b")] for each in scenes]
        for _ in range(2 * (os.cpu_count() or 1)):
            process = stack.enter_context(subprocess.Popen(BUSY))
            stack.callback(process.kill)
        time.sleep(seconds)
        return [sum(count() for count in counts) for counts in lost]
