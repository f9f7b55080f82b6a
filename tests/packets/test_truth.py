"""Counters, gauges and the table beside a model, over a million packets that open and close connections at random.

The model is IPVS's table of states for three flags, and when each connection is forgotten. Ranges of flows are sent
inside the kernel, by the wrapper of the benchmark: they are long, because every call costs some 20 ms anyhow.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from scapy.layers.inet import TCP

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from tests.bench.ns_per_packet import load_wrapper
from tests.packets.bench import MASQUERADE, Bench, Machine
from tests.packets.traffic import ether, ip
from tests.packets.wire import VIP, VIP6, Wire

pytestmark = pytest.mark.root
PACKETS = int(os.environ.get("LBNODE_TRUTH", "1000000"))
FLOWS = 7000
ENTRIES = 1 << 13  # so few that connections are moved; each finds room
TIMEOUTS_S = {"half open": 60, "open": 900, "closed": 10}
# ip_vs_proto_tcp.c, packets from the client: (state, flag): state afterwards
AFTER = {
    ("none", "S"): "half open",
    ("half open", "S"): "half open",
    ("half open", "A"): "open",
    ("half open", "R"): "half open",  # anybody may have sent it
    ("open", "S"): "open",
    ("open", "A"): "open",
    ("open", "R"): "closed",
    ("closed", "S"): "half open",
    ("closed", "A"): "closed",
    ("closed", "R"): "closed",
}
ENDS = {VIP: ("203.0.113.0", "198.51.100"), VIP6: ("2001:db8:c::", "2001:db8:b:")}


@pytest.fixture(scope="module")
def roomy() -> Iterator[Machine]:
    machine = Machine(entries=ENTRIES)
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def wrapper() -> Iterator[LoadedObject]:
    loaded = load_wrapper()
    yield loaded
    loaded.close()


class Model:
    """What a service's counters must be."""

    def __init__(self) -> None:
        self.now = 0.0
        self.state: dict[int, str] = {}  # by flow
        self.end: dict[int, float] = {}  # when it is forgotten
        self.connections = self.packets = 0

    def send(self, flags: str, flows: range) -> None:
        for flow in flows:
            if flow not in self.state:
                if flags != "S":
                    continue
                self.connections += 1
            self.state[flow] = state = AFTER[self.state.get(flow, "none"), flags]
            self.end[flow] = self.now + TIMEOUTS_S[state]
            self.packets += 1

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for flow in [flow for flow, end in self.end.items() if end <= self.now]:
            del self.state[flow], self.end[flow]

    def gauges(self) -> tuple[int, int]:
        closed = sum(state == "closed" for state in self.state.values())
        return len(self.state) - closed, closed


class Sender:
    """Sends a range of flows by one system call."""

    def __init__(self, bench: Bench, wrapper: LoadedObject, vip: str) -> None:
        self.wrapper, self.maps = wrapper, {name: Map(wrapper.maps[name]) for name in ("setup", "target")}
        self.maps["target"].put_index(0, struct.pack("=I", bench.machine.programs["xdp_lb"]))
        index, mac = bench.wire.interfaces["front"]
        head = ip(ENDS[vip][0], vip)
        self.frames = {
            flags: ether(head / TCP(sport=1024, dport=80, flags=flags) / bytes(10), target=mac) for flags in "SAR"
        }
        self.length = len(self.frames["S"]) - 14
        self.context = struct.pack("=6I", 0, self.length + 14, 0, index, 0, 0)

    def send(self, flags: str, flows: range) -> None:
        frame = self.frames[flags]
        self.maps["setup"].put_index(0, struct.pack("=IIII", len(frame), ENTRIES - 1, 0, flows.start) + frame[:64])
        syscall.prog_test_run(self.wrapper.programs["wrapper"], frame, repeat=len(flows), context=self.context)


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_counters_equal_the_truth(roomy: Machine, wire: Wire, wrapper: LoadedObject, vip: str) -> None:
    bench, model, dice = Bench(roomy, wire, "xdp"), Model(), Random(vip)
    service = bench.service(f"tcp:[{vip}]:80" if ":" in vip else f"tcp:{vip}:80")
    servers = []
    for last in (11, 12, 13):
        address = f"[{ENDS[vip][1]}:{last}]" if ":" in vip else f"{ENDS[vip][1]}.{last}"
        servers.append(bench.server(service, f"{address}:8080", MASQUERADE))
    sender, sent, step = Sender(bench, wrapper, vip), 0, 0
    while sent < PACKETS // 2:  # and as many of the other family
        with wire.inside():
            for _ in range(5):
                first = dice.randrange(FLOWS)
                flags, flows = dice.choice("SAAR"), range(first, min(FLOWS, first + dice.randint(1, FLOWS // 2)))
                sender.send(flags, flows)
                model.send(flags, flows)
                sent += len(flows)
        seconds = dice.choice((0.5, 0.5, 3.5, 20.5, 100.5))
        bench.advance(seconds)
        model.advance(seconds)
        step += 1
        if step % 4 == 0:
            assert bench.gauges() == model.gauges() and bench.event(Event.ENTRIES) == len(model.state)
    records = bench.records()
    assert sorted(record.inward.source_port - 1024 for record in records) == sorted(model.state)
    for server in servers:
        gauge = bench.gauge(service, server)
        ports = [record.inward.source_port for record in records if record.outward.source == server.address]
        closed = sum(model.state[port - 1024] == "closed" for port in ports)
        assert (gauge.active, gauge.inactive) == (len(ports) - closed, closed)
    counted = bench.counters(service)
    assert (counted.connections, counted.packets_in) == (model.connections, model.packets)
    assert counted.bytes_in == model.packets * sender.length
    by_server = Counter({server: bench.counters(service, server).connections for server in servers})
    assert sum(by_server.values()) == model.connections
    assert max(by_server.values()) - min(by_server.values()) <= 1  # rr
    assert bench.event(Event.EVICTED) == 0 and bench.moves() > 0
    assert model.connections > PACKETS // 40  # the dice have not missed the point
    bench.advance(1000)
    assert bench.records() == [] and bench.gauges() == (0, 0)
