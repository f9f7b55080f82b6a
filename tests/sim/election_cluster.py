"""N production state machines on virtual time, with a network that loses, delays, duplicates and cuts.

Everything random comes from one seeded generator, so a seed replays a run event by event (`trace`).
Kernel-side facts are modelled too: who holds the addresses, whose gratuitous ARP a client heard last.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from lbnode.election.machine import Announce, Changed, Claim, Machine, Send, VirtualRouter, Withdraw
from lbnode.model import VrrpState
from tests.unit.test_election_packet import ip_packet

VIP = IPv4Address("192.0.2.10")
CLIENT = -1  # as a destination of the network
SOCKET_QUEUE = 256  # packets a paused process's socket holds


@dataclass
class Node:
    number: int
    router: VirtualRouter
    machine: Machine
    alive: bool = True
    paused: bool = False
    holds: bool = False  # the addresses are on its interfaces
    inbox: list[bytes] = field(default_factory=list)
    wake_at: int | None = None

    @property
    def active(self) -> bool:
        return self.machine.state is VrrpState.ACTIVE

    @property
    def awake(self) -> bool:
        return self.alive and not self.paused


class Cluster:
    def __init__(
        self,
        seed: int,
        priorities: tuple[int, ...] = (250, 200, 150),
        *,
        preempt: bool = False,
        interval_cs: int = 10,
        max_delay: float = 0.01,
    ) -> None:
        """`max_delay`: of a packet, in intervals (kept in ns). Timers are served up to the same time late."""
        self.random = random.Random(seed)
        self.now = 0
        self.loss = 0.0
        self.duplicates = 0.0
        self.cut: set[tuple[int, int]] = set()  # (from, to)
        self.trace: list[tuple[int, int, str]] = []
        self.arp: int | None = None  # whose gratuitous ARP the client heard last
        self.after_event: Callable[[], None] = lambda: None
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self.nodes: list[Node] = []
        for number, priority in enumerate(priorities):
            peers = tuple(p for n, p in enumerate(priorities) if n != number)
            source = IPv4Address("192.0.2.1") + number
            router = VirtualRouter(51, priority, interval_cs, (VIP,), source, preempt, peers)
            self.nodes.append(Node(number, router, Machine(router)))
        self.interval = self.nodes[0].router.interval
        self.max_delay = int(max_delay * self.interval)
        for node in self.nodes:
            self.at(self.random.randrange(self.interval), lambda node=node: self._start(node))

    # --- virtual time ---

    def at(self, delay: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now + delay, self._sequence, action))

    def run(self, intervals: float) -> None:
        """Let virtual time pass."""
        end = self.now + int(intervals * self.interval)
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            self.after_event()
        self.now = end

    # --- faults ---

    def pause(self, node: Node) -> None:
        """SIGSTOP, garbage collection, starvation: the kernel goes on answering and queueing, the process does not."""
        node.paused = True

    def resume(self, node: Node) -> None:
        node.paused = False
        if node.alive:
            self._serve(node)

    def power_off(self, node: Node) -> None:
        node.alive, node.holds, node.inbox = False, False, []
        self._note(node, "power off")

    def kill_driver(self, node: Node) -> None:
        """SIGKILL of the election process: its supervisor takes the addresses off."""
        node.alive, node.holds, node.inbox = False, False, []
        self._note(node, "driver killed")

    def kill_daemon(self, node: Node) -> None:
        """SIGKILL of lbnoded: the election process sees the socket close and leaves."""
        if node.awake:
            node.machine.stop(self.now, "lbnoded has died")
            self._perform(node)
        node.alive, node.holds, node.inbox = False, False, []

    def restart(self, node: Node) -> None:
        if not node.alive:
            node.alive, node.paused, node.machine = True, False, Machine(node.router)
            self._start(node)

    def isolate(self, node: Node) -> None:
        for other in (*range(len(self.nodes)), CLIENT):
            self.cut |= {(node.number, other), (other, node.number)}

    def heal(self) -> None:
        """End every fault."""
        self.cut.clear()
        self.loss = self.duplicates = 0.0
        for node in self.nodes:
            if node.paused:
                self.resume(node)
            self.restart(node)

    # --- mechanics ---

    def actives(self) -> list[int]:
        return [node.number for node in self.nodes if node.awake and node.active]

    def holders(self) -> list[int]:
        return [node.number for node in self.nodes if node.alive and node.holds]

    def _note(self, node: Node, what: str) -> None:
        self.trace.append((self.now, node.number, what))

    def _start(self, node: Node) -> None:
        if node.alive and not node.paused:
            node.machine.start(self.now)
            self._perform(node)

    def _receive(self, node: Node, packet: bytes) -> None:
        if not node.alive:
            return
        if node.paused:
            if len(node.inbox) < SOCKET_QUEUE:
                node.inbox.append(packet)
            return
        node.machine.receive_datagram(packet, self.now)
        self._perform(node)

    def _serve(self, node: Node) -> None:
        """What the driver's loop does: what was heard first, then the timer."""
        if not node.awake:
            return
        inbox, node.inbox = node.inbox, []
        for packet in inbox:
            node.machine.receive_datagram(packet, self.now)
            self._perform(node)
        timer = node.machine.get_timer()
        if timer is not None and timer <= self.now:
            node.machine.handle_timer(self.now)
        self._perform(node)

    def _perform(self, node: Node) -> None:
        while (event := node.machine.next_event()) is not None:
            match event:
                case Send(datagram):
                    for other in self.nodes:
                        if other is not node:
                            self._send(node, other.number, ip_packet(datagram, node.router.source))
                case Claim():
                    node.holds = True
                case Withdraw():
                    node.holds = False
                case Announce():
                    self._send(node, CLIENT, b"")
                case Changed(state, reason):
                    self._note(node, f"{state}: {reason}")
        timer = node.machine.get_timer()
        if timer is not None:
            self.at(max(0, timer - self.now) + self.random.randint(0, self.max_delay), lambda: self._serve(node))

    def _send(self, sender: Node, to: int, packet: bytes) -> None:
        copies = 1 + (self.random.random() < self.duplicates)
        for _ in range(copies):
            if (sender.number, to) in self.cut or self.random.random() < self.loss:
                continue
            delay = self.random.randint(1, max(1, self.max_delay))
            if to == CLIENT:
                self.at(delay, lambda: setattr(self, "arp", sender.number))
            else:
                self.at(delay, lambda: self._receive(self.nodes[to], packet))
