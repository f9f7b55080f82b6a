"""N gateways on virtual time: production elections, their kernels, and networks that fail.

Everything random comes from one seeded generator and every time is an integer, so a seed replays a run bit by bit:
`digest` is a hash over all that happened. True time is the simulation's own; each node reads its own clock, which
runs a little fast or slow and stands still while the hypervisor stops the machine.

What the kernel does is modelled too, because it goes on when a process does not: it holds the addresses, serves them
while their lease runs, queues datagrams for a process that is paused, and drops the queue of one that died.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from lbnode.model import VrrpState
from tests.sim.election.figures import mix
from tests.sim.election.judge import Judge
from tests.sim.election.network import CLIENT, GATEWAY, Link, Network, Path
from tests.sim.election.node import Node, Process
from tests.sim.election.process import ElectionProcess, Settings
from tests.sim.election.store import OwnerStore

FOLLOWED_IN = 3  # intervals, in which all nodes have read a new configuration


class Cluster:
    def __init__(
        self, seed: int, settings: Settings | None = None, *, max_clock_ppm: int = 1000, max_delay: float = 0.01
    ) -> None:
        """`max_delay`: of a datagram, and of a process that is to wake, in intervals."""
        self.settings = settings or Settings()
        self.random = random.Random(seed)
        self.now = 0
        self.digest = seed
        self.events = 0
        self.takeovers = 0
        self.trace: list[tuple[int, int, str]] = []  # (true ns, node, what): roles and faults
        self.arp: int | None = None  # whose gratuitous ARP the client heard last
        self.interval = self.settings.interval_cs * 10_000_000
        self.network = Network(self.random, self.interval, int(max_delay * self.interval))
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self._lease_watched: set[int] = set()  # nodes whose lease's end is in the queue
        numbers = range(len(self.settings.priorities))
        self.nodes = [Node(number, self.random.randint(-max_clock_ppm, max_clock_ppm)) for number in numbers]
        self.judge = Judge(self)
        self.store = OwnerStore(self)
        self.processes = [ElectionProcess(self, node, self.settings) for node in self.nodes]
        for node in self.nodes:
            self.at(self.random.randrange(self.interval), self.start, node)

    # --- virtual time -----------------------------------------------------------------------------------------

    def at(self, delay: int, action: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + delay, self._sequence, action, arguments))

    def run(self, intervals: float) -> None:
        """Let virtual time pass."""
        self.run_until(self.now + int(intervals * self.interval))

    def run_until(self, end: int) -> None:
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= end:
            self.now, sequence, action, arguments = pop(queue)
            self.digest = mix(self.digest, self.now ^ sequence)
            self.events += 1
            action(*arguments)
        self.now = end

    # --- what a fault does to a node --------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        """A process starts, if none is there. What its predecessor left in the kernel is still there."""
        if node.process is Process.DEAD and node.powered and not node.stunned:
            node.process = Process.RUNS
            process = self.processes[node.number]
            process.start()
            process.serve()
            self.judge.look()

    def pause(self, node: Node) -> None:
        if node.process is Process.RUNS:
            node.process = Process.PAUSED
            self.note(node, "paused")
            self.judge.look()

    def resume(self, node: Node) -> None:
        if node.process is Process.PAUSED:
            node.process = Process.RUNS
            self.note(node, "resumed")
            self.processes[node.number].serve()
            self.judge.look()

    def kill_process(self, node: Node) -> None:
        """SIGKILL or a crash of the election process: its supervisor takes the addresses off."""
        self._end_process(node, "election process killed")
        if node.powered:
            node.holds, node.lease_until = False, 0
        self.judge.look()

    def kill_daemon(self, node: Node) -> None:
        """An orderly stop, or lbnoded is away for too long: the election process releases its role and leaves."""
        if node.awake:
            self.processes[node.number].stop()
        self._end_process(node, "daemon killed")

    def kill_everything(self, node: Node) -> None:
        """SIGKILL, out of memory: no process is left to clean up, the kernel keeps the addresses."""
        self._end_process(node, "everything killed")
        self.judge.look()

    def power_off(self, node: Node) -> None:
        self._end_process(node, "power off")
        node.powered, node.holds, node.lease_until = False, False, 0
        self.judge.look()

    def power_on(self, node: Node) -> None:
        node.powered = True
        self.start(node)

    def stun(self, node: Node) -> None:
        """The hypervisor stops the machine, with its clock. Nothing waits for it."""
        if not node.stunned:
            node.stop_clock(self.now)
            self.note(node, "stunned")
            self.judge.look()

    def wake_machine(self, node: Node) -> None:
        if node.stunned:
            node.start_clock(self.now)
            self.note(node, "runs again")
            if node.lease_until:
                self._watch_lease(node)
            self.judge.look()
            self.at(self.network.delay(), self.processes[node.number].serve)

    def hand_over(self, node: Node) -> None:
        """The operator's `lbctl failover`."""
        if node.awake:
            self.processes[node.number].hand_over()
            self.processes[node.number].serve()

    def upgrade(self, node: Node) -> None:
        """The next daemon's process takes over; meanwhile none speaks, for up to an interval."""
        if node.awake:
            self.pause(node)
            self.at(self.random.randrange(self.interval), self._succeed, node)

    def configure(self, settings: Settings) -> None:
        """The operator has written another configuration: every node follows, some later than others."""
        self.settings = settings
        for process in self.processes:
            self.at(self.random.randrange(FOLLOWED_IN * self.interval), process.follow, settings)

    def _succeed(self, node: Node) -> None:
        if node.process is Process.PAUSED and node.powered and not node.stunned:
            self.processes[node.number].upgrade()
            self.resume(node)

    def _end_process(self, node: Node, why: str) -> None:
        if node.process is not Process.DEAD:
            self.note(node, why)
        node.process = Process.DEAD
        self.processes[node.number].end()

    # --- networks -----------------------------------------------------------------------------------------------

    def cut_links(self, links: frozenset[Link]) -> None:
        self.network.cut_links(links)
        self.judge.look()

    def mend_links(self, links: frozenset[Link]) -> None:
        self.network.mend_links(links)
        self.judge.look()

    def heal(self) -> None:
        """End every fault."""
        self.network.heal()
        self.store.down = 0
        for node in self.nodes:
            self.wake_machine(node)
            self.resume(node)
            self.power_on(node)
        self.judge.look()

    def send(self, path: Path, sender: int, to: ElectionProcess, after: int, message: tuple[Any, ...]) -> None:
        """`after`: ns from the wire to the receiving process."""
        for late in self.network.copies(path, sender, to.node.number):
            at = self.network.wire(path, sender, self.now) + after + late
            self.at(at - self.now, to.deliver, *message)

    def announce(self, sender: Node, count: int) -> None:
        """Gratuitous ARPs: the client believes the last one that it hears."""
        loss = self.network.loss[Path.LAN]
        lost = loss and self.random.random() < loss**count
        if (Path.LAN, sender.number, CLIENT) not in self.network.cut and not lost:
            self.at(self.network.wire(Path.LAN, sender.number, self.now) - self.now, self._learn, sender.number)

    def _learn(self, number: int) -> None:
        self.arp = number
        self.judge.look()

    def ask_gateway(self, node: Node) -> None:
        """The gateway's kernel answers, if question and answer arrive."""
        there, back = (self.network.copies(Path.LAN, *ends) for ends in _both(node.number, GATEWAY))
        if there and back:
            delay = self.network.delay() + self.network.delay()
            process = self.processes[node.number]
            self.at(delay, process.deliver, ElectionProcess.hear_gateway, GATEWAY)

    # --- kernels --------------------------------------------------------------------------------------------------

    def extend_lease(self, node: Node, until: int) -> None:
        served = node.serves(self.now)
        node.lease_until = until
        if served != node.serves(self.now):
            self.judge.look()
        if until:
            self._watch_lease(node)

    def _watch_lease(self, node: Node) -> None:
        """Tell the judge of the moment at which the lease ends, unless it has been extended by then."""
        if node.number not in self._lease_watched and not node.stunned:
            self._lease_watched.add(node.number)
            self.at(max(0, node.true_time(node.lease_until) - self.now), self._look_at_lease, node)

    def _look_at_lease(self, node: Node) -> None:
        self._lease_watched.discard(node.number)
        if node.clock(self.now) < node.lease_until:
            self._watch_lease(node)
        else:
            self.judge.look()

    # --- what is seen -------------------------------------------------------------------------------------------

    def changed(self, node: Node, state: VrrpState, reason: str) -> None:
        if state is VrrpState.ACTIVE:
            self.takeovers += 1
            self.judge.took_over(node)
        self.note(node, f"{state}: {reason}")

    def actives(self) -> list[int]:
        """Running nodes whose machine is Active."""
        return [p.node.number for p in self.processes if p.node.awake and p.active]

    def serving(self) -> list[int]:
        return [node.number for node in self.nodes if node.serves(self.now)]

    def note(self, node: Node, what: str) -> None:
        self.trace.append((self.now, node.number, what))


def _both(a: int, b: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (a, b), (b, a)
