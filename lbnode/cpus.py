"""Which CPU long system calls run on, and which ones are kept clear of them.

A kernel that does not preempt itself (preempt=none) gives a CPU back only when the system call ends: making a map of
2 GB takes it seconds, and a real-time process that was to run on that CPU waits for as long. So whatever makes large
maps does it on one CPU, and the election process, whose advertisements must not be late, stays on the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def for_long_calls(cpus: set[int]) -> set[int]:
    return {min(cpus)}


def kept_clear(cpus: set[int]) -> set[int]:
    """A machine with one CPU has no choice."""
    return cpus - for_long_calls(cpus) or cpus


@contextmanager
def long_call() -> Iterator[None]:
    """This thread makes one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, for_long_calls(before))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
