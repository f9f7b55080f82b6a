"""The next daemon's side of a restart: the election process that an earlier lbnoded left serving (see succession)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from lbnode.election.messages import ABDICATE, PROGRESS, encode_line

ANSWER_TIMEOUT_S = 1.0
PROGRESS_EVERY_S = 0.5
_UCRED = struct.Struct("=iII")  # unix(7), SO_PEERCRED: pid, uid, gid; of who called listen()


class Predecessor:
    """An election process of an earlier daemon, connected."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._told_at = time.monotonic()
        self.pid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """None: nobody serves there."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            return None
        return cls(connection)

    def progress(self) -> None:
        """Tell it, not too often, that this daemon gets on: else it gives up waiting (see patience)."""
        now = time.monotonic()
        if now >= self._told_at + PROGRESS_EVERY_S:
            self._told_at = now
            with contextlib.suppress(OSError):
                self._socket.send(encode_line(PROGRESS))

    async def abdicate(self) -> tuple[Mapping[str, Mapping[str, Any]], str]:
        """Have it end. Returns (what it holds: group -> see Member.held, what went wrong).

        One that does not answer in time is killed: its leases have run out, or will, before a peer serves.
        """
        loop = asyncio.get_running_loop()
        answer = b""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await loop.sock_sendall(self._socket, encode_line(ABDICATE))
                while not answer.endswith(b"\n") and (data := await loop.sock_recv(self._socket, 1 << 16)):
                    answer += data
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            return {}, f"process {self.pid} did not step aside within {ANSWER_TIMEOUT_S:g} s and was killed"
        except OSError:
            pass
        return (json.loads(answer)["held"], "") if answer.endswith(b"\n") else ({}, f"process {self.pid} had ended")

    async def gone(self) -> None:
        """Wait until it has ended, which takes it a while; the heir need not."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(self._socket, 4096):
                pass
        self._socket.close()
        with contextlib.suppress(ChildProcessError):  # a child of ours only if lbnoded restarted in place
            await asyncio.to_thread(os.waitpid, self.pid, 0)

    def dismiss(self) -> None:
        """Have it release what it holds, and end: this daemon stops before it has taken over."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
