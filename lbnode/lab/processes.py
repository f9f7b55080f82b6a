"""Processes that outlive the command that started them: written down with their start time, found again, ended."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path


def start_time(pid: int) -> str | None:
    """Kernel ticks at which a live process started; None for one that is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]  # proc_pid_stat(5): state is field 3, starttime field 22


def record(path: Path, pid: int) -> None:
    path.write_text(f"{pid} {start_time(pid)}\n")


def recorded(path: Path) -> int | None:
    """The process id in a file, if that very process still lives (ids are used again; start times tell them apart)."""
    try:
        pid, started = path.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == started else None


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait for any process, child or not, to end. The PID 1 of a namespace ends last: then all its processes did."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)


def state(pid: int) -> str:
    """One letter, proc_pid_stat(5) field 3; "X" for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def wait_stopped(init: int, timeout_s: float) -> bool:
    """Wait until every process of a container has stopped: a signal takes effect when its process next runs."""
    deadline = time.monotonic() + timeout_s
    while any(state(pid) not in "TZX" for pid in members(init)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def kill_all(pids: Sequence[int]) -> None:
    """SIGKILL and wait; RuntimeError if the kernel cannot end one within half a minute (freeing large maps takes time).

    The PID 1 of a namespace ends only after everybody inside has been reaped, also by a parent outside. Such a parent
    is nsenter(1), and it stops itself when its child is stopped: it must go on, to reap the child.
    """
    outside = {pid: parents_outside(pid) for pid in pids}
    for pid in pids:
        send(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    for pid in pids:
        while not wait_gone(pid, 0.05):
            for parent in outside[pid]:
                send(parent, signal.SIGCONT)
            if time.monotonic() > deadline:
                raise RuntimeError(f"process {pid} does not die; see /proc/{pid}/stack")


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def members(init: int) -> Iterator[int]:
    """Process ids of everything in the PID namespace of process `init`."""
    try:
        own = os.readlink(f"/proc/{init}/ns/pid")
    except FileNotFoundError:
        return
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(OSError):  # gone meanwhile, or a process that even root may not look at
                if os.readlink(f"/proc/{entry}/ns/pid") == own:
                    yield int(entry)


def parents_outside(init: int) -> set[int]:
    """The processes outside that entered the namespace whose PID 1 is `init`: parents of members, no members."""
    if os.readlink("/proc/self/ns/pid") == _pid_namespace(init):
        return set()  # a plain process, not a container
    inside = set(members(init)) - {init}
    parents = set()
    for pid in inside:
        with suppress(OSError):
            parents.add(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]))
    return parents - inside - {init, 0, os.getpid()}


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except FileNotFoundError:
        return os.readlink("/proc/self/ns/pid")


def signal_all(init: int, number: int) -> None:
    """Send a signal to every process of a container, again until no new one appeared meanwhile."""
    reached: set[int] = set()
    while fresh := set(members(init)) - reached:
        for pid in fresh:
            send(pid, number)
        reached |= fresh
    if number == signal.SIGCONT:
        for parent in parents_outside(init):
            send(parent, number)
