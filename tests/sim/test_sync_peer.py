"""Two production Peer machines over a network that loses, delays, duplicates and reorders, on virtual time."""

from __future__ import annotations

import contextlib
import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.epochs import Epochs
from lbnode.errors import PeerError
from lbnode.sync import peer as peer_module
from lbnode.sync import wire
from lbnode.sync.peer import BulkRequested, Peer, RecordsReceived, StateChanged

KEY = b"key"
RECORD = 8  # bytes: connection number u32, version u32


def record(connection: int, version: int) -> bytes:
    return connection.to_bytes(4, "big") + version.to_bytes(4, "big")


@dataclass
class Node:
    """A gateway: a Peer and the connection table that it fills.

    As in a data plane, a record that is older than what the table holds changes nothing: both sides send everything
    to each other when a session begins, and one of them has seen the connection's packets more recently.
    """

    name: str
    peer: Peer
    table: dict[int, int] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    delivered: dict[int, int] = field(default_factory=dict)  # newest version that came from the peer
    out_of_order: int = 0

    def change(self, connection: int, now: float) -> None:
        self.table[connection] = self.table.get(connection, 0) + 1
        self.peer.send_records("", record(connection, self.table[connection]), now)

    def _take(self, connection: int, version: int) -> None:
        self.out_of_order += version < self.delivered.get(connection, 0)
        self.delivered[connection] = version
        self.table[connection] = max(version, self.table.get(connection, 0))

    def act(self, now: float) -> None:
        while (event := self.peer.next_event()) is not None:
            match event:
                case RecordsReceived(data=data):
                    for at in range(0, len(data), RECORD):
                        connection = int.from_bytes(data[at : at + 4], "big")
                        self._take(connection, int.from_bytes(data[at + 4 : at + 8], "big"))
                case BulkRequested(request=request):
                    self.peer.send_records("", b"".join(record(*item) for item in sorted(self.table.items())), now)
                    self.peer.finish_bulk(request, now)
                case StateChanged(state=state):
                    self.states.append(state)


class Network:
    def __init__(self, seed: int, loss: float = 0.0, delay_s: float = 0.005, duplicate: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss, self.delay_s, self.duplicate = loss, delay_s, duplicate
        self.now = 0.0
        self.cut = False
        self.nodes = {"gw1": self.make("gw1", "gw2"), "gw2": self.make("gw2", "gw1")}
        self.flying: list[tuple[float, int, str, bytes]] = []
        self.sent: list[tuple[str, bytes]] = []
        self.rejected = 0

    def make(self, name: str, other: str) -> Node:
        return Node(name, Peer(other, name, KEY, self.random.getrandbits(64) | 1, "layout", RECORD, Epochs()))

    def restart(self, name: str) -> None:
        self.nodes[name] = self.make(name, "gw2" if name == "gw1" else "gw1")

    def pump(self) -> None:
        for name, node in self.nodes.items():
            node.act(self.now)
            for data in node.peer.datagrams_to_send():
                other = "gw2" if name == "gw1" else "gw1"
                self.sent.append((other, data))
                if self.cut or self.random.random() < self.loss:
                    continue
                for _ in range(2 if self.random.random() < self.duplicate else 1):
                    arrives = self.now + self.random.uniform(0, 2 * self.delay_s)
                    heapq.heappush(self.flying, (arrives, self.random.getrandbits(30), other, data))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.pump()
            timers = [max(self.now + 1e-4, node.peer.get_timer()) for node in self.nodes.values()]
            arrival = self.flying[0][0] if self.flying else end
            self.now = max(self.now, min([end, arrival, *timers]))
            while self.flying and self.flying[0][0] <= self.now:
                _, _, receiver, data = heapq.heappop(self.flying)
                try:
                    self.nodes[receiver].peer.receive_datagram(data, self.now)
                except PeerError:
                    self.rejected += 1
            for node in self.nodes.values():
                if node.peer.get_timer() <= self.now:
                    node.peer.handle_timer(self.now)
        self.pump()


def test_two_fresh_nodes_get_in_sync() -> None:
    network = Network(1)
    network.run(1)
    assert [node.peer.state for node in network.nodes.values()] == ["in-sync", "in-sync"]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0.0, 0.3]))
def test_tables_become_equal_whatever_the_network_does(seed: int, loss: float, duplicate: float) -> None:
    network = Network(seed, loss=loss, duplicate=duplicate)
    for _ in range(20):
        network.nodes["gw1"].change(network.random.randrange(40), network.now)
        network.run(network.random.uniform(0, 0.1))
    network.run(10)
    network.loss = 0.0  # at a loss of a third, a peer counts as silent now and then
    network.run(3)
    assert network.nodes["gw2"].table == network.nodes["gw1"].table
    assert network.nodes["gw2"].out_of_order == 0
    assert network.nodes["gw2"].peer.state == "in-sync"


@pytest.mark.parametrize("restarted", ["gw1", "gw2"])
def test_a_restarted_node_gets_everything_in_bulk(restarted: str) -> None:
    network = Network(2)
    network.run(1)
    for connection in range(500):
        network.nodes["gw1"].change(connection, network.now)
    network.run(1)
    table = dict(network.nodes["gw1"].table)
    before = network.rejected
    network.restart(restarted)
    network.run(2)
    assert network.rejected == before
    assert network.nodes[restarted].table == table
    assert network.nodes[restarted].peer.state == "in-sync"


def test_silence_is_noticed_and_healed_without_loss() -> None:
    network = Network(3)
    network.run(1)
    network.cut = True
    for connection in range(100):
        network.nodes["gw1"].change(connection, network.now)
    network.run(3)
    assert network.nodes["gw2"].peer.state == "silent"
    network.cut = False
    network.run(2)
    assert network.nodes["gw2"].table == network.nodes["gw1"].table
    assert network.nodes["gw2"].peer.state == "in-sync"


def test_more_than_is_kept_ends_in_a_bulk_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "MAX_KEPT", 50)
    network = Network(4)
    network.run(1)
    network.cut = True
    for connection in range(200):
        network.nodes["gw1"].change(connection, network.now)
    network.run(3)
    assert network.nodes["gw1"].peer.backlog <= 50
    network.cut = False
    network.nodes["gw2"].states.clear()
    network.run(3)
    assert "bulk" in network.nodes["gw2"].states
    assert network.nodes["gw2"].table == network.nodes["gw1"].table


def test_a_recorded_conversation_played_back_changes_nothing() -> None:
    network = Network(5)
    network.run(1)
    network.nodes["gw1"].change(7, network.now)
    network.run(1)
    recorded = [data for to, data in network.sent if to == "gw2"]
    network.nodes["gw1"].change(7, network.now)
    network.run(1)
    gw2 = network.nodes["gw2"]
    for data in recorded:
        with pytest.raises(PeerError):
            gw2.peer.receive_datagram(data, network.now)
    gw2.act(network.now)
    assert gw2.table == {7: 2}
    # Nor does it open a session with a node that restarted meanwhile.
    network.restart("gw2")
    fresh = network.nodes["gw2"]
    for data in recorded:
        try:
            fresh.peer.receive_datagram(data, network.now)
        except PeerError:
            continue
        fresh.act(network.now)
    assert fresh.table == {}
    assert fresh.peer.state == "connecting"


def test_another_record_layout_is_refused_with_a_reason() -> None:
    network = Network(6)
    network.nodes["gw2"].peer = Peer("gw1", "gw2", KEY, 99, "another layout", RECORD, Epochs())
    network.run(1)
    for node in network.nodes.values():
        assert node.peer.state == "refused"
        assert "layout" in node.peer.problem


def test_a_peer_of_another_version_is_refused_with_a_reason_and_goes_on_after_its_upgrade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First one that was never heard otherwise, then one that goes back to its former version."""
    network = Network(9)
    gw1 = network.nodes["gw1"].peer

    def heard_from_version(version: int, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            monkeypatch.setattr(wire, "VERSION", version)
            former = wire.encode(wire.Datagram(7, 7, wire.Ack(0)), KEY)
            monkeypatch.undo()
            with contextlib.suppress(PeerError):
                gw1.receive_datagram(former, network.now)
            network.run(0.25)

    network.cut = True
    heard_from_version(1, 3)
    assert (gw1.state, "version 1 of the synchronisation, this node version 2" in gw1.problem) == ("refused", True)
    assert network.nodes["gw1"].states == ["refused"], "said once"
    network.cut = False
    network.run(2)
    assert gw1.state == "in-sync"
    heard_from_version(1, 1)  # a recording
    assert gw1.state == "in-sync"
    network.cut = True
    heard_from_version(1, 3)
    assert gw1.state == "refused"
    network.nodes["gw1"].change(1, network.now)
    network.cut = False
    network.run(2)
    assert gw1.state == "in-sync" and network.nodes["gw2"].table == {1: 1}


def test_an_unexpected_name_is_rejected() -> None:
    network = Network(7)
    network.nodes["gw2"].peer = Peer("gw1", "gwX", KEY, 99, "layout", RECORD, Epochs())
    network.run(1)
    assert network.nodes["gw1"].peer.state == "connecting"
    assert network.rejected > 0


def test_forged_datagrams_change_nothing() -> None:
    network = Network(8)
    network.run(1)
    gw2, generator = network.nodes["gw2"], random.Random(8)
    genuine = [data for to, data in network.sent if to == "gw2"]
    for _ in range(2000):
        forged = bytearray(generator.choice(genuine))
        forged[generator.randrange(len(forged))] ^= generator.randrange(1, 256)
        with pytest.raises(PeerError):
            gw2.peer.receive_datagram(bytes(forged), network.now)
    assert gw2.peer.next_event() is None
    network.nodes["gw1"].change(1, network.now)
    network.run(1)
    assert gw2.table == {1: 1}
