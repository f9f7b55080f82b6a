"""Who serves the VIP, and who should: looked at after every change, as a client on the nodes' network sees it.

- a node *serves* while it is powered, holds the addresses and their lease runs: its kernel answers for the VIP;
- *double*: two nodes serve that the client can reach;
- *dark*: a node whose process runs could be reached, and none that can be reached serves;
- *unsettled*: the number of nodes that serve is not one;
- *astray*: one node serves and can be reached, but the last gratuitous ARP that the client heard was another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbnode.election.router import VirtualRouter
from tests.sim.election.network import CLIENT, Path
from tests.sim.election.node import Node

if TYPE_CHECKING:
    from tests.sim.election.cluster import Cluster

SIMULTANEOUS = 0.1  # intervals


class Spells:
    """The times for which a condition held since the last `reset`, in ns."""

    def __init__(self) -> None:
        self.since: int | None = None
        self.reset(0)

    def reset(self, now: int) -> None:
        """Forget what was; a spell that lasts begins now."""
        self.longest = self.total = 0
        self.ended = now
        if self.since is not None:
            self.since = now

    def see(self, holds: bool, now: int) -> None:
        """The condition holds, or not, from now on."""
        if self.since is not None and not holds:
            self.close(now)
            self.since = None
        elif holds and self.since is None:
            self.since = now

    def close(self, now: int) -> None:
        """Count a spell that lasts as if it ended now."""
        if self.since is not None:
            self.longest = max(self.longest, now - self.since)
            self.total += now - self.since
            self.since = self.ended = now


class Judge:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.double, self.dark, self.unsettled, self.astray = self.all = tuple(Spells() for _ in range(4))
        self._serves_since: dict[int, int] = {}  # by node number
        self.wrong: list[str] = []  # what a node may never do
        self.needless: list[str] = []  # takeovers while another node served

    def look(self) -> None:
        """To be called after whatever may change who serves or who can be reached."""
        cluster = self._cluster
        now, cut = cluster.now, cluster.network.cut
        serving = healthy = total = 0
        right = False
        for node in cluster.nodes:
            serves = node.serves(now)
            total += serves
            if not serves:
                self._serves_since.pop(node.number, None)
            else:
                self._serves_since.setdefault(node.number, now)
            there, back = (Path.LAN, CLIENT, node.number), (Path.LAN, node.number, CLIENT)
            if not cut or (there not in cut and back not in cut):
                healthy += node.awake
                if serves:
                    serving += 1
                    right |= cluster.arp == node.number
        self.double.see(serving > 1, now)
        self.dark.see(serving == 0 and healthy > 0, now)
        self.unsettled.see(total != 1, now)
        self.astray.see(serving == 1 and not right, now)

    def reset(self) -> None:
        self.look()
        for spells in self.all:
            spells.reset(self._cluster.now)

    def close(self) -> None:
        self.look()
        for spells in self.all:
            spells.close(self._cluster.now)

    def took_over(self, node: Node) -> None:
        """`node` becomes Active. Two whose timers end within a datagram's way cannot know of each other."""
        now, cluster = self._cluster.now, self._cluster
        self.needless += [
            f"node {node.number} took over from node {number}, which served"
            for number, since in self._serves_since.items()
            if number != node.number and now - since > SIMULTANEOUS * cluster.interval
        ]

    def yielded(self, loser: VirtualRouter, winner: VirtualRouter) -> None:
        """`loser`, Active and not late, heard `winner` and is not Active any more (RFC 9568 section 6.4.3)."""
        ours, theirs = ((router.priority, router.source) for router in (loser, winner))
        if theirs < ours:
            self.wrong.append(f"{loser.source} {ours} yielded to the lesser claim of {winner.source} {theirs}")
