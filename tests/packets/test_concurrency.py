"""Several CPUs at once on the same connections: nothing is counted twice, lost, torn, or left behind.

`make soak-packets` says LBNODE_STRESS=100000000.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.records import Record, unpack_records
from lbnode.model import Address
from tests.packets.bench import ENTRIES, MASQUERADE, TUNNEL, Bench, Machine
from tests.packets.sender import CLIENTS, SERVER, Sender, at_once
from tests.packets.traffic import tcp
from tests.packets.wire import VIP, Wire

pytestmark = pytest.mark.root

CASES, CPUS = 9, 2
ALL_PACKETS = int(os.environ.get("LBNODE_STRESS", "840000"))  # of all cases
PACKETS = 1500 if ALL_PACKETS < 10_000_000 else 20_000  # of a system call, which costs some 20 ms anyhow
ROUNDS = ALL_PACKETS // (CASES * CPUS * PACKETS)
ACTIVE = {State.ESTABLISHED, State.SYN_RECV, State.SYN_SENT, State.SYNACK}


def send_anything(sender: Sender) -> None:
    for _ in range(ROUNDS):
        flags = sender.random.choice(["S", "S", "A", "A", "FA", "R"])
        sender.send(flags, back=sender.random.random() < 0.4, packets=PACKETS)


def assert_whole(record: Record, servers: set[Address], port: int) -> None:
    """Both directions belong to one connection of this service, which no half of another is mixed into."""
    inward, outward = record.inward, record.outward
    assert ipaddress.ip_address(CLIENTS) <= inward.source <= ipaddress.ip_address("203.0.113.255"), record
    assert inward.target == ipaddress.ip_address(VIP) and outward.source in servers, record
    if record.state is not State.TEMPLATE:
        assert (inward.target_port, outward.source_port) == (80, port), record
        assert (outward.target, outward.target_port) == (inward.source, inward.source_port), record
        assert record.inward.source_port >= 1024, record


@pytest.mark.parametrize(
    ("flows", "forward", "scheduler", "servers", "persistent_s"),
    [
        (16, MASQUERADE, "rr", 1, 0),
        (512, MASQUERADE, "rr", 1, 0),
        (ENTRIES * 4, MASQUERADE, "rr", 1, 0),
        (ENTRIES, MASQUERADE, "rr", 1, 0),
        (ENTRIES, TUNNEL, "rr", 1, 0),
        (512, TUNNEL, "rr", 1, 0),
        (ENTRIES * 4, MASQUERADE, "wlc", 40, 0),
        (ENTRIES * 4, TUNNEL, "lblcr", 40, 0),
        (512, MASQUERADE, "rr", 4, 60),
    ],
    ids=[
        "few flows",
        "many flows",
        "four times what fits",
        "nearly full",
        "nearly full, tunnel",
        "tunnel",
        "by load",
        "by locality",
        "persistent",
    ],
)
def test_two_cpus_and_the_sweeper(
    machine: Machine,
    wire: Wire,
    wrappers: list[LoadedObject],
    flows: int,
    forward: str,
    scheduler: str,
    servers: int,
    persistent_s: int,
) -> None:
    bench = Bench(machine, wire, "xdp")
    bench.configure(sync=True)
    service = bench.service(scheduler=scheduler, persistent_s=persistent_s)
    port = 8080 if forward is MASQUERADE else 80
    added = [bench.server(service, f"198.51.100.{11 + number}:{port}", forward) for number in range(servers)]
    first, addresses = added[0], {server.address for server in added}
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)
            stop.set()

    def sweep_and_exchange() -> None:
        while not stop.is_set():
            bench.advance(0.2)
            machine.exchange.changed(1000)
            exported = bench.export()
            for record in unpack_records(exported):
                assert_whole(record, addresses, port)
            asyncio.run(machine.exchange.merge(exported))

    senders = [Sender(bench, wrapper, seed, flows) for seed, wrapper in enumerate(wrappers)]
    beside = threading.Thread(target=guarded, args=(sweep_and_exchange,))
    beside.start()
    try:
        at_once(wire, senders, send_anything)
    finally:
        stop.set()
    beside.join()
    assert not failures
    with wire.inside():
        senders[0].send("S", packets=PACKETS)

    tracked = bench.records()  # compared with the counter of entries
    for record in tracked:
        assert_whole(record, addresses, port)
    assert len({record.inward for record in tracked}) == len(tracked)
    records = [record for record in tracked if record.state is not State.TEMPLATE]
    states = Counter(record.state in ACTIVE for record in records)
    assert bench.gauges() == (states[True], states[False])
    assert flows < ENTRIES or bench.moves() > 0
    assert records and bench.counters(service).packets_in > ROUNDS * PACKETS / 4
    gauges = [bench.gauge(service, server_id) for server_id in bench.tables.services[service].servers]
    assert sum(gauge.persistent for gauge in gauges) == len(tracked) - len(records)
    assert len(tracked) - len(records) == (persistent_s > 0)
    if forward is MASQUERADE:
        references = sum(
            word != 0 for _, bucket in bench.maps["replies"].items() for (word,) in struct.iter_unpack("=Q", bucket)
        )
        assert references == len(records)
    if scheduler == "wlc":
        bench.server(service, str(first), forward, weight=2)  # what was found in the turmoil does not count any more
        load = {one: bench.gauge(service, one) for one in bench.tables.services[service].servers}
        least = min(
            reversed(load), key=lambda one: (load[one].active * 256 + load[one].inactive) / (2 if one == first else 1)
        )
        # a bucket may be full of established connections: refused for that alone, the next port finds another
        full, source = bench.event(Event.DROP_TABLE_FULL), 65000
        while (out := bench.send(tcp(source, client="203.0.113.250"))).verdict == "drop":
            source, full = source + 1, full + 1
            assert source < 65100 and bench.event(Event.DROP_TABLE_FULL) == full
        assert (out.verdict, out.ip.dst) == ("send", str(least.address))
    bench.advance(1000)
    bench.advance(61)  # templates live on for as long as their connections, and a minute
    assert bench.records() == [] and bench.gauges() == (0, 0)
    assert not any(any(bucket) for _, bucket in bench.maps["replies"].items())
    assert bench.event(Event.DROP_ERROR) == 0


def test_two_cpus_want_the_same_room(wire: Wire, wrappers: list[LoadedObject]) -> None:
    """Each entry is a half-open connection that gives way, so every new one finds room, whoever takes it first."""
    packets, calls, flows = 50_000, 8, 1 << 20
    machine = Machine(entries=16)
    try:
        bench = Bench(machine, wire, "xdp")
        service = bench.service()
        bench.server(service, f"{SERVER}:80", TUNNEL)
        senders = [Sender(bench, wrapper, seed, flows) for seed, wrapper in enumerate(wrappers)]

        def send(sender: Sender) -> None:
            first = senders.index(sender) * flows // CPUS
            for call in range(calls):
                sender.send("S", packets=packets, first=first + call * packets)

        at_once(wire, senders, send)
        assert bench.counters(service).connections == CPUS * calls * packets
        assert len({record.inward for record in bench.records()}) == len(bench.records()) == sum(bench.gauges()) == 16
        assert bench.events() == {Event.EVICTED: CPUS * calls * packets - 16}
    finally:
        machine.close()
