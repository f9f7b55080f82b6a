"""Faults of the Active gateway, each from a settled pair to what the probe saw of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lbnode.lab.netns import Net, ip
from tests.bench.failover.gateways import ADDRESSES, KINDS, SYNC, Gateway, signal_all
from tests.bench.failover.judge import Outcome, judge
from tests.netns.election_lab import DEADLINE_S, ROOT, VIP, Lab, until

PORT = 7
LISTEN = 10  # intervals in which the backup hears the Active before the fault
STOPPED = 10  # intervals that a stopped process and a cut last after the takeover
WATCHED_S = 1.0  # after the last thing that happened


class Scene:
    """Gateway a is Active, b is Backup, the client asks. They live on from one fault to the next."""

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

    def settle(self) -> None:
        """Mend whatever the last fault left: a is Active again, and b has heard it for a while."""
        self.heal()
        for gateway in (self.a, self.b):
            gateway.start()
        if not self.a.preempts:
            until(lambda: self._alone() or self.a.follows(ADDRESSES["b"]), "a is active, or follows b")
            if not self._alone():
                self.b.give_back()
        until(lambda: self._alone() and self.b.follows(ADDRESSES["a"]), "a is active and b follows it")
        ip("-n", self.lab.net.ns("client"), "neigh", "flush", "all")
        time.sleep(LISTEN * self.interval_s)

    def _alone(self) -> bool:
        return self.lab.holds("a") and not self.lab.holds("b")

    def run(self, fault: Fault) -> Outcome:
        """The fault at any time of an interval, and what the client saw of it."""
        self.settle()
        macs = [self.lab.mac(name) for name in ("a", "b")]
        command = (sys.executable, "-m", "tests.bench.failover.probe", VIP, str(PORT), "front", *macs)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        probe = self.lab.net.popen("client", *command, cwd=ROOT, **pipes)
        assert probe.stdout is not None and probe.stdout.readline() == "answered\n"
        time.sleep(0.1 + random.random() * self.interval_s)
        assert self._alone(), "the role moved before the fault"
        began = time.monotonic_ns()
        healed = fault(self)
        time.sleep(WATCHED_S)
        ended = time.monotonic_ns()  # the probe takes a while to say what it saw
        output, _ = probe.communicate()
        return judge(json.loads(output), began, healed, ended)

    def isolate(self) -> None:
        """Nothing reaches a, and nothing of a anybody; its links stay up. In both networks at once: what came by the
        second one meanwhile would put off the takeover."""
        self._switch("link set to-a nomaster", "link set to-a-sync nomaster")

    def heal(self) -> None:
        self._switch("link set to-a master br0", "link set to-a-sync master br1", "link set to-a up")

    def _switch(self, *commands: str) -> None:
        self.lab.net.run("sw", "ip", "-batch", "-", input="\n".join(commands))

    def taken_over(self) -> None:
        _wait(lambda: self.lab.holds("b"))

    def one_yields(self) -> None:
        _wait(lambda: self.lab.holds("a") != self.lab.holds("b"))


def _wait(condition: Callable[[], bool]) -> None:
    """Until the deadline at most: what does not come, the probe sees."""
    with suppress(AssertionError):
        until(condition, "")


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
    scene.a.process.wait(DEADLINE_S)


def kill(scene: Scene) -> None:
    signal_all(scene.a, signal.SIGKILL)
    scene.taken_over()
    scene.a.process.wait(DEADLINE_S)


def stop_and_continue(scene: Scene) -> int:
    signal_all(scene.a, signal.SIGSTOP)
    scene.taken_over()
    time.sleep(STOPPED * scene.interval_s)
    healed = time.monotonic_ns()
    signal_all(scene.a, signal.SIGCONT)
    scene.one_yields()
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
    scene.one_yields()
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


@contextmanager
def scene(kinds: tuple[str, str], interval_s: float, number: int = 0) -> Iterator[Scene]:
    """`number`: of several at once."""
    with tempfile.TemporaryDirectory() as directory, Net(f"lbb-fo{os.getpid()}-{number}") as net:
        yield Scene(net, kinds, interval_s, Path(directory))
