"""Nothing fails, but every core is busy: how often does the role move all the same?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from lbnode.lab.netns import Net
from tests.bench.failover.run import Scene

BUSY = (sys.executable, "-c", "while True: pass")


def false_takeovers(kinds: tuple[str, str], interval_s: float, seconds: float) -> int:
    """Addresses that either gateway lost within `seconds` while two busy loops ran on each core."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scene = Scene(stack.enter_context(Net(f"lbb-ca{os.getpid()}")), kinds, interval_s, directory)
        lost = [scene.lab.count_removals(name) for name in ("a", "b")]
        for _ in range(2 * (os.cpu_count() or 1)):
            process = stack.enter_context(subprocess.Popen(BUSY))
            stack.callback(process.kill)
        time.sleep(seconds)
        return sum(count() for count in lost)
