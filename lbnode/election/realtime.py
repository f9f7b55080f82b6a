"""Scheduling of the election process: a late advertisement may move a VIP."""

from __future__ import annotations

import ctypes
import gc
import os

from lbnode.cpus import kept_clear


def become_realtime() -> str:
    """SCHED_FIFO, CPUs without long system calls, locked memory, frozen heap.

    Returns what could not be had, with its consequence; "" = all.
    """
    os.sched_setaffinity(0, kept_clear(os.sched_getaffinity(0)))
    problems = [problem for problem in (_raise_priority(), _lock_memory()) if problem]
    gc.collect()
    gc.freeze()
    return "; ".join(problems)


def _raise_priority() -> str:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except OSError as error:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        except OSError:
            return f"no real-time priority and no nice -20 ({error.strerror}): a busy CPU may move VIPs"
        return f"no real-time priority ({error.strerror}): keep advert_interval at 0.1 s or more"
    return ""


def _lock_memory() -> str:
    mcl_current, mcl_future = 1, 2
    if ctypes.CDLL(None, use_errno=True).mlockall(mcl_current | mcl_future) != 0:
        return f"memory is not locked ({os.strerror(ctypes.get_errno())}): swapping may delay advertisements"
    return ""
