"""A full connection table: what gives way, what stays, what is refused."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from itertools import product

import pytest

from lbnode.dataplane.xdp.counts import NOTHING_REFUSED
from lbnode.dataplane.xdp.explain.table import tuple_hash
from lbnode.dataplane.xdp.layout import BUCKET_WAYS, Event, State
from lbnode.dataplane.xdp.records import Tuple, unpack_records
from lbnode.model import L4Protocol
from tests.packets.bench import CHANGED, DIRECT, ENTRIES, FULLNAT, MASQUERADE, Bench, Machine
from tests.packets.room import Room
from tests.packets.traffic import answer, segment, tcp
from tests.packets.wire import VIP, Wire

pytestmark = pytest.mark.root


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
    verdicts = flood(bench, 4 * ENTRIES)
    assert bench.event(Event.EVICTED) > ENTRIES
    assert set(verdicts) == {"send"}  # the flood's own packets find room at each other's cost
    records = bench.records()
    assert len([record for record in records if record.state is State.ESTABLISHED]) == 100
    assert len(records) > ENTRIES * 0.99
    assert bench.gauges() == (len(records), 0)
    for port in range(40000, 40100):
        assert bench.send(tcp(port, "A")).verdict == "send"
    assert bench.counters(service, server).connections == 100 + verdicts.count("send")


def test_full_of_established_connections(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    for number in range(3 * ENTRIES):
        for flags in ("S", "A"):
            flood(bench, 1, flags, number)
    before = {record.inward for record in bench.records()}
    full = bench.event(Event.DROP_TABLE_FULL)
    assert full > ENTRIES and bench.event(Event.EVICTED) == 0
    assert bench.admission(service).refused == {**NOTHING_REFUSED.refused, "table-full": full}
    assert len(before) > ENTRIES * 0.98
    flood(bench, 1000, "S", 5 * ENTRIES)
    assert before <= {record.inward for record in bench.records()}
    assert bench.advance(901) == len(before) or bench.records() == []
    assert bench.records() == [] and bench.gauges() == (0, 0)
    assert set(flood(bench, 100)) == {"send"}


def open_connections(bench: Bench, numbers: Iterable[int]) -> None:
    for number in numbers:
        for flags in ("S", "A"):
            flood(bench, 1, flags, number)


def hashed(bench: Bench, number: int) -> int:
    """Of the connection that is the flood's of this number."""
    client, port = ip_address(f"203.0.113.{100 + number // 1000}"), 1000 + number % 1000
    return tuple_hash(Tuple(client, port, ip_address(VIP), 80, L4Protocol.TCP).pack(), bench.config.seed)


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT])
def test_as_many_connections_as_it_has_entries(bench: Bench, forward: str) -> None:
    """Nearly all of it can be used, also where connections come and go; and just what the model says."""
    bench.server(bench.service(), "198.51.100.11:80", forward)
    room, there, refused = Room(ENTRIES // BUCKET_WAYS), set[int](), 0

    def fill(numbers: range, fill: float) -> None:
        nonlocal refused
        chosen = numbers[: int(ENTRIES * fill) - len(there)]
        open_connections(bench, chosen)
        entered = {number for number in chosen if room.add(hashed(bench, number))}
        there.update(entered)
        refused += len(chosen) - len(entered)
        assert (bench.event(Event.DROP_TABLE_FULL), bench.moves()) == (refused, room.moves)
        assert len(bench.records()) == sum(bench.gauges()) == len(there)

    fill(range(ENTRIES), 0.9)
    for turn in range(1, 4):
        over = sorted(there)[turn::3]
        for number in over:
            flood(bench, 1, "R", number)
            room.remove(hashed(bench, number))
        there.difference_update(over)
        assert bench.advance(11) == len(over)  # closed for 10 s
        fill(range(ENTRIES * turn, ENTRIES * (turn + 1)), 0.9)
    assert refused == 0
    fill(range(ENTRIES * 5, ENTRIES * 6), 0.95)
    assert refused <= 3 and room.moves > 50 and bench.event(Event.EVICTED) == 0


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT, FULLNAT])
def test_connections_are_the_same_after_they_were_moved(bench: Bench, forward: str) -> None:
    """Both directions, counters, and peers hear of them again."""
    bench.configure(sync=True)
    service = bench.service()
    server = bench.server(service, "198.51.100.11:80", forward)
    ports = range(40000, 40300)
    outs = [bench.establish(port) for port in ports]
    bench.machine.exchange.changed(CHANGED)
    before = {record.inward: record for record in bench.records()}
    open_connections(bench, range(ENTRIES * 9 // 10 - len(ports)))
    assert bench.moves() > 0 and bench.event(Event.DROP_TABLE_FULL) == 0
    after = {record.inward: record for record in bench.records()}
    assert {inward: after[inward] for inward in before} == before
    assert bench.gauges() == (len(after), 0)
    for port, out in zip(ports, outs, strict=True):
        assert forward is DIRECT or bench.send(answer(out), "back").verdict == "send"
        assert bench.send(tcp(port, "A")).verdict == "send"
    assert bench.counters(service, server).connections == len(after)
    bench.machine.exchange.changed(CHANGED)
    bench.advance(0)
    again = [record.inward for record in unpack_records(bench.machine.exchange.changed(CHANGED))]
    assert again and len(set(again)) == len(again) <= bench.moves()
    assert bench.advance(901) == len(after)
    assert bench.records() == [] and not any(any(bucket) for _, bucket in bench.maps["replies"].items())


def test_a_vain_search_is_not_repeated_all_the_time(bench: Bench) -> None:
    """A table that is full for good: a tick has so many searches."""
    bench.server(bench.service(), "198.51.100.11:80", DIRECT)
    open_connections(bench, range(3 * ENTRIES))
    clock = bench.maps["clock"]
    before = struct.unpack("=4I", clock.get_index(0))
    assert 0 < before[3] < 6400
    clock.put_index(0, struct.pack("=4I", *before[:3], 3))
    assert set(flood(bench, 10, "S", 50000)) == {"drop"}
    assert struct.unpack("=4I", clock.get_index(0)) == (*before[:3], 0)


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_hash_schedulers_go_on_without_entries(bench: Bench, scheduler: str) -> None:
    service = bench.service("tcp:192.0.2.10:80", scheduler, f"{scheduler}-port")
    for last in (11, 12, 13):
        bench.server(service, f"198.51.100.{last}:80", DIRECT)
    for number in range(2 * ENTRIES):
        assert flood(bench, 1, "S", number) == flood(bench, 1, "A", number) == ["send"]
    assert bench.event(Event.UNTRACKED) > ENTRIES and bench.event(Event.DROP_TABLE_FULL) == 0
    assert bench.drops() == 0


def test_finished_connections_give_way(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    for number in range(2 * ENTRIES):
        for flags in ("S", "A", "R"):
            flood(bench, 1, flags, number)
    assert bench.event(Event.DROP_TABLE_FULL) == 0 and bench.event(Event.EVICTED) > 0
    assert {record.state for record in bench.records()} == {State.CLOSE}
    assert bench.gauges() == (0, len(bench.records()))


@pytest.fixture(scope="module")
def one_bucket() -> Iterator[Machine]:
    machine = Machine(entries=BUCKET_WAYS)
    yield machine
    machine.close()


AGES = {"half-open": "S", "established": "SA", "finished": "SAR"}  # packets that lead there


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT])
def test_the_oldest_half_open_one_goes_first_then_the_oldest_finished_one(
    one_bucket: Machine, wire: Wire, entry: str, forward: str
) -> None:
    """Every mixture of ages and states in four of a bucket's ways; the others are established."""

    def clients() -> set[int]:
        return {record.inward.source_port for record in bench.records()}

    for mixture in product(AGES, repeat=4):
        kinds = ("established",) * (BUCKET_WAYS - 4) + mixture
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
    assert {record.inward.source_port for record in bench.records()} == {*range(1000, 1000 + BUCKET_WAYS), 1009} - {
        1001
    }


def test_the_clock_of_another_cpu_may_be_ahead(one_bucket: Machine, wire: Wire, entry: str) -> None:
    bench = Bench(one_bucket, wire, entry)
    bench.server(bench.service(), "198.51.100.11:80", DIRECT)
    flood(bench, 1, "S")
    flood(bench, 1, "A")
    bench.now_ms -= 10
    assert bench.advance(0) == 0
    assert flood(bench, 1, "A") == ["send"] and bench.record().state is State.ESTABLISHED
