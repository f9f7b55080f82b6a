"""TCP probe: the server accepts a connection.

Runs on bare callbacks, without a task per probe: this is the probe that a gateway runs ten thousand times a second,
and a task with sock_connect() and asyncio.timeout() costs twice the CPU.
"""

from __future__ import annotations

import asyncio
import errno
import socket

from healthcheck.probes.errors import ProbeImpossible, connect_reason, timeout_reason
from healthcheck.probes.sockets import address_of, open_socket
from healthcheck.spec import Result, Target


def probe(target: Target) -> asyncio.Future[Result]:
    """Begin to connect. The future's exception is ProbeImpossible if this machine could not try."""
    return _Connect(target).future


class _Connect:
    """One connection attempt: ends by the socket becoming writable, by the timer, or by its future being cancelled.

    If the event loop was held up and finds both due, the socket goes first (asyncio runs I/O before timers): an
    answer that came in time is not called late because we were.
    """

    __slots__ = ("_loop", "_sock", "_started", "_timeout_s", "_timer", "future")

    def __init__(self, target: Target) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Result] = loop.create_future()
        self._started = loop.time()
        self._timeout_s = target.spec.timeout_s
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._sock = sock = open_socket(target)
        except ProbeImpossible as error:
            self.future.set_exception(error)
            return
        number = sock.connect_ex(address_of(target))
        if number != errno.EINPROGRESS:
            self._end(number)
            return
        self._timer = loop.call_later(self._timeout_s, self._late)
        loop.add_writer(sock.fileno(), self._writable)  # given the socket, selectors would format it for a KeyError
        self.future.add_done_callback(self._close)

    def _writable(self) -> None:
        assert self._sock is not None
        self._end(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _late(self) -> None:
        self._finish(timeout_reason(self._timeout_s, "connecting"))

    def _end(self, number: int) -> None:
        try:
            reason = connect_reason(number) if number else ""
        except ProbeImpossible as error:
            self._close(self.future)
            if not self.future.done():
                self.future.set_exception(error)
        else:
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        self._close(self.future)
        if not self.future.done():  # cancelled in this very turn of the loop
            self.future.set_result(Result(not reason, reason, self._loop.time() - self._started))

    def _close(self, _: asyncio.Future[Result]) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._timer is not None:
                self._timer.cancel()
                self._loop.remove_writer(sock.fileno())
            sock.close()
