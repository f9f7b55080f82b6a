"""Script probe: a program of this machine ends with exit status 0.

It runs in a process group of its own, which is killed when the time is up, when the probe is cancelled, and when the
program has ended but left something running. What it printed first becomes the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from types import TracebackType
from typing import Self

from healthcheck.probes.errors import ProbeImpossible, raise_if_local, timeout_reason
from healthcheck.probes.sockets import address_of
from healthcheck.spec import Result, ScriptSpec, Target

SHOWN_BYTES = 1024  # of what it prints; the rest is read and forgotten
SHOWN_CHARACTERS = 200
REAP_S = 1.0  # for the kernel to end what SIGKILL hit; a process in uninterruptible sleep takes longer, and is left
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def probe(target: Target) -> Result:
    """ProbeImpossible if there is no such program here, or it cannot be started: that tells nothing of the server."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    timeout_s = target.spec.timeout_s
    with _Run(target.spec.script or ScriptSpec(), target) as run:
        try:
            async with asyncio.timeout(timeout_s):
                await run.exited()
            latency_s, late = loop.time() - started, False
        except TimeoutError:
            latency_s, late = loop.time() - started, True
        finally:
            code = await run.end()
    reason = timeout_reason(timeout_s, "running the script") if late else _reason(code, run.output)
    return Result(not reason, reason, latency_s)


class _Run:
    """One run of the program. Its exit is watched through a pidfd, which needs no signal handler and no thread."""

    def __init__(self, spec: ScriptSpec, target: Target) -> None:
        self.output = b""
        self._loop = asyncio.get_running_loop()
        self._fds: list[int] = []
        address, port = address_of(target)
        environment = {"PATH": PATH, "CHECK_ADDRESS": address, "CHECK_PORT": str(port)}
        try:
            self._pipe, write_end = os.pipe()
            self._fds += [self._pipe, write_end]
            os.set_blocking(self._pipe, False)
            self._process = subprocess.Popen(
                [spec.path, *spec.arguments],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
                env=environment,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            self._close()
            raise_if_local(error.errno or 0)
            raise ProbeImpossible(f"{spec.path}: {os.strerror(error.errno or 0).lower()} on this machine") from error
        self._fds.append(self._pidfd)
        os.close(write_end)
        self._fds.remove(write_end)
        self._loop.add_reader(self._pipe, self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._pipe)
        self._close()

    async def exited(self) -> None:
        """Until the program itself has ended, and is a zombie."""
        ended = asyncio.Event()
        self._loop.add_reader(self._pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            self._loop.remove_reader(self._pidfd)

    async def end(self) -> int:
        """Kill what is left of the group, while the zombie still keeps its number from being given away; then reap."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAP_S):
                await self.exited()
        code = self._process.poll()
        self._read()
        return -signal.SIGKILL if code is None else code

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        self.output = (self.output + data)[:SHOWN_BYTES]
        if not data:
            self._loop.remove_reader(self._pipe)

    def _close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _reason(code: int, output: bytes) -> str:
    """`exit status 2: no connection to the database`; nothing for status 0."""
    if code == 0:
        return ""
    try:
        what = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    except ValueError:  # a real-time signal
        what = f"ended by signal {-code}"
    text = "".join(c if c.isprintable() else " " for c in output.decode("utf-8", "replace").strip().split("\n")[0])
    return f"{what}: {text.strip()[:SHOWN_CHARACTERS]}" if text.strip() else what
