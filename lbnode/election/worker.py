"""A thread for what waits for the kernel's lock of links (RTNL), so that no advertisement does."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

STACK = 256 << 10  # bytes: all memory is locked, and so is its stack
Result = TypeVar("Result")


class Worker:
    """Does jobs one after another. It becomes readable (`fileno`) when one is done; `collect` then hands the results
    out, in the caller's thread. The thread begins with the first job, so that it has the real-time priority of who asks
    for it: it may hold the kernel's lock, or the interpreter's, while others want it."""

    def __init__(self) -> None:
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._jobs: SimpleQueue[Callable[[], Callable[[], None]] | None] = SimpleQueue()
        self._done: deque[Callable[[], None]] = deque()
        self._waiting = 0  # jobs whose results were not handed out
        self._thread: threading.Thread | None = None

    def fileno(self) -> int:
        return self._wake

    def submit(self, job: Callable[[], Result], then: Callable[[Result], None]) -> None:
        """`then` gets what `job` returns. What it raises is raised by `collect`."""

        def run() -> Callable[[], None]:
            try:
                result = job()
            except Exception as error:  # noqa: BLE001 - not lost: it is raised where it can be dealt with
                return _raiser(error)
            return lambda: then(result)

        self._waiting += 1
        self._jobs.put(run)
        self._start()

    def collect(self) -> bool:
        """Hand out what is done. True if anything was."""
        self._start()
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return False
        while self._done:
            self._waiting -= 1
            self._done.popleft()()
        return True

    def finish(self) -> None:
        """Wait until all is done, and hand it out. Without a thread it is done here."""
        while self._waiting:
            self._start()
            if self._thread is None:
                self._do(self._jobs.get())
            os.set_blocking(self._wake, True)
            try:
                self.collect()
            finally:
                os.set_blocking(self._wake, False)

    def close(self) -> None:
        """Finish, and end the thread."""
        self.finish()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        os.close(self._wake)

    def _start(self) -> None:
        """No memory, too many processes: the next call tries again."""
        if self._thread is not None or not self._waiting:
            return
        before = threading.stack_size(STACK)
        thread = threading.Thread(target=self._run, daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError:
            return
        finally:
            threading.stack_size(before)

    def _run(self) -> None:
        while self._do(self._jobs.get()):
            pass

    def _do(self, job: Callable[[], Callable[[], None]] | None) -> bool:
        if job is not None:
            self._done.append(job())
            os.eventfd_write(self._wake, 1)
        return job is not None


def _raiser(error: Exception) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw
