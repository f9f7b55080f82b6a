"""Several CPUs at once on the same connections: nothing is counted twice, lost, torn, or left behind.

`make soak-packets` says LBNODE_STRESS=100000000.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, TCP

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.records import Record, unpack_records
from lbnode.lab.netns import call_in_netns
from lbnode.model import Address
from tests.packets.bench import ENTRIES, MASQUERADE, TUNNEL, Bench, Machine
from tests.packets.traffic import ether, tcp
from tests.packets.wire import VIP, Wire

pytestmark = pytest.mark.root

CLIENTS, SERVER = "203.0.113.0", "198.51.100.11"
CASES, CPUS = 9, 2
ALL_PACKETS = int(os.environ.get("LBNODE_STRESS", "840000"))  # of all cases
PACKETS = 1500 if ALL_PACKETS < 10_000_000 else 20_000  # of a system call, which costs some 20 ms anyhow
ROUNDS = ALL_PACKETS // (CASES * CPUS * PACKETS)
ACTIVE = {State.ESTABLISHED, State.SYN_RECV, State.SYN_SENT, State.SYNACK}


class Sender:
    """Repeats packets of many flows inside the kernel: two of them on two CPUs meet all the time. `peer`: whom the
    server answers; its last byte is free for a part of the flow's number."""

    def __init__(self, bench: Bench, wrapper: LoadedObject, seed: int, flows: int, peer: str = CLIENTS) -> None:
        self.bench, self.wrapper, self.flows, self.peer = bench, wrapper, flows, peer
        self.random = random.Random(seed)
        self.maps = {name: Map(fd) for name, fd in wrapper.maps.items()}
        self.maps["target"].put_index(0, struct.pack("=I", bench.machine.programs["xdp_lb"]))

    def send(self, flags: str, *, back: bool = False, packets: int = PACKETS, first: int | None = None) -> None:
        """`first`: number of the flow to begin with; None: any."""
        if back:
            packet = IP(src=SERVER, dst=self.peer) / TCP(sport=8080, dport=1024, flags=flags)
        else:
            packet = IP(src=CLIENTS, dst=VIP) / TCP(sport=1024, dport=80, flags=flags)
        index, mac = self.bench.wire.interfaces["back" if back else "front"]
        frame = ether(packet / bytes(10), target=mac)
        first = self.random.randrange(self.flows) if first is None else first
        self.maps["setup"].put_index(0, struct.pack("=IIII", len(frame), self.flows - 1, back, first) + frame[:64])
        context = struct.pack("=6I", 0, len(frame), 0, index, 0, 0)
        syscall.prog_test_run(self.wrapper.programs["wrapper"], frame, repeat=packets, context=context)

    def __call__(self) -> None:
        for _ in range(ROUNDS):
            self.send(self.random.choice(["S", "S", "A", "A", "FA", "R"]), back=self.random.random() < 0.4)


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
    threads = [
        threading.Thread(target=guarded, args=(lambda sender=sender: call_in_netns(wire.namespace, sender),))
        for sender in senders
    ]
    beside = threading.Thread(target=guarded, args=(sweep_and_exchange,))
    for thread in (*threads, beside):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    beside.join()
    assert not failures
    with wire.inside():
        senders[0].send("S")

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
        cores = sorted(os.sched_getaffinity(0))

        def send(cpu: int) -> None:
            os.sched_setaffinity(0, {cores[cpu % len(cores)]})  # of this thread
            sender = Sender(bench, wrappers[cpu], cpu, flows)
            for call in range(calls):
                sender.send("S", packets=packets, first=cpu * flows // CPUS + call * packets)

        threads = [
            threading.Thread(target=call_in_netns, args=(wire.namespace, lambda cpu=cpu: send(cpu)))
            for cpu in range(CPUS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bench.counters(service).connections == CPUS * calls * packets
        assert len({record.inward for record in bench.records()}) == len(bench.records()) == sum(bench.gauges()) == 16
        assert bench.events() == {Event.EVICTED: CPUS * calls * packets - 16}
    finally:
        machine.close()
