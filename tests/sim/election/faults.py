"""What can go wrong: each fault begins at once and returns what ends it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from lbnode.election.authentication import Mode
from tests.sim.election.cluster import Cluster
from tests.sim.election.network import CLIENT, GATEWAY, STORE, Link, Path
from tests.sim.election.node import Node

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


def upgrade(cluster: Cluster, node: Node, _: random.Random) -> End:
    """No fault either: another process takes over on the node, without an election."""
    cluster.upgrade(node)
    return lambda: None


def reconfiguration(cluster: Cluster, _: Node, chance: random.Random) -> End:
    """Other priorities, and perhaps another interval: no role may move for it, since nobody preempts."""
    settings = cluster.settings
    priorities = tuple(chance.sample(tuple(settings.priorities), len(settings.priorities)))
    slower = 2 * cluster.interval // 10_000_000
    interval_cs = chance.choice((settings.interval_cs, slower if settings.interval_cs != slower else slower // 2))
    cluster.configure(replace(settings, priorities=priorities, interval_cs=interval_cs))
    return lambda: None


def rolling_upgrade(cluster: Cluster, _: Node, chance: random.Random) -> End:
    """Every node gets another process, one after the other, and meanwhile the configuration changes."""
    at = 0
    for node in chance.sample(cluster.nodes, len(cluster.nodes)):
        cluster.at(at, cluster.upgrade, node)
        at += int(chance.uniform(1, 3) * cluster.interval)
    cluster.at(chance.randrange(at), reconfiguration, cluster, cluster.nodes[0], chance)
    cluster.run(at / cluster.interval + 1)
    return lambda: None


def authentication(cluster: Cluster, _: Node, chance: random.Random) -> End:
    """The operator goes one mode further, or back: a running group is changed over like that (see Mode)."""
    modes, settings = tuple(Mode), cluster.settings
    at = modes.index(settings.authentication)
    mode = chance.choice([modes[n] for n in (at - 1, at + 1) if 0 <= n < len(modes)])
    cluster.configure(replace(settings, authentication=mode))
    return lambda: None


def isolation(cluster: Cluster, node: Node, chance: random.Random) -> End:
    """Nothing passes between the node and anybody; perhaps it reaches the store."""
    paths = chance.choice((tuple(Path), (Path.LAN, Path.SYNC)))
    return _cut(cluster, {node.number}, _everybody(cluster) - {node.number}, *paths)


def lan_isolation(cluster: Cluster, node: Node, _: random.Random) -> End:
    """The node's port on the LAN forwards nothing, its link stays up; the second path works."""
    return _cut(cluster, {node.number}, _everybody(cluster) - {node.number}, Path.LAN)


def sync_isolation(cluster: Cluster, node: Node, _: random.Random) -> End:
    """The second path of one node is broken."""
    return _cut(cluster, {node.number}, _nodes(cluster) - {node.number}, Path.SYNC)


def multicast(cluster: Cluster, node: Node, _: random.Random) -> End:
    """The switch keeps the node's multicast and what is sent to it; client and gateway reach everybody."""
    return _cut(cluster, {node.number}, _nodes(cluster) - {node.number}, Path.LAN)


def partition(cluster: Cluster, _: Node, chance: random.Random) -> End:
    """Two sides of the LAN that do not hear each other; client and gateway are on one, the store on one or on both.
    Perhaps the second path is cut as well."""
    numbers = _nodes(cluster)
    side = set(chance.sample(sorted(numbers), chance.randint(1, len(numbers) - 1)))
    other = numbers - side
    chance.choice((side, other)).update((CLIENT, GATEWAY))
    chance.choice((side, other, set[int]())).add(STORE)
    return _cut(cluster, side, other, *chance.choice(((Path.LAN,), tuple(Path))))


def one_way(cluster: Cluster, node: Node, chance: random.Random) -> End:
    """What one node sends on the LAN does not reach another."""
    other = chance.choice(sorted(_nodes(cluster) - {node.number}))
    return _cut_links(cluster, frozenset({(Path.LAN, node.number, other)}))


def deafness(cluster: Cluster, node: Node, _: random.Random) -> End:
    """The node hears nobody, on either path; everybody hears it."""
    others = _everybody(cluster) - {node.number}
    return _cut_links(cluster, frozenset((path, other, node.number) for path in Path for other in others))


def one_way_both(cluster: Cluster, node: Node, chance: random.Random) -> End:
    """What one node sends does not reach another, whatever way it takes."""
    other = chance.choice(sorted(_nodes(cluster) - {node.number}))
    return _cut_links(cluster, frozenset((path, node.number, other) for path in Path))


def loss(cluster: Cluster, _: Node, chance: random.Random) -> End:
    """Of up to half of all datagrams, on one path or on both."""
    network, share = cluster.network, chance.uniform(0.01, 0.5)
    for path in chance.choice(((Path.LAN,), (Path.LAN, Path.SYNC))):
        network.loss[path] = share

    def end() -> None:
        network.loss = [0.0 for _ in Path]

    return end


def duplication(cluster: Cluster, _: Node, chance: random.Random) -> End:
    network = cluster.network
    network.duplicates = chance.uniform(0.01, 0.5)

    def end() -> None:
        network.duplicates = 0.0

    return end


def reordering(cluster: Cluster, _: Node, chance: random.Random) -> End:
    network = cluster.network
    network.reorder = chance.uniform(0.01, 0.5)

    def end() -> None:
        network.reorder = 0.0

    return end


def store_outage(cluster: Cluster, _: Node, __: random.Random) -> End:
    """No etcd member answers: an outage, or for a moment a change of leader."""
    store = cluster.store
    store.down += 1

    def end() -> None:
        store.down = max(0, store.down - 1)

    return end


def store_cut(cluster: Cluster, node: Node, _: random.Random) -> End:
    """One node does not reach etcd."""
    return _cut(cluster, {node.number}, {STORE}, Path.STORE)


def _nodes(cluster: Cluster) -> set[int]:
    return {node.number for node in cluster.nodes}


def _everybody(cluster: Cluster) -> set[int]:
    return {CLIENT, GATEWAY, STORE} | _nodes(cluster)


def _cut(cluster: Cluster, side: set[int], other: set[int], *paths: Path) -> End:
    both = {(a, b) for a in side for b in other}
    both |= {(b, a) for a, b in both}
    return _cut_links(cluster, frozenset((path, *ends) for path in paths for ends in both))


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
SECOND_PATH: Mapping[str, Fault] = {
    "LAN isolation": lan_isolation,
    "sync isolation": sync_isolation,
    "one-way both": one_way_both,
    "deafness": deafness,
}
STORES: Mapping[str, Fault] = {"store outage": store_outage, "store cut": store_cut}
CHANGES: Mapping[str, Fault] = {"reconfiguration": reconfiguration, "rolling upgrade": rolling_upgrade}
ALL: Mapping[str, Fault] = {**LOCAL, "stun": stun, **NETWORK}
