"""The shared store and each node's lbnoded in front of it, as far as the election asks them: see lbnode.ownership.

The store is one register per group with compare-and-swap, and watchers. It is slow (a round trip takes milliseconds,
whatever the advertisement interval is) and goes away: for all, or for one node. What a node's daemon tells the election
process comes like a datagram: it waits while the process is paused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.election.network import STORE, Path
from tests.sim.election.node import Process

if TYPE_CHECKING:
    from tests.sim.election.cluster import Cluster
    from tests.sim.election.process import ElectionProcess

MS = 1_000_000
ONE_WAY = (MS // 2, 2 * MS)  # ns between a node and the store
UNNOTICED = 2000 * MS  # how long the store is silent until a daemon says so
RETRY = 1000 * MS


@dataclass(frozen=True)
class Owner:
    number: int
    epoch: int


class Daemon:
    """The part of lbnoded that speaks with the store for one election process."""

    def __init__(self, store: OwnerStore, process: ElectionProcess) -> None:
        self.store, self.process = store, process
        self.owner: Owner | None = None  # as last seen
        self.connected = True
        self._reached_at = 0
        self._question = 0  # of ours, that waits for an answer; 0 = none
        self._acknowledged = False

    def ready(self) -> None:
        """A new election process knows nothing yet."""
        self.process.hear_store(self.connected)
        if self.owner is not None:
            self.process.hear_owner(self.owner)

    def see(self, owner: Owner | None) -> None:
        """The watch has delivered."""
        if owner is not None and owner != self.owner:
            self.owner = owner
            self.process.tell("owner", owner)

    def claim(self) -> None:
        """Write that this node is the owner, until that has worked, for as long as it is Active."""
        if self.process.active and self.process.node.process is not Process.DEAD:
            self.store.swap(self, self.owner)

    def claimed(self, owner: Owner) -> None:
        if self.owner == owner:
            self.process.tell("owner", owner)

    def ask(self, within: int) -> None:
        owner = self.owner
        if owner is None or owner.number == self.process.node.number:
            self.process.tell("answer", None, False)
            return
        self._question, self._acknowledged = self.store.next_question(), False
        self.store.ask(self, self._question, owner)
        self.store.cluster.at(within, self._end_of_question, self._question, owner)

    def acknowledged(self, question: int) -> None:
        self._acknowledged |= question == self._question

    def answered(self, question: int, owner: Owner) -> None:
        if question == self._question:
            self._question = 0
            self.process.tell("answer", owner, True)

    def _end_of_question(self, question: int, owner: Owner) -> None:
        if question == self._question:
            self._question = 0
            if self._acknowledged:
                self.process.tell("answer", owner, False)

    def look(self) -> None:
        """Twice a second: has the store been heard lately?"""
        cluster = self.store.cluster
        if self.store.reaches(self):
            self._reached_at = cluster.now
            self.see(self.store.owner)  # whatever the watch has missed
        connected = cluster.now - self._reached_at < UNNOTICED
        if connected != self.connected:
            self.connected = connected
            self.process.tell("store", connected)
        cluster.at(UNNOTICED // 4, self.look)


class OwnerStore:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.down = 0  # faults that keep it from answering anybody
        self.owner: Owner | None = None
        self.daemons: list[Daemon] = []
        self._questions = 0

    def connect(self, process: ElectionProcess) -> Daemon:
        daemon = Daemon(self, process)
        self.daemons.append(daemon)
        self.cluster.at(self._delay(), daemon.look)
        return daemon

    def next_question(self) -> int:
        self._questions += 1
        return self._questions

    def reaches(self, daemon: Daemon) -> bool:
        node, cut = daemon.process.node, self.cluster.network.cut
        there, back = (Path.STORE, node.number, STORE), (Path.STORE, STORE, node.number)
        return not self.down and node.powered and not node.stunned and there not in cut and back not in cut

    def swap(self, daemon: Daemon, before: Owner | None) -> None:
        self.cluster.at(self._delay(), self._swap, daemon, before)

    def _swap(self, daemon: Daemon, before: Owner | None) -> None:
        if not self.reaches(daemon):
            self.cluster.at(RETRY, daemon.claim)
        elif self.owner != before:
            self.cluster.at(self._delay(), self._deliver, daemon)
            self.cluster.at(ONE_WAY[1], daemon.claim)
        else:
            number = daemon.process.node.number
            self.owner = Owner(number, before.epoch + (before.number != number) if before else 1)
            self.cluster.at(self._delay(), daemon.claimed, self.owner)
            for each in self.daemons:
                self.cluster.at(self._delay(), self._deliver, each)

    def _deliver(self, daemon: Daemon) -> None:
        if self.reaches(daemon):
            daemon.see(self.owner)

    def ask(self, daemon: Daemon, question: int, owner: Owner) -> None:
        self.cluster.at(self._delay(), self._asked, daemon, question, owner)

    def _asked(self, daemon: Daemon, question: int, owner: Owner) -> None:
        if self.reaches(daemon):
            self.cluster.at(self._delay(), daemon.acknowledged, question)
            self.cluster.at(self._delay(), self._question, self.daemons[owner.number], daemon, question, owner)

    def _question(self, asked: Daemon, asking: Daemon, question: int, owner: Owner) -> None:
        if self.reaches(asked):
            delay = self._delay()
            asked.process.tell("question", lambda: self.cluster.at(delay, self._answer, asked, asking, question, owner))

    def _answer(self, asked: Daemon, asking: Daemon, question: int, owner: Owner) -> None:
        if self.reaches(asked) and self.reaches(asking):
            self.cluster.at(self._delay(), asking.answered, question, owner)

    def _delay(self) -> int:
        low, high = ONE_WAY
        return low + int(self.cluster.random.random() * (high - low))
