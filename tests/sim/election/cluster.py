"""N production state machines on virtual time, their kernels, and a network that loses, delays, duplicates and cuts.

Everything random comes from one seeded generator and every time is an integer, so a seed replays a run bit by bit:
`digest` is a hash over all that happened. True time is the simulation's own; each node reads its own clock, which
runs a little fast or slow and stands still while the hypervisor stops the machine.

What the kernel does is modelled too, because it goes on when a process does not: it holds the addresses, serves them
while their lease runs, queues datagrams for a process that is paused, and drops the queue of one that died.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from enum import Enum, auto
from ipaddress import IPv4Address
from typing import Any

from lbnode.election.machine import Announce, Changed, Claim, Lease, Machine, Send, VirtualRouter, Withdraw
from lbnode.election.packet import Advert
from lbnode.model import VrrpState
from tests.sim.election.figures import mix
from tests.sim.election.judge import Judge

VIP = IPv4Address("192.0.2.10")
FIRST_ADDRESS = IPv4Address("192.0.2.1")
CLIENT = -1  # as an end of the network
SOCKET_QUEUE = 256  # datagrams that wait for a process
Link = tuple[int, int]  # (from, to), each a node's number or CLIENT
ON_TIME = (0,)
MILLION = 1_000_000


class Process(Enum):
    RUNS = auto()
    PAUSED = auto()  # SIGSTOP, garbage collection, starvation: the kernel goes on, the process does not
    DEAD = auto()


class Node:
    """A gateway: one process with the production machine, one kernel."""

    def __init__(self, number: int, router: VirtualRouter, clock_ppm: int) -> None:
        self.number = number
        self.router = router
        self.machine = Machine(router)
        self.process = Process.DEAD
        self.powered = True
        self.stunned = False  # the hypervisor runs neither its kernel nor its clock
        self.holds = False  # the addresses are on its interfaces
        self.lease_until = 0  # on its own clock
        self.lease_watched = False  # a look at the end of the lease is scheduled
        self.inbox: list[tuple[int, Advert]] = []  # (sender, what it sent)
        self.wake_at: int | None = None
        self.wire_at = 0  # when its last frame was on the wire: frames of one sender keep their order
        self.hears_after = 0  # ns from the wire to its process
        self._rate = MILLION + clock_ppm  # own microseconds per true second
        self._clock = (0, 1_000_000_000)  # (true, own) ns at the last start of the clock

    def clock(self, now: int) -> int:
        """The node's own time at true time `now`, ns."""
        true, own = self._clock
        return own if self.stunned else own + (now - true) * self._rate // MILLION

    def true_time(self, own: int) -> int:
        """The first true time at which a running clock shows `own`."""
        since, base = self._clock
        return since - (-(own - base) * MILLION // self._rate)

    def stop_clock(self, now: int) -> None:
        self._clock, self.stunned = (now, self.clock(now)), True

    def start_clock(self, now: int) -> None:
        self._clock, self.stunned = (now, self._clock[1]), False

    @property
    def active(self) -> bool:
        return self.machine.state is VrrpState.ACTIVE

    @property
    def awake(self) -> bool:
        return self.process is Process.RUNS and self.powered and not self.stunned

    def serves(self, now: int) -> bool:
        """Whether its kernel would answer for the VIP."""
        return self.holds and self.powered and not self.stunned and self.clock(now) < self.lease_until


class Cluster:
    drains = True  # what was heard comes before the timer; a mutant does it the other way round

    def __init__(
        self,
        seed: int,
        priorities: Sequence[int] = (250, 200, 150),
        *,
        interval_cs: int = 10,
        preempt: bool = False,
        max_clock_ppm: int = 1000,
        max_delay: float = 0.01,
    ) -> None:
        """`max_delay`: of a datagram and of a process that is to wake, in intervals."""
        self.random = random.Random(seed)
        self.now = 0
        self.digest = seed
        self.events = 0
        self.takeovers = 0
        self.loss = 0.0
        self.duplicates = 0.0
        self.reorder = 0.0  # share of datagrams that take up to half an interval longer
        self.cut: frozenset[Link] = frozenset()  # links that deliver nothing
        self._cuts: list[frozenset[Link]] = []
        self.trace: list[tuple[int, int, str]] = []  # (true ns, node, what): roles and faults
        self.arp: int | None = None  # whose gratuitous ARP the client heard last
        self.interval = interval_cs * 10_000_000
        self._max_delay = int(max_delay * self.interval)
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0
        self.nodes: list[Node] = []
        for number, priority in enumerate(priorities):
            peers = tuple(p for n, p in enumerate(priorities) if n != number)
            router = VirtualRouter(51, priority, interval_cs, (VIP,), FIRST_ADDRESS + number, preempt, peers)
            ppm = self.random.randint(-max_clock_ppm, max_clock_ppm)
            self.nodes.append(Node(number, router, ppm))
            self.nodes[-1].hears_after = self._delay()
        self.judge = Judge(self)
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
            node.machine = Machine(node.router)
            node.process, node.inbox = Process.RUNS, []
            node.machine.start(node.clock(self.now))
            self._perform(node)
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
            self._serve(node)
            self.judge.look()

    def kill_process(self, node: Node) -> None:
        """SIGKILL or a crash of the election process: its supervisor takes the addresses off."""
        self._end_process(node, "election process killed")
        if node.powered:
            node.holds, node.lease_until = False, 0
        self.judge.look()

    def kill_daemon(self, node: Node) -> None:
        """SIGKILL of lbnoded, or an orderly stop: the election process releases its role and leaves."""
        if node.awake:
            node.machine.stop(node.clock(self.now), "lbnoded has died")
            self._perform(node)
        self._end_process(node, "daemon killed")

    def kill_everything(self, node: Node) -> None:
        """SIGKILL, out of memory: no process is left to clean up, the kernel keeps the addresses."""
        self._end_process(node, "everything killed")

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
            self.at(self._delay(), self._serve, node)

    def cut_links(self, links: frozenset[Link]) -> None:
        self._cuts.append(links)
        self._apply_cuts()

    def mend_links(self, links: frozenset[Link]) -> None:
        if links in self._cuts:
            self._cuts.remove(links)
            self._apply_cuts()

    def heal(self) -> None:
        """End every fault."""
        self.loss = self.duplicates = self.reorder = 0.0
        self._cuts.clear()
        self._apply_cuts()
        for node in self.nodes:
            self.wake_machine(node)
            self.resume(node)
            self.power_on(node)

    def _apply_cuts(self) -> None:
        self.cut = frozenset().union(*self._cuts)
        self.judge.look()

    def hand_over(self, node: Node) -> None:
        """The operator's `lbctl handover`."""
        if node.awake:
            node.machine.handover(node.clock(self.now))
            self._perform(node)

    def _end_process(self, node: Node, why: str) -> None:
        if node.process is not Process.DEAD:
            self.note(node, why)
        node.process, node.inbox, node.wake_at = Process.DEAD, [], None

    # --- mechanics --------------------------------------------------------------------------------------------

    def actives(self) -> list[int]:
        """Running nodes whose machine is Active."""
        return [node.number for node in self.nodes if node.awake and node.active]

    def serving(self) -> list[int]:
        return [node.number for node in self.nodes if node.serves(self.now)]

    def note(self, node: Node, what: str) -> None:
        self.trace.append((self.now, node.number, what))

    def _delay(self) -> int:
        return 1 + int(self.random.random() * self._max_delay)

    def _receive(self, node: Node, sender: int, advert: Advert) -> None:
        if node.awake:
            self._hear(node, sender, advert)
            self._perform(node)
        elif node.process is Process.PAUSED and not node.stunned and len(node.inbox) < SOCKET_QUEUE:
            node.inbox.append((sender, advert))

    def _hear(self, node: Node, sender: int, advert: Advert) -> None:
        was_active = node.active
        own = node.clock(self.now)
        dark = own >= node.lease_until
        node.machine.receive(advert, own)
        if was_active and not dark and not node.active:
            self.judge.yielded(node, self.nodes[sender])

    def _serve(self, node: Node) -> None:
        """What the driver does in each round: what was heard first, then the timer."""
        if not node.awake:
            return
        if self.drains:
            self._drain(node)
        timer = node.machine.get_timer()
        own = node.clock(self.now)
        if timer is not None and timer <= own:
            node.machine.handle_timer(own)
            self._perform(node)
        self._drain(node)
        self._arm(node)

    def _drain(self, node: Node) -> None:
        inbox, node.inbox = node.inbox, []
        for sender, advert in inbox:
            self._hear(node, sender, advert)
            self._perform(node)

    def _wake(self, node: Node, at: int) -> None:
        if node.wake_at == at:
            node.wake_at = None
            self._serve(node)

    def _arm(self, node: Node) -> None:
        """Schedule the node's next timer. A later one than is scheduled already is looked at then."""
        timer = node.machine.get_timer()
        if timer is not None and node.awake:
            due = max(self.now, node.true_time(timer)) + self._delay()
            if node.wake_at is None or due < node.wake_at:
                node.wake_at = due
                self.at(due - self.now, self._wake, node, due)

    def _perform(self, node: Node) -> None:
        machine = node.machine
        while (event := machine.next_event()) is not None:
            match event:
                case Send(advert=advert):
                    self._send(node, advert)
                case Lease(until):
                    self._extend_lease(node, until)
                case Claim():
                    node.holds = True
                    self.judge.look()
                case Withdraw():
                    node.holds = False
                    self.judge.look()
                case Announce(count):
                    self._announce(node, count)
                case Changed(state, reason):
                    if state is VrrpState.ACTIVE:
                        self.takeovers += 1
                        self.judge.took_over(node)
                    self.note(node, f"{state}: {reason}")
        self._arm(node)

    def _extend_lease(self, node: Node, until: int) -> None:
        served = node.serves(self.now)
        node.lease_until = until
        if served != node.serves(self.now):
            self.judge.look()
        if until:
            self._watch_lease(node)

    def _watch_lease(self, node: Node) -> None:
        """Tell the judge of the moment at which the lease ends, unless it has been extended by then."""
        if not node.lease_watched and not node.stunned:
            node.lease_watched = True
            self.at(max(0, node.true_time(node.lease_until) - self.now), self._look_at_lease, node)

    def _look_at_lease(self, node: Node) -> None:
        node.lease_watched = False
        if node.clock(self.now) < node.lease_until:
            self._watch_lease(node)
        else:
            self.judge.look()

    # --- the network --------------------------------------------------------------------------------------------

    def _send(self, sender: Node, advert: Advert) -> None:
        """By multicast to every other node."""
        wire = self._wire(sender)
        for other in self.nodes:
            if other is not sender and (sender.number, other.number) not in self.cut:
                for late in self._copies():
                    self.at(wire + other.hears_after + late, self._receive, other, sender.number, advert)

    def _announce(self, sender: Node, count: int) -> None:
        """Gratuitous ARPs: the client believes the last one that it hears."""
        lost = self.loss and self.random.random() < self.loss**count
        if (sender.number, CLIENT) not in self.cut and not lost:
            self.at(self._wire(sender), self._learn, sender.number)

    def _learn(self, number: int) -> None:
        self.arp = number
        self.judge.look()

    def _wire(self, sender: Node) -> int:
        """How long its next frame takes to everybody's end of the wire."""
        sender.wire_at = max(sender.wire_at, self.now + self._delay())
        return sender.wire_at - self.now

    def _copies(self) -> tuple[int, ...]:
        """How late the copies of one datagram come: none when it is lost, two when it is doubled."""
        if not (self.loss or self.duplicates or self.reorder):
            return ON_TIME
        chance, half = self.random.random, self.interval // 2
        copies = 1 + (chance() < self.duplicates)
        kept = [copy for copy in range(copies) if chance() >= self.loss]
        return tuple(int(chance() * half) if chance() < self.reorder else 0 for _ in kept)
