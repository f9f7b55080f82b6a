"""The simulated cluster of elections with connections: production sync sessions and epochs on top of it.

Each node has a kernel with a connection table, which goes on while its processes are paused, and a daemon with one
session for each peer, which stops with the election process. A packet changes its connection on the node that serves
the VIP. A record names the connection, the change (they are numbered in the order in which they happened) and how long
the connection has been idle; as in the kernel, whoever imports it takes it if it looks newer than what is there. A
record that was long on its way looks newer than it is. (Also to a later one of the same connection that was not: so its
packets are further apart here than records take without loss.)

The judge knows what no node knows: in which term a change was made. Terms are counted as epochs are, but at the moment
of the takeover. What the owner has changed may never go back to what it was in an earlier term.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass

from lbnode.epochs import Epochs, Kept
from lbnode.errors import PeerError
from lbnode.model import Role, VipAddress, VipGroup, VrrpState
from lbnode.sync.driver import COLLECT_INTERVAL_S
from lbnode.sync.peer import BulkRequested, Peer, RecordsReceived, RecordsRefused
from tests.sim.election.cluster import Cluster
from tests.sim.election.network import Path
from tests.sim.election.node import Node, Process
from tests.sim.election.process import VIP, Settings, name_of

GROUP = "front"
KEY = b"key"
CONNECTIONS = 50
SECOND = 1_000_000_000
COLLECT = int(COLLECT_INTERVAL_S * SECOND)
PACKET = SECOND // 500  # between two packets of all connections together
_RECORD = struct.Struct("!IIII")  # connection, number of the change, term in which it was made, idle ms


@dataclass
class Entry:
    change: int
    term: int
    last: int  # packet, on the node's own clock, ns


class Daemon:
    """The connections of one node, and the lbnoded that synchronises them."""

    def __init__(self, cluster: Synchronised, node: Node) -> None:
        self.cluster, self.node = cluster, node
        self.table: dict[int, Entry] = {}
        self.changed: dict[int, None] = {}  # queued by the kernel
        self.inbox: list[tuple[int, bytes]] = []  # waits in the socket
        self.kept: dict[str, Kept] = {}  # on disk
        self.refused: list[str] = []
        self.start()
        cluster.at(cluster.random.randrange(COLLECT), self._tick)

    def start(self) -> None:
        """A new process."""
        cluster, number = self.cluster, self.node.number
        self.epochs = Epochs(self.kept)
        address = (VipAddress(VIP, 24),)
        self.epochs.set_groups([VipGroup(GROUP, 51, address, {name_of(number): 1}, policy=cluster.settings.policy)])
        stream = cluster.random.getrandbits(64) | 1
        me, others = name_of(number), (n for n in range(len(cluster.nodes)) if n != number)
        session = KEY, stream, "layout", _RECORD.size, self.epochs
        self.peers = {n: Peer(name_of(n), me, *session) for n in others}
        self.inbox = []
        self.running = True

    @property
    def _now(self) -> int:
        return self.node.clock(self.cluster.now)

    def packet(self, connection: int, change: int) -> None:
        """The kernel forwards one."""
        self.table[connection] = Entry(change, self.cluster.terms[self.node.number], self._now)
        self.changed[connection] = None

    def deliver(self, sender: int, data: bytes) -> None:
        if self.node.process is not Process.DEAD and self.node.powered and not self.node.stunned:
            self.inbox.append((sender, data))
            if self.running and self.node.awake:
                self._receive()

    def _tick(self) -> None:
        self.cluster.at(COLLECT, self._tick)
        if not self.node.powered:
            self.table, self.changed = {}, {}
        if self.node.process is Process.DEAD:
            self.running = False
        elif self.node.awake:
            if not self.running:
                self.start()
            self._work()

    def hear_of_role(self) -> None:
        """The election process has told a change."""
        if self.running and self.node.awake:
            self._work()

    def _work(self) -> None:
        """One round of everything; what waits in the socket comes first, whatever it is."""
        now = self._now / SECOND
        self._receive()
        process = self.cluster.processes[self.node.number]
        store = self.cluster.store.daemons[self.node.number]
        if store.owner is not None:
            self.epochs.see(GROUP, store.owner.epoch)
        epoch = process.machine.epoch if process.active else 0
        role = Role(GROUP, process.machine.state, 100, 0.0, "", epoch=epoch)
        self.epochs.take_roles({GROUP: role}, now)
        if not self.epochs.holds(now):
            given_up = self.epochs.given_up()
            records = b"".join(map(self._record, self.changed))
            self.changed = {}
            for peer in self.peers.values():
                peer.send_records(GROUP, records, now)
            self.epochs.all_sent(given_up)
        for peer in self.peers.values():
            if peer.get_timer() <= now:
                peer.handle_timer(now)
        self._act(now)
        self.kept = self.epochs.kept()

    def _receive(self) -> None:
        inbox, self.inbox = self.inbox, []
        now = self._now / SECOND
        for sender, data in inbox:
            with contextlib.suppress(PeerError):
                self.peers[sender].receive_datagram(data, now)
            self._act(now)

    def _act(self, now: float) -> None:
        for number, peer in self.peers.items():
            while (event := peer.next_event()) is not None:
                match event:
                    case RecordsReceived(data=data):
                        for fields in _RECORD.iter_unpack(data):
                            self._import(*fields)
                    case RecordsRefused(why=why):
                        self.refused.append(why)
                    case BulkRequested(request=request):
                        peer.send_records(GROUP, b"".join(map(self._record, self.table)), now)
                        peer.finish_bulk(request, now)
            for data in peer.datagrams_to_send():
                self.cluster.transmit(self.node.number, number, data)

    def _record(self, connection: int) -> bytes:
        entry = self.table[connection]
        return _RECORD.pack(connection, entry.change, entry.term, (self._now - entry.last) // 1_000_000)

    def _import(self, connection: int, change: int, term: int, idle_ms: int) -> None:
        entry, last = self.table.get(connection), self._now - idle_ms * 1_000_000
        if entry is not None and last < entry.last:
            return
        if entry is not None and term < entry.term == self.cluster.terms[self.node.number] and self.is_owner:
            self.cluster.overwritten.append(
                f"{self.cluster.now / SECOND:.3f} n{self.node.number}: connection {connection} went back from change "
                f"{entry.change} of term {entry.term} to {change} of term {term}"
            )
        self.table[connection] = Entry(change, term, last)

    @property
    def is_owner(self) -> bool:
        """Active, and the store has said so."""
        process, owner = self.cluster.processes[self.node.number], self.cluster.store.owner
        named = owner is not None and owner.number == self.node.number and owner.epoch == process.machine.epoch
        return named and process.active


class Synchronised(Cluster):
    """`overwritten`: what may never happen."""

    def __init__(self, seed: int, settings: Settings) -> None:
        super().__init__(seed, settings)
        self.overwritten: list[str] = []
        self.changes = 0
        self.quiet = False
        self.terms = [0] * len(self.nodes)  # in which each node became Active last
        self.daemons = [Daemon(self, node) for node in self.nodes]
        self.at(PACKET, self._packet)

    def _packet(self) -> None:
        self.at(PACKET, self._packet)
        node = self.nodes[self.arp] if self.arp is not None and not self.quiet else None
        if node is not None and node.serves(self.now):
            self.changes += 1
            self.daemons[node.number].packet(self.changes % CONNECTIONS, self.changes)

    def changed(self, node: Node, state: VrrpState, reason: str) -> None:
        super().changed(node, state, reason)
        if state is VrrpState.ACTIVE:
            self.terms[node.number] = self.takeovers
        self.at(self.network.delay(), self.daemons[node.number].hear_of_role)

    def transmit(self, sender: int, to: int, data: bytes) -> None:
        for late in self.network.copies(Path.SYNC, sender, to):
            self.at(self.network.delay() + late, self.daemons[to].deliver, sender, data)

    @property
    def owner(self) -> Daemon:
        (number,) = self.actives()
        return self.daemons[number]

    def behind(self) -> list[str]:
        """Nodes whose connections differ from what the owner has made of them."""
        owner = self.owner
        term = self.terms[owner.node.number]
        return [
            f"n{daemon.node.number}: connection {connection} is {daemon.table.get(connection)}, the owner has {entry}"
            for daemon in self.daemons
            for connection, entry in owner.table.items()
            if entry.term == term and daemon.node.awake
            if connection not in daemon.table or daemon.table[connection].change != entry.change
        ]

    def rest(self) -> None:
        """No more packets, until the last change has come to everybody."""
        self.quiet = True
        self.run_until(self.now + 5 * SECOND)
        self.quiet = False
