"""A full connection table: what gives way, what stays, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import product

import pytest

from lbnode.dataplane.xdp.counts import NOTHING_REFUSED
from lbnode.dataplane.xdp.explain.table import tuple_hash
from lbnode.dataplane.xdp.layout import BUCKET_WAYS, Event, State
from lbnode.dataplane.xdp.records import Tuple
from lbnode.model import L4Protocol
from tests.packets.bench import BUCKETS, DIRECT, MASQUERADE, Bench, Machine
from tests.packets.traffic import segment, tcp
from tests.packets.wire import VIP, Wire

pytestmark = pytest.mark.root
CAPACITY = BUCKETS * BUCKET_WAYS


def flood(bench: Bench, count: int, flags: str = "S", first: int = 0) -> list[str]:
    """Packets of `count` different clients; returns the verdicts."""
    mac = bench.wire.mac("front")
    return [
        bench.send(
            segment((f"203.0.113.{100 + number // 1000}", 1000 + number % 1000), (VIP, 80), flags, mac), check="none"
        ).verdict
        for number in range(first, first + count)
    ]


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT])
def test_syn_flood_evicts_half_open_entries_never_established_ones(bench: Bench, forward: str) -> None:
    service = bench.service()
    server = bench.server(service, "198.51.100.11:80", forward)
    for port in range(40000, 40100):
        bench.establish(port)
    verdicts = flood(bench, 4 * CAPACITY)
    assert bench.event(Event.EVICTED) > CAPACITY
    assert verdicts.count("send") > 3 * CAPACITY  # the flood's own packets find room at each other's cost
    records = bench.records()
    assert len([record for record in records if record.state is State.ESTABLISHED]) == 100
    assert len(records) > CAPACITY * 0.9
    assert bench.gauges() == (len(records), 0)
    for port in range(40000, 40100):
        assert bench.send(tcp(port, "A")).verdict == "send"
    assert bench.counters(service, server).connections == 100 + verdicts.count("send")


def test_full_of_established_connections(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    for number in range(3 * CAPACITY):
        for flags in ("S", "A"):
            flood(bench, 1, flags, number)
    before = {record.inward for record in bench.records()}
    full = bench.event(Event.DROP_TABLE_FULL)
    assert full > CAPACITY and bench.event(Event.EVICTED) == 0
    assert bench.admission(service).refused == {**NOTHING_REFUSED.refused, "table-full": full}
    assert len(before) > CAPACITY * 0.95
    flood(bench, 1000, "S", 5 * CAPACITY)
    assert before <= {record.inward for record in bench.records()}
    assert bench.advance(901) == len(before) or bench.records() == []
    assert bench.records() == [] and bench.gauges() == (0, 0)
    assert set(flood(bench, 100)) == {"send"}


def refused(count: int, seed: int, *, keep_last: bool) -> int:
    """How many of the first so many connections of `flood` find no room, whose buckets' last ways are kept, or not."""
    free, missed = [BUCKET_WAYS] * BUCKETS, 0
    for number in range(count):
        client = ip_address(f"203.0.113.{100 + number // 1000}")
        packed = Tuple(client, 1000 + number % 1000, ip_address(VIP), 80, L4Protocol.TCP).pack()
        value = tuple_hash(packed, seed)
        first, second = value & BUCKETS - 1, value >> 32 & BUCKETS - 1
        most = max(free[first], free[second]) if keep_last else 1
        if not max(free[first], free[second]):
            missed += 1
        elif free[first] >= min(most, 2):
            free[first] -= 1
        else:
            free[second] -= 1
    return missed


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT])
def test_a_buckets_last_way_is_left_to_those_that_have_no_other(bench: Bench, forward: str) -> None:
    bench.server(bench.service(), "198.51.100.11:80", forward)
    count = CAPACITY * 7 // 10
    for number in range(count):
        for flags in ("S", "A"):
            flood(bench, 1, flags, number)
    missed = bench.event(Event.DROP_TABLE_FULL)
    assert missed == refused(count, bench.config.seed, keep_last=True)
    assert 2 * missed < refused(count, bench.config.seed, keep_last=False)
    assert len(bench.records()) == count - missed


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_hash_schedulers_go_on_without_entries(bench: Bench, scheduler: str) -> None:
    service = bench.service("tcp:192.0.2.10:80", scheduler, f"{scheduler}-port")
    for last in (11, 12, 13):
        bench.server(service, f"198.51.100.{last}:80", DIRECT)
    for number in range(2 * CAPACITY):
        assert flood(bench, 1, "S", number) == flood(bench, 1, "A", number) == ["send"]
    assert bench.event(Event.UNTRACKED) > CAPACITY and bench.event(Event.DROP_TABLE_FULL) == 0
    assert bench.drops() == 0


def test_finished_connections_give_way(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    for number in range(2 * CAPACITY):
        for flags in ("S", "A", "R"):
            flood(bench, 1, flags, number)
    assert bench.event(Event.DROP_TABLE_FULL) == 0 and bench.event(Event.EVICTED) > 0
    assert {record.state for record in bench.records()} == {State.CLOSE}
    assert bench.gauges() == (0, len(bench.records()))


@pytest.fixture(scope="module")
def one_bucket() -> Iterator[Machine]:
    machine = Machine(buckets=1)
    yield machine
    machine.close()


AGES = {"half-open": "S", "established": "SA", "finished": "SAR"}  # packets that lead there


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT])
def test_the_oldest_half_open_one_goes_first_then_the_oldest_finished_one(
    one_bucket: Machine, wire: Wire, entry: str, forward: str
) -> None:
    """Every mixture of ages and states in a table of four ways."""

    def clients() -> set[int]:
        return {record.inward.source_port for record in bench.records()}

    for kinds in product(AGES, repeat=BUCKET_WAYS):
        bench = Bench(one_bucket, wire, entry)
        bench.server(bench.service(), "198.51.100.11:80", forward)
        for number, kind in enumerate(kinds):
            bench.advance(1)
            for flags in AGES[kind]:
                flood(bench, 1, flags, number)
        before = clients()
        victims = [
            number for wanted in ("half-open", "finished") for number, kind in enumerate(kinds) if kind == wanted
        ]
        (verdict,) = flood(bench, 1, "S", 9)
        gone = before - clients()
        if victims:
            assert (verdict, gone, bench.event(Event.EVICTED)) == ("send", {1000 + victims[0]}, 1), kinds
        else:
            assert (verdict, gone, bench.event(Event.DROP_TABLE_FULL)) == ("drop", set(), 1), kinds


def test_a_half_open_one_that_is_heard_of_again_is_not_the_oldest(one_bucket: Machine, wire: Wire, entry: str) -> None:
    bench = Bench(one_bucket, wire, entry)
    bench.server(bench.service(), "198.51.100.11:80", DIRECT)
    for number in range(BUCKET_WAYS):
        bench.advance(1)
        flood(bench, 1, "S", number)
    bench.advance(1)
    flood(bench, 1, "S", 0)  # it sends its SYN again
    flood(bench, 1, "S", 9)
    assert {record.inward.source_port for record in bench.records()} == {1000, 1002, 1003, 1009}


def test_the_clock_of_another_cpu_may_be_ahead(one_bucket: Machine, wire: Wire, entry: str) -> None:
    bench = Bench(one_bucket, wire, entry)
    bench.server(bench.service(), "198.51.100.11:80", DIRECT)
    flood(bench, 1, "S")
    flood(bench, 1, "A")
    bench.now_ms -= 10
    assert bench.advance(0) == 0
    assert flood(bench, 1, "A") == ["send"] and bench.record().state is State.ESTABLISHED
