"""Traffic that knows what was lost: numbered datagrams at a pace through the gateway, a TCP connection beside them."""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Self

from tests.netns.xdp_lab import VIP, Lab, ask

PACE_S = 0.001
NEW_FLOW_EACH = 10  # datagrams: the others belong to one flow
IN_FLIGHT = 64  # unanswered ones; more would fill a socket buffer of a machine that is busy, and be lost there
PATIENCE_S = 0.1  # with so many unanswered: then it goes on, whatever became of them
LAST_ANSWER_S = 3.0  # to wait for it
GRACE_S = 0.5  # for answers that others have overtaken


class Traffic:
    """From the client to a UDP and a TCP service of the lab, whose servers answer with what they got.

    A datagram is lost if it, or its answer, did not arrive. While the block lasts the numbers may be read at any time.
    """

    def __init__(self, lab: Lab, address: str = VIP) -> None:
        self._lab = lab
        self._address = address
        self._held = lab.udp(address)
        self._flows = {self._held.fileno(): self._held}
        self._unanswered: dict[int, socket.socket] = {}
        self._newest_answer = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._datagrams), threading.Thread(target=self._lines)]
        self.sent = 0
        self.answered = 0
        self.twice = 0  # answers to what had been answered
        self.lines = 0  # answered on the TCP connection
        self.broken: OSError | None = None  # what ended the TCP connection

    def __enter__(self) -> Self:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for sock in self._flows.values():
            sock.close()

    def stop(self) -> None:
        """Wait for the last answers."""
        self._stop.set()
        for one in self._threads:
            one.join()

    @property
    def lost(self) -> list[int]:
        """Numbers that have no answer; before `stop`: yet."""
        return sorted(self._unanswered)

    @property
    def oldest_unanswered(self) -> int:
        return min(self._unanswered, default=self.sent + 1)

    def _datagrams(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            due = max(due + PACE_S, time.monotonic())
            self._receive_until(due)
            patience = time.monotonic() + PATIENCE_S
            while self.sent - self._newest_answer >= IN_FLIGHT and time.monotonic() < patience:
                self._receive_until(time.monotonic() + PACE_S)
            self._send()
        for condition, seconds in (
            (lambda: self._newest_answer < self.sent, LAST_ANSWER_S),
            (lambda: bool(self._unanswered), GRACE_S),
        ):
            end = time.monotonic() + seconds
            while condition() and time.monotonic() < end:
                self._receive_until(time.monotonic() + PACE_S)

    def _send(self) -> None:
        number, sock = self.sent + 1, self._held
        if number % NEW_FLOW_EACH == 0:
            sock = self._lab.udp(self._address)
            self._flows[sock.fileno()] = sock
        self._unanswered[number] = sock
        self.sent = number
        try:
            sock.send(b"%d" % number)
        except ConnectionRefusedError:  # an ICMP error about an earlier one; this one was not sent
            sock.send(b"%d" % number)

    def _receive_until(self, end: float) -> None:
        while (left := end - time.monotonic()) > 0:
            for fd in select.select(list(self._flows), [], [], left)[0]:
                try:
                    number = int(self._flows[fd].recv(100).split()[1])
                except OSError:  # told by ICMP that one is lost
                    continue
                self._answer(number)

    def _answer(self, number: int) -> None:
        self._newest_answer = max(self._newest_answer, number)
        sock = self._unanswered.pop(number, None)
        if sock is None:
            self.twice += 1
            return
        self.answered += 1
        if sock is not self._held:
            del self._flows[sock.fileno()]
            sock.close()

    def _lines(self) -> None:
        try:
            with self._lab.connect(self._address, timeout=30.0) as sock:
                while not self._stop.wait(PACE_S):
                    ask(sock, str(self.lines))
                    self.lines += 1
        except OSError as error:
            self.broken = error
