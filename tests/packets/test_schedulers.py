"""The sequences of servers, and what is counted in the end, are those of the real ip_vs (tests/reference)."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import pytest

from lbnode.dataplane.xdp.counts import Gauge
from lbnode.dataplane.xdp.layout import Event
from lbnode.model import ServerId
from tests.packets.bench import Bench
from tests.packets.traffic import answer, segment, tcp, udp
from tests.packets.wire import CLIENT, VIP
from tests.reference.schedulers import RUNS, Run, load, name_of, needs_mark

pytestmark = pytest.mark.root
at_tc = pytest.mark.parametrize("entry", ["tc"], indirect=True)  # frames have no firewall mark


def runs(*, marked: bool) -> list[Any]:
    missing = pytest.param({}, id="none", marks=pytest.mark.skip(reason=f"there is no {RUNS}"))
    return [pytest.param(run, id=name_of(run)) for run in load() if needs_mark(run) is marked] or [missing]


@pytest.mark.parametrize("run", runs(marked=False))
def test_as_ipvs(bench: Bench, run: Mapping[str, Any]) -> None:
    assert list(Run(bench, run).differences()) == []


@at_tc
@pytest.mark.parametrize("run", runs(marked=True))
def test_as_ipvs_by_mark(bench: Bench, run: Mapping[str, Any]) -> None:
    assert list(Run(bench, run).differences()) == []


# --- by load, with many servers -------------------------------------------------------------------------------------

OVERHEAD: Mapping[str, Callable[[Gauge, int], float]] = {
    "lc": lambda gauge, weight: gauge.active * 256 + gauge.inactive,
    "wlc": lambda gauge, weight: (gauge.active * 256 + gauge.inactive) / weight,
    "sed": lambda gauge, weight: (gauge.active + 1) / weight,
    "nq": lambda gauge, weight: (gauge.active + 1) / weight if gauge.active else 0.0,
}


@pytest.mark.parametrize("scheduler", OVERHEAD)
def test_the_least_loaded_of_many_is_the_one_that_a_scan_finds(bench: Bench, scheduler: str) -> None:
    """Servers in several groups; connections, weights, thresholds and servers come and go."""
    chance = random.Random(scheduler)
    service = bench.service(scheduler=scheduler)
    programmed: dict[ServerId, tuple[int, int]] = {}  # weight, upper threshold; oldest first

    def put(number: int) -> None:
        weight, upper = chance.choice([0, 1, 2, 3, 5, 2**31 - 1]), chance.choice([0, 0, 3])
        server = bench.server(service, f"198.51.100.{number}:80", weight=weight, upper=upper)
        programmed[server] = weight, upper

    for number in range(11, 61):
        put(number)
    open_ports: list[int] = []
    for port in range(20000, 20400):
        if chance.random() < 0.1:
            put(chance.randrange(11, 61))
        if chance.random() < 0.05:
            gone = chance.choice(list(programmed))
            bench.remove(service, gone)
            del programmed[gone]
        if open_ports and chance.random() < 0.4:
            closing = open_ports.pop(chance.randrange(len(open_ports)))
            bench.send(segment((CLIENT, closing), (VIP, 80), "R", bench.wire.mac("front")), check="none")
        gauges = {server: bench.gauge(service, server) for server in programmed}
        loads = [
            (OVERHEAD[scheduler](gauges[server], weight), server)
            for server, (weight, upper) in reversed(programmed.items())
            if weight and not (upper and upper <= gauges[server].overloaded)
        ]
        _, least = min(loads, key=lambda load: load[0])
        out = bench.send(segment((CLIENT, port), (VIP, 80), "S", bench.wire.mac("front")), check="none")
        assert out.frame[30:34] == least.address.packed, port
        open_ports.append(port)


@pytest.mark.parametrize("left", [0, 20, 49])
def test_who_is_left_of_many_is_found(bench: Bench, left: int) -> None:
    """In whichever group: there are more groups than servers now."""
    service = bench.service(scheduler="wlc")
    servers = [bench.server(service, f"198.51.100.{11 + at}:80") for at in range(50)]
    for at, server in enumerate(servers):
        if at != left:
            bench.remove(service, server)
    assert bench.connect().ip.dst == str(servers[left].address)


def weighted_round_robin(weights: Sequence[int]) -> Iterator[int]:
    """ip_vs_wrr.c: positions in the list. The current weight that the first server left behind is the least one."""
    divisor = math.gcd(*weights)
    yield from (at for at, weight in enumerate(weights) if weight)
    while True:
        for current in range(max(weights), 0, -divisor):
            yield from (at for at, weight in enumerate(weights) if weight >= current)


@pytest.mark.parametrize("weights", [(2**31 - 1, 2**31 - 2, 1), (2**31 - 2, 2**30 - 1), (65536, 0, 131072)])
def test_weights_of_31_bits(bench: Bench, weights: Sequence[int]) -> None:
    service = bench.service(scheduler="wrr")
    addresses = [f"198.51.100.{11 + at}" for at in range(len(weights))]
    for address, weight in reversed(list(zip(addresses, weights, strict=True))):
        bench.server(service, f"{address}:80", weight=weight)
    expected = [addresses[at] for at in islice(weighted_round_robin(weights), 40)]
    assert [bench.connect(port).ip.dst for port in range(20000, 20040)] == expected


# --- twos -----------------------------------------------------------------------------------------------------------


def drawn(bench: Bench, count: int, **fields: Any) -> Counter[str]:
    return Counter(bench.send(udp(port, **fields)).ip.dst for port in range(20000, 20000 + count))


def test_two_choices_fall_by_weight(bench: Bench) -> None:
    """One-packet scheduling leaves no load behind, so the first draw counts: within six standard deviations."""
    service = bench.service(f"udp:{VIP}:53", "twos", one_packet=True)
    weights = {"198.51.100.11": 1, "198.51.100.12": 3, "198.51.100.13": 4, "198.51.100.14": 0}
    for address, weight in weights.items():
        bench.server(service, f"{address}:53", weight=weight)
    count, total = 800, sum(weights.values())
    chosen = drawn(bench, count)
    for address, weight in weights.items():
        share = weight / total
        assert abs(chosen[address] - count * share) <= 6 * (count * share * (1 - share)) ** 0.5


def test_the_less_loaded_of_two_gets_the_connection(bench: Bench) -> None:
    """The spread that two choices leave is small: random choice alone would spread 400 over 10 by about 30."""
    service = bench.service(f"udp:{VIP}:53", "twos")
    for number in range(11, 21):
        bench.server(service, f"198.51.100.{number}:53")
    chosen = drawn(bench, 400)
    assert len(chosen) == 10 and max(chosen.values()) - min(chosen.values()) <= 8


def test_two_choices_pass_over_full_servers(bench: Bench) -> None:
    service = bench.service(f"udp:{VIP}:53", "twos")
    for number in range(11, 31):
        bench.server(service, f"198.51.100.{number}:53", weight=100, upper=1)
    last = bench.server(service, "198.51.100.40:53")
    assert drawn(bench, 60)[str(last.address)] >= 40


# --- one-packet scheduling ------------------------------------------------------------------------------------------


def test_one_packet_scheduling_keeps_nothing(bench: Bench) -> None:
    service = bench.service(f"udp:{VIP}:53", "rr", one_packet=True)
    servers = [bench.server(service, f"198.51.100.{number}:53") for number in (11, 12)]
    assert [bench.send(udp()).ip.dst for _ in range(4)] == ["198.51.100.12", "198.51.100.11"] * 2
    assert bench.records() == [] and bench.gauges() == (0, 0)
    assert [bench.counters(service, server).connections for server in servers] == [2, 2]
    reply = answer(bench.send(udp()).ip)
    out = bench.send(reply, "back")
    assert out.verdict == "pass", "no entry to translate it by: as with IPVS the answer keeps the server's address"


@at_tc
def test_one_packet_scheduling_is_for_datagrams_only(bench: Bench) -> None:
    service = bench.service("fwmark:7", "rr", one_packet=True)
    bench.server(service, "198.51.100.11:0")
    assert bench.send(tcp(dport=80), mark=7).verdict == "send" and len(bench.records()) == 1
    assert bench.send(udp(dport=53), mark=7).verdict == "send" and len(bench.records()) == 1
    assert bench.drops() == 0 and bench.event(Event.UNTRACKED) == 0
