"""Failover gap seen by a client, lbnode beside keepalived in the same run: `python -m tests.bench.failover` (root).

Two nodes and a client on one switch; the client pings the VIP each millisecond. The gap is the longest time between
two answered probes around the fault. "both" counts runs in which both nodes still held the VIP half a second after
the takeover: the kernel of a node whose processes are all dead goes on answering for it.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from lbnode.election.packet import checksum
from lbnode.lab.netns import Net, ip
from tests.netns.election_lab import GROUP, VIP, Keepalived, Lab, until

INTERVAL_S = 0.1
ROUNDS = 5
PRIORITIES = {"a": 250, "b": 200}


class Prober:
    """ICMP echo to the VIP each millisecond from the client's namespace."""

    def __init__(self, lab: Lab) -> None:
        self._socket = lab.net.call(
            "client", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        self._socket.settimeout(0.2)
        self.sent: list[float] = []
        self._answered: set[int] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=job, daemon=True) for job in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stop.wait(0.001):
            sequence = len(self.sent)
            body = struct.pack("!BBHHHI", 8, 0, 0, os.getpid() & 0xFFFF, sequence & 0xFFFF, sequence)
            packet = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
            self.sent.append(time.monotonic())
            try:
                self._socket.sendto(packet, (VIP, 0))
            except OSError:  # no route or neighbour for the moment: an unanswered probe
                continue

    def _receive(self) -> None:
        while not self._stop.is_set():
            try:
                packet = self._socket.recv(2048)
            except TimeoutError:
                continue
            except OSError:  # host unreachable, reported asynchronously
                continue
            if packet[20] == 0 and len(packet) >= 32:
                self._answered.add(struct.unpack_from("!I", packet, 28)[0])

    def answered_since(self, moment: float) -> int:
        return sum(self.sent[number] > moment for number in list(self._answered))

    def gap_s(self) -> float:
        """Stops probing; the longest time without an answered probe."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()
        times = sorted(self.sent[number] for number in self._answered)
        return max(later - earlier for earlier, later in pairwise(times))


@dataclass(frozen=True)
class Run:
    gap_s: float
    both: bool


def _start(kind: str, lab: Lab, name: str, directory: Path) -> Callable[[int], None]:
    """Start a node; returns what sends a signal to all its processes."""
    if kind == "lbnode":
        daemon = lab.daemon(name, replace(GROUP, priorities=PRIORITIES, advert_interval_s=INTERVAL_S))
        return daemon.process.send_signal
    (directory / name).mkdir()
    return Keepalived(lab, name, directory / name, PRIORITIES[name], INTERVAL_S).process.send_signal


def isolate(lab: Lab, _: Callable[[int], None]) -> None:
    lab.isolate("a")


def stop(_: Lab, send_signal: Callable[[int], None]) -> None:
    send_signal(signal.SIGTERM)


def kill_daemon(_: Lab, send_signal: Callable[[int], None]) -> None:
    send_signal(signal.SIGKILL)


def kill_everything(lab: Lab, _: Callable[[int], None]) -> None:
    pids = [int(pid) for pid in ip("netns", "pids", lab.net.ns("a")).split()]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: no one lives to see another die
        for pid in pids:
            os.kill(pid, number)


FAULTS: dict[str, Callable[[Lab, Callable[[int], None]], None]] = {
    "clean stop": stop,
    "silent isolation": isolate,
    "kill -9 of the daemon": kill_daemon,
    "kill -9 of everything": kill_everything,
}


def run_once(kind: str, fault: Callable[[Lab, Callable[[int], None]], None]) -> Run:
    with tempfile.TemporaryDirectory() as directory, Net(f"lbb-fo{os.getpid()}") as net:
        lab = Lab(net)
        send_signal = _start(kind, lab, "a", Path(directory))
        until(lambda: lab.holds("a"), "a becomes active")
        _start(kind, lab, "b", Path(directory))
        time.sleep(10 * INTERVAL_S)  # b has heard a
        prober = Prober(lab)
        until(lambda: prober.answered_since(0) > 50, "the VIP answers")
        fault(lab, send_signal)
        until(lambda: lab.holds("b"), "b takes over")
        taken = time.monotonic()
        until(lambda: prober.answered_since(taken + 0.5) > 10, "the VIP answers again")
        both = lab.holds("a") and lab.holds("b")
        return Run(prober.gap_s(), both)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(
        f"failover, {rounds} runs each, interval {INTERVAL_S * 1000:.0f} ms, first backup at priority {PRIORITIES['b']}"
    )
    print(f"{'fault':24} {'':11} {'gap median':>11} {'worst':>8} {'intervals':>10}  both")
    for name, fault in FAULTS.items():
        for kind in ("lbnode", "keepalived"):
            runs = [run_once(kind, fault) for _ in range(rounds)]
            gaps = [run.gap_s for run in runs]
            median = statistics.median(gaps)
            both = f"{sum(run.both for run in runs)} of {rounds}"
            figures = f"{median * 1000:8.1f} ms {max(gaps) * 1000:5.0f} ms {median / INTERVAL_S:10.2f}"
            print(f"{name:24} {kind:11} {figures}  {both}", flush=True)
    print("silent isolation: what peers see of a power loss; the isolated node keeps the address, out of reach")
    return 0


if __name__ == "__main__":
    sys.exit(main())
