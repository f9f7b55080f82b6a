"""What can go wrong: each fault begins at once and returns what ends it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from tests.sim.election.cluster import CLIENT, Cluster, Link, Node

End = Callable[[], None]
Fault = Callable[[Cluster, Node, random.Random], End]


def pause(cluster: Cluster, node: Node, _: random.Random) -> End:
    cluster.pause(node)
    return lambda: cluster.resume(node)


def process(cluster: Cluster, node: Node, _: random.Random) -> End:
    cluster.kill_process(node)
    return lambda: cluster.start(node)


def daemon(cluster: Cluster, node: Node, _: random.Random) -> End:
    cluster.kill_daemon(node)
    return lambda: cluster.start(node)


def everything(cluster: Cluster, node: Node, _: random.Random) -> End:
    cluster.kill_everything(node)
    return lambda: cluster.start(node)


def power(cluster: Cluster, node: Node, _: random.Random) -> End:
    cluster.power_off(node)
    return lambda: cluster.power_on(node)


def stun(cluster: Cluster, node: Node, _: random.Random) -> End:
    cluster.stun(node)
    return lambda: cluster.wake_machine(node)


def hand_over(cluster: Cluster, node: Node, _: random.Random) -> End:
    """No fault, but a change that must be as clean as none."""
    cluster.hand_over(node)
    return lambda: None


def isolation(cluster: Cluster, node: Node, _: random.Random) -> End:
    """Nothing passes between the node and anybody, in either direction."""
    return _cut(cluster, {node.number}, {CLIENT, *(n.number for n in cluster.nodes)} - {node.number})


def multicast(cluster: Cluster, node: Node, _: random.Random) -> End:
    """The switch keeps the node's multicast and what is sent to it; clients reach everybody."""
    return _cut(cluster, {node.number}, {n.number for n in cluster.nodes} - {node.number})


def partition(cluster: Cluster, _: Node, chance: random.Random) -> End:
    """Two sides that do not hear each other; the client is on one of them."""
    numbers = [node.number for node in cluster.nodes]
    side = set(chance.sample(numbers, chance.randint(1, len(numbers) - 1)))
    other = set(numbers) - side
    chance.choice((side, other)).add(CLIENT)
    return _cut(cluster, side, other)


def one_way(cluster: Cluster, node: Node, chance: random.Random) -> End:
    """What one node sends does not reach another."""
    other = chance.choice([n.number for n in cluster.nodes if n is not node])
    return _cut_links(cluster, frozenset({(node.number, other)}))


def loss(cluster: Cluster, _: Node, chance: random.Random) -> End:
    cluster.loss = chance.uniform(0.01, 0.5)

    def end() -> None:
        cluster.loss = 0.0

    return end


def duplication(cluster: Cluster, _: Node, chance: random.Random) -> End:
    cluster.duplicates = chance.uniform(0.01, 0.5)

    def end() -> None:
        cluster.duplicates = 0.0

    return end


def reordering(cluster: Cluster, _: Node, chance: random.Random) -> End:
    cluster.reorder = chance.uniform(0.01, 0.5)

    def end() -> None:
        cluster.reorder = 0.0

    return end


def _cut(cluster: Cluster, side: set[int], other: set[int]) -> End:
    both = {(a, b) for a in side for b in other}
    return _cut_links(cluster, frozenset(both | {(b, a) for a, b in both}))


def _cut_links(cluster: Cluster, links: frozenset[Link]) -> End:
    cluster.cut_links(links)
    return lambda: cluster.mend_links(links)


LOCAL: Mapping[str, Fault] = {
    "pause": pause,
    "process": process,
    "daemon": daemon,
    "everything": everything,
    "power": power,
    "hand over": hand_over,
}
NETWORK: Mapping[str, Fault] = {
    "isolation": isolation,
    "multicast": multicast,
    "partition": partition,
    "one-way": one_way,
    "loss": loss,
    "duplication": duplication,
    "reordering": reordering,
}
ALL: Mapping[str, Fault] = {**LOCAL, "stun": stun, **NETWORK}
