"""Local ports of full NAT: no two connections to a server have the same one, on however many CPUs they begin."""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, TCP

from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.records import RECORD_SIZE
from tests.packets.bench import FULLNAT, Bench, Machine
from tests.packets.fullnat import FIRST_PORT, PORTS, full
from tests.packets.sender import Sender, at_once
from tests.packets.test_fuzz import Gun
from tests.packets.traffic import answer, segment, tcp
from tests.packets.wire import LOCAL, VIP, Wire

pytestmark = pytest.mark.root
STRESS = int(os.environ.get("LBNODE_STRESS", "840000")) // 8  # packets on two CPUs
CALL = 2500  # packets of a system call
OPEN = 30_000  # of 31,744 ports


def test_no_way_back_is_used_twice(bench: Bench) -> None:
    """Clients with the same port by the hundred, two servers, two local addresses, connections that come and go."""
    service = bench.service()
    for last in (11, 12):
        bench.server(service, f"198.51.100.{last}:8080", FULLNAT, local=(LOCAL, "198.51.100.5"))
    dice, taken = random.Random(5), Counter[str]()
    for turn in range(900):
        source = (f"203.0.113.{dice.randrange(1, 250)}", dice.choice((40000, 40001)))
        out = bench.send(segment(source, (VIP, 80), "S", bench.wire.mac("front")))
        if out.verdict == "drop":
            continue
        taken[out.ip.src] += 1
        if turn % 100 == 99:
            bench.advance(30)
    ways = [record.outward for record in bench.records()]
    assert len(set(ways)) == len(ways) > 100
    assert taken[LOCAL] > 300 and taken["198.51.100.5"] > 300


@pytest.fixture(scope="module")
def large() -> Iterator[Machine]:
    machine = Machine(entries=1 << 16)
    yield machine
    machine.close()


def opened(bench: Bench, gun: Gun, count: int, flags: tuple[str, ...]) -> Counter[str]:
    """Verdicts of the SYNs of so many clients."""
    mac, verdicts = bench.wire.mac("front"), Counter[str]()
    with bench.wire.inside():
        for number in range(count):
            source = (f"203.0.113.{number >> 14}", 20000 + (number & 0x3FFF))
            for flag in flags:
                verdict, _ = gun(segment(source, (VIP, 80), flag, mac), "front")
                if flag == "S":
                    verdicts[verdict] += 1
                if verdict != "send":
                    break
    return verdicts


def test_a_pool_that_is_used_up_refuses_and_recovers(large: Machine, wire: Wire, entry: str) -> None:
    bench = Bench(large, wire, entry)
    bench.configure(icmp_rate=0)
    bench.advance(0)
    full(bench)
    verdicts = opened(bench, Gun(bench), PORTS + 4000, ("S", "A"))
    refused = bench.event(Event.DROP_NO_LOCAL_PORT)
    assert verdicts["drop"] == bench.drops() == refused + bench.event(Event.DROP_TABLE_FULL) >= 4000
    assert refused > 3500
    ways = [record.outward for record in bench.records()]
    assert len(set(ways)) == len(ways) == verdicts["send"] > PORTS * 0.97
    assert {way.target_port for way in ways} <= set(range(FIRST_PORT, FIRST_PORT + PORTS))
    bench.configure(icmp_rate=1000)
    bench.advance(0)
    told = bench.send(tcp(40000, client="203.0.113.200"))
    if told.ip.payload.name != "TCP":  # else it found one of the last
        assert (told.ip.src, told.ip.dst, told.ip[ICMP].type, told.ip[ICMP].code) == (VIP, "203.0.113.200", 3, 3)
    bench.advance(901)
    assert bench.records() == [] and bench.connect(40000).ip.src == LOCAL


def test_half_open_connections_give_their_ports_up(large: Machine, wire: Wire, entry: str) -> None:
    """A flood of SYNs uses the pool up, but new clients still get in, and who is established stays."""
    bench = Bench(large, wire, entry)
    full(bench)
    established = [bench.establish(port, client="203.0.113.201") for port in range(40000, 40020)]
    verdicts = opened(bench, Gun(bench), PORTS + 4000, ("S",))
    assert verdicts["drop"] <= 5 and bench.event(Event.EVICTED) > 3000
    assert bench.establish(40000, client="203.0.113.202").src == LOCAL
    for last in established:
        assert bench.send(answer(last, "A"), "back").ip[TCP].dport in range(40000, 40020)
    ways = [record.outward for record in bench.records()]
    assert len(set(ways)) == len(ways)


def test_no_local_address_is_no_mapping(bench: Bench) -> None:
    service = full(bench)
    server = bench.tables.services[service].servers.popitem()[1]
    bench.maps["pools"].put_index(server.pool, bytes(bench.maps["pools"].value_size))
    out = bench.send(tcp())
    assert (out.ip[ICMP].type, out.ip[ICMP].code) == (3, 3) and bench.records() == []
    assert bench.event(Event.DROP_NO_LOCAL_PORT) == 1


# --- two CPUs -------------------------------------------------------------------------------------------------------


def assert_books(bench: Bench) -> int:
    """While nothing runs: every connection has a way back of its own, found from there, and nobody claims another.
    Returns how many there are."""
    ways, clients = list[bytes](), list[bytes]()
    for data in bench.packed_records():
        ways += [data[at + 40 : at + 80] for at in range(0, len(data), RECORD_SIZE)]  # struct record: out
        clients += [data[at : at + 40] for at in range(0, len(data), RECORD_SIZE)]  # in
    assert len(set(ways)) == len(ways) == len(set(clients)) == bench.event(Event.ENTRIES)
    assert {int.from_bytes(way[34:36], "big") for way in ways} <= set(range(FIRST_PORT, FIRST_PORT + PORTS))
    refs = [word for _, bucket in bench.maps["replies"].items() for word in memoryview(bucket).cast("Q") if word]
    assert len(set(refs)) == len(refs) == len(ways)
    assert not any(any(claim) for _, claim in bench.maps["claims"].items())
    return len(ways)


def assert_nothing_left(bench: Bench) -> None:
    bench.advance(1000)
    assert assert_books(bench) == 0 and bench.gauges() == (0, 0)
    assert bench.event(Event.DROP_ERROR) == 0
    assert bench.connect(40000).ip.src == LOCAL


def test_two_cpus_give_no_port_twice(large: Machine, wire: Wire, wrappers: list[LoadedObject]) -> None:
    """Connections of one server that come and go on both."""
    bench = Bench(large, wire, "xdp")
    service = full(bench)
    senders = [Sender(bench, wrapper, seed, 1 << 16, LOCAL) for seed, wrapper in enumerate(wrappers)]

    def send(sender: Sender) -> None:
        for _ in range(4):
            flag, back = sender.random.choice(("S", "S", "A", "A", "FA", "R")), sender.random.random() < 0.25
            sender.send("SA" if back and flag == "S" else flag, back=back, packets=CALL)

    most = 0
    for _ in range(max(2, STRESS // (2 * 2 * 4 * CALL))):
        at_once(wire, senders, send)
        most = max(most, assert_books(bench))
        bench.advance(20)
    assert most > PORTS * 0.3
    assert bench.counters(service).connections > STRESS / 20
    assert_nothing_left(bench)


def test_two_cpus_compete_for_the_last_ports(large: Machine, wire: Wire, wrappers: list[LoadedObject]) -> None:
    """Each of many connections is over, and its client's SYN takes another port, while most of all ports are in use."""
    bench = Bench(large, wire, "xdp")
    service = full(bench)
    senders = [Sender(bench, wrapper, seed, 1 << 16, LOCAL) for seed, wrapper in enumerate(wrappers)]
    first = {id(sender): number * OPEN // 2 for number, sender in enumerate(senders)}
    passes = max(3, STRESS // OPEN)
    for _ in range(passes):
        at_once(wire, senders, lambda sender: sender.send("S", packets=OPEN // 2, first=first[id(sender)]))
        assert assert_books(bench) > OPEN * 0.99
        bench.now_ms += 61_000  # SYN_RECV is over, but no sweeper frees the ports
        bench.maps["clock"].put_index(0, struct.pack("=II", bench.now_ms, 0))
    assert bench.counters(service).connections > passes * OPEN * 0.99
    at_once(wire, senders, lambda sender: sender.send("S", packets=PORTS))  # all ports, and half-open ones give way
    assert assert_books(bench) > PORTS * 0.95 and bench.event(Event.EVICTED) > 1000
    assert_nothing_left(bench)
