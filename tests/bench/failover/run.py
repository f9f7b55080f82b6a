"""One fault on the Active gateway, from a settled pair to what the probes saw of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lbnode.lab.netns import Net, ip
from tests.bench.failover.gateways import KINDS, SYNC, Gateway, signal_all
from tests.netns.election_lab import ROOT, VIP, Lab, until

PORT = 7
LISTEN = 10  # intervals in which the backup hears the Active before the fault
STOPPED = 10  # intervals that a stopped process and a cut last after the takeover
WATCHED_S = 1.0  # after the last thing that happened; an address that does not answer for so long is lost
BREATH_NS = 20_000_000  # answers further apart are not one spell of serving


@dataclass(frozen=True)
class Outcome:
    """Times in seconds."""

    gap: float  # longest between two answered questions of a client, around the fault
    double: float  # how long both gateways served and the client reached both
    heal_gap: float | None  # the same as gap, from the heal on; None: nothing was healed
    lost: bool  # the VIP did not answer at the end


class Scene:
    """Gateway a is Active, b is Backup, the client asks."""

    def __init__(self, net: Net, kinds: tuple[str, str], interval_s: float, directory: Path) -> None:
        self.lab = Lab(net)
        self.interval_s = interval_s
        net.bridge("sw", "br1")
        for name in ("a", "b"):
            (directory / name).mkdir()
            net.plug(name, "sync", f"{SYNC[name]}/24", "sw", f"to-{name}-sync", "br1")
            net.popen(name, sys.executable, "-m", "tests.bench.failover.echo", name, str(PORT), cwd=ROOT)
        peer = kinds == ("lbnode", "lbnode")
        self.a: Gateway = KINDS[kinds[0]](self.lab, "a", directory / "a", interval_s, peer=peer)
        until(lambda: self.lab.holds("a"), "a becomes active")
        self.b: Gateway = KINDS[kinds[1]](self.lab, "b", directory / "b", interval_s, peer=peer)
        until(lambda: self.b.follows("192.0.2.1"), "b follows a")
        time.sleep(LISTEN * interval_s)
        macs = [self.lab.mac(name) for name in ("a", "b")]
        command = (sys.executable, "-m", "tests.bench.failover.probe", VIP, str(PORT), "front", *macs)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.probe = net.popen("client", *command, cwd=ROOT, **pipes)
        assert self.probe.stdout is not None and self.probe.stdout.readline() == "answered\n"
        time.sleep(0.1)

    def isolate(self) -> None:
        """Nothing reaches a, and nothing of a anybody; its links stay up."""
        self.lab.isolate("a")
        ip("-n", self.lab.net.ns("sw"), "link", "set", "to-a-sync", "nomaster")

    def heal(self) -> None:
        self.lab.heal("a")
        ip("-n", self.lab.net.ns("sw"), "link", "set", "to-a-sync", "master", "br1")

    def taken_over(self) -> None:
        until(lambda: self.lab.holds("b"), "b takes over")

    def saw(self) -> Mapping[str, Any]:
        output, _ = self.probe.communicate()
        document: Mapping[str, Any] = json.loads(output)
        return document


# A fault returns the CLOCK_MONOTONIC time of its heal, if there is one.
Fault = Callable[[Scene], int | None]


def power_loss(scene: Scene) -> None:
    """What others see of it."""
    scene.isolate()
    scene.taken_over()


def carrier_loss(scene: Scene) -> None:
    ip("-n", scene.lab.net.ns("sw"), "link", "set", "to-a", "down")
    scene.taken_over()


def clean_stop(scene: Scene) -> None:
    scene.a.process.send_signal(signal.SIGTERM)
    scene.taken_over()


def kill(scene: Scene) -> None:
    signal_all(scene.a, signal.SIGKILL)
    scene.taken_over()


def stop_and_continue(scene: Scene) -> int:
    signal_all(scene.a, signal.SIGSTOP)
    scene.taken_over()
    time.sleep(STOPPED * scene.interval_s)
    healed = time.monotonic_ns()
    signal_all(scene.a, signal.SIGCONT)
    until(lambda: scene.lab.holds("a") != scene.lab.holds("b"), "one of them yields")
    return healed


def partition(scene: Scene) -> int:
    scene.isolate()
    return _heal(scene)


def lan_port(scene: Scene) -> int:
    """The port of a on the clients' network forwards nothing any more; its link, and the other network, are up."""
    scene.lab.isolate("a")
    return _heal(scene)


def _heal(scene: Scene) -> int:
    scene.taken_over()
    time.sleep(STOPPED * scene.interval_s)
    healed = time.monotonic_ns()
    scene.heal()
    until(lambda: scene.lab.holds("a") != scene.lab.holds("b"), "one of them yields")
    return healed


FAULTS: Mapping[str, Fault] = {
    "power loss": power_loss,
    "carrier loss": carrier_loss,
    "SIGTERM": clean_stop,
    "SIGKILL": kill,
    "SIGSTOP, CONT": stop_and_continue,
    "partition": partition,
    "LAN port": lan_port,
}


def run_once(kinds: tuple[str, str], fault: Fault, interval_s: float) -> Outcome:
    with tempfile.TemporaryDirectory() as directory, Net(f"lbb-fo{os.getpid()}") as net:
        scene = Scene(net, kinds, interval_s, Path(directory))
        began = time.monotonic_ns()
        healed = fault(scene)
        time.sleep(WATCHED_S)
        ended = time.monotonic_ns()  # the probe takes a while to say what it saw
        return judge(scene.saw(), began, healed, ended)


def judge(saw: Mapping[str, Any], began: int, healed: int | None, ended: int) -> Outcome:
    """What the probe saw around a fault, all times ns of CLOCK_MONOTONIC."""
    sent = [at for at in saw["sent"] if at < ended]
    answered = sorted(number for number, _ in saw["answers"] if number < len(sent))
    spells = [_spells(sorted(saw["sent"][number] for number in numbers)) for numbers in saw["direct"].values()]
    return Outcome(
        gap=_longest_gap(sent, answered, began, healed or ended),
        double=_overlap(*spells),
        heal_gap=None if healed is None else _longest_gap(sent, answered, healed, ended),
        lost=not answered or ended - sent[answered[-1]] > WATCHED_S * 1e9 / 2,
    )


def _longest_gap(sent: Sequence[int], answered: Sequence[int], start: int, end: int) -> float:
    """Between two answered questions with an unanswered one in between, of which the later was asked after `start`;
    until `end` if none was any more. A question that the probe asked late is no gap."""
    asked = [sent[number] for number in answered]
    first, last = max(0, bisect_left(asked, start) - 1), bisect_left(asked, end)
    numbers = [*answered[first : last + 1]] if last < len(answered) else [*answered[first:], len(sent)]
    times = [*sent, end]
    gaps = (times[later] - times[earlier] for earlier, later in pairwise(numbers) if later - earlier > 1)
    return max(gaps, default=0) / 1e9


def _spells(times: list[int]) -> list[tuple[int, int]]:
    """Times without long breaks, as (first, last)."""
    spells: list[tuple[int, int]] = []
    for time_ns in times:
        if spells and time_ns - spells[-1][1] <= BREATH_NS:
            spells[-1] = (spells[-1][0], time_ns)
        else:
            spells.append((time_ns, time_ns))
    return spells


def _overlap(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> float:
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in ours for b in theirs) / 1e9
