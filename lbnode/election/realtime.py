"""Scheduling of the election process: a late advertisement may move a VIP."""

from __future__ import annotations

import ctypes
import gc
import os


def become_realtime() -> str:
    """SCHED_FIFO, locked memory, frozen heap. Returns what could not be had, with its consequence; "" = all."""
    problem = ""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except OSError as error:
        problem = f"no real-time priority ({error.strerror}): keep advert_interval at 0.1 s or more"
        try:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        except OSError:
            problem = f"no real-time priority and no nice -20 ({error.strerror}): a busy CPU may move VIPs"
    mcl_current, mcl_future = 1, 2
    if ctypes.CDLL(None, use_errno=True).mlockall(mcl_current | mcl_future) != 0 and not problem:
        problem = f"memory is not locked ({os.strerror(ctypes.get_errno())}): swapping may delay advertisements"
    gc.collect()
    gc.freeze()
    return problem
