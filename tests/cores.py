"""How many processes a test may start that only computes."""

from __future__ import annotations

import os


def cores() -> int:
    """All cores, unless other tests run meanwhile."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
