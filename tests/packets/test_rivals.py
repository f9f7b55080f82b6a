"""Two CPUs enter connections at the same moment, the same ones or others: each one once, and none is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.records import RECORD_SIZE
from lbnode.model import ServiceId
from tests.packets.bench import FULLNAT, MASQUERADE, TUNNEL, Bench, Machine
from tests.packets.sender import Sender, at_once
from tests.packets.wire import VIP, VIP6, Wire

pytestmark = pytest.mark.root

FLOWS, PACKETS, ROUNDS = 1 << 16, 60_000, 4
LOCALS = tuple(f"198.51.100.{last}" for last in (2, 3, 4, 5))


@pytest.fixture(scope="module")
def large() -> Iterator[Machine]:
    machine = Machine(entries=1 << 18)
    yield machine
    machine.close()


def assert_but_interrupted(bench: Bench, service: ServiceId, packets: int, *, one_in: int) -> None:
    """Every packet went on, but where an interrupt kept one CPU from its work for longer than the other waits."""
    dropped = bench.event(Event.DROP_TABLE_FULL)
    assert bench.events() in ({}, {Event.DROP_TABLE_FULL: dropped})
    assert bench.counters(service).packets_in == packets - dropped
    assert dropped < packets / one_in


@pytest.mark.parametrize(
    ("forward", "persistent_s"),
    [(TUNNEL, 0), (MASQUERADE, 0), (FULLNAT, 0), (TUNNEL, 60)],
    ids=["tunnel", "masquerade", "full NAT", "persistent"],
)
def test_the_same_packets_on_both(
    large: Machine, wire: Wire, wrappers: list[LoadedObject], forward: str, persistent_s: int
) -> None:
    """Who comes second finds the connection that the first one enters; it catches up, since finding costs less. With
    persistence each client has a template, too."""
    bench = Bench(large, wire, "xdp")
    service = bench.service(f"tcp:{f'[{VIP6}]' if persistent_s else VIP}:80", persistent_s=persistent_s)
    port, local = (80, ()) if forward is TUNNEL else (8080, LOCALS if forward is FULLNAT else ())
    for last in (11, 12):
        bench.server(service, f"198.51.100.{last}:{port}", forward, local=local)
    senders = [Sender(bench, wrapper, seed, FLOWS) for seed, wrapper in enumerate(wrappers)]
    for _ in range(ROUNDS):
        at_once(wire, senders, lambda sender: sender.send("S", packets=PACKETS, first=0, addresses=persistent_s > 0))
        packed = bench.packed_records()
        tuples = [data[at : at + 40] for data in packed for at in range(0, len(data), RECORD_SIZE)]  # struct record: in
        assert len(set(tuples)) == len(tuples) == PACKETS * (2 if persistent_s else 1)
        bench.advance(1000)
        bench.advance(61)  # templates live on for as long as their connections, and a minute
    assert bench.counters(service).connections == ROUNDS * PACKETS
    assert_but_interrupted(bench, service, ROUNDS * PACKETS * 2, one_in=2000)


def test_full_nat_of_others_whose_claims_fall_together(
    large: Machine, wire: Wire, wrappers: list[LoadedObject]
) -> None:
    bench = Bench(large, wire, "xdp")
    service = bench.service()
    bench.server(service, "198.51.100.11:8080", FULLNAT, local=LOCALS)
    senders = [Sender(bench, wrapper, seed, 2 * FLOWS) for seed, wrapper in enumerate(wrappers)]
    first = {id(sender): number * FLOWS for number, sender in enumerate(senders)}
    for _ in range(3 * ROUNDS):
        at_once(wire, senders, lambda sender: sender.send("S", packets=PACKETS // 2, first=first[id(sender)]))
        bench.advance(1000)
    assert_but_interrupted(bench, service, 3 * ROUNDS * PACKETS, one_in=50_000)
