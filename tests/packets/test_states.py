"""TCP states, time-outs and the gauges that hang on them, as IPVS has them (ip_vs_proto_tcp.c)."""

from __future__ import annotations

import struct

import pytest

from lbnode.dataplane.xdp.layout import Event, State
from lbnode.model import OwnTimeouts, ServiceId, Timeouts
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, Bench
from tests.packets.traffic import answer, tcp, udp
from tests.packets.wire import VIP

pytestmark = pytest.mark.root

# (who, flags, state afterwards, active): "c" client, "s" server
OPENING = [("c", "S", State.SYN_RECV, 1), ("s", "SA", State.SYN_RECV, 1), ("c", "A", State.ESTABLISHED, 1)]
CONVERSATIONS = {
    "client closes": [
        *OPENING,
        ("c", "FA", State.CLOSE_WAIT, 0),
        ("s", "A", State.CLOSE_WAIT, 0),
        ("s", "FA", State.TIME_WAIT, 0),
        ("c", "A", State.TIME_WAIT, 0),
    ],
    "server closes": [
        *OPENING,
        ("s", "FA", State.FIN_WAIT, 0),
        ("c", "A", State.FIN_WAIT, 0),
        ("c", "FA", State.TIME_WAIT, 0),
        ("s", "A", State.TIME_WAIT, 0),
    ],
    "client resets": [*OPENING, ("c", "R", State.CLOSE, 0)],
    "server resets": [*OPENING, ("s", "RA", State.CLOSE, 0)],
    "refused": [("c", "S", State.SYN_RECV, 1), ("s", "RA", State.CLOSE, 0)],
    "repeated opening": [*OPENING[:1] * 3, *OPENING[1:]],
    "data changes nothing": [*OPENING, ("c", "PA", State.ESTABLISHED, 1), ("s", "PA", State.ESTABLISHED, 1)],
    "opened anew after a reset": [*OPENING, ("c", "R", State.CLOSE, 0), ("c", "S", State.SYN_RECV, 1)],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_masquerade_sees_both_directions(bench: Bench, name: str) -> None:
    service = bench.service()
    server = bench.server(service, "198.51.100.11:8080")
    to_server = None
    for step, (who, flags, state, active) in enumerate(CONVERSATIONS[name]):
        if who == "c":
            out = bench.send(tcp(flags=flags))
            to_server = out.ip
        else:
            assert to_server is not None
            out = bench.send(answer(to_server, flags), "back")
        assert out.verdict == "send"
        assert bench.record().state is state, (step, who, flags)
        gauge = bench.gauge(service, server)
        assert (gauge.active, gauge.inactive) == (active, 1 - active), (step, who, flags)
    assert bench.counters(service, server).connections == 1


@pytest.mark.parametrize("forward", [DIRECT, TUNNEL])
def test_input_only(bench: Bench, forward: str) -> None:
    service = bench.service()
    server = bench.server(service, "198.51.100.11:80", forward)
    for flags, state, active in (
        ("S", State.SYN_RECV, 1),
        ("A", State.ESTABLISHED, 1),
        ("PA", State.ESTABLISHED, 1),
        ("FA", State.FIN_WAIT, 0),
        ("A", State.FIN_WAIT, 0),
    ):
        assert bench.send(tcp(flags=flags)).verdict == "send"
        assert bench.record().state is state
        assert (bench.gauge(service, server).active, bench.gauge(service, server).inactive) == (active, 1 - active)
    bench.send(tcp(flags="R"))
    assert bench.record().state is State.CLOSE


def test_port_used_again_in_time_wait_is_a_new_connection(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80")
    bench.server(service, "198.51.100.12:80")
    last = bench.establish()
    bench.send(answer(last, "FA"), "back")
    bench.send(tcp(flags="FA"))
    assert bench.record().state is State.TIME_WAIT
    again = bench.connect()
    assert again.ip.dst != last.dst and bench.record().state is State.SYN_RECV
    assert bench.counters(service).connections == 2 and bench.gauges() == (1, 0)


TIMEOUTS = Timeouts(tcp_s=700, tcp_fin_s=40, udp_s=90)


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        (("S",), 60),  # SYN_RECV
        (("S", "A"), 700),  # ESTABLISHED, set by tcp_s
        (("S", "A", "FA"), 40),  # FIN_WAIT, set by tcp_fin_s
        (("S", "A", "R"), 10),  # CLOSE
    ],
    ids=["half-open", "established", "fin", "reset"],
)
def test_expiry(bench: Bench, flags: tuple[str, ...], seconds: int) -> None:
    bench.configure(timeouts=TIMEOUTS)
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    for one in flags:
        bench.send(tcp(flags=one))
    assert bench.advance(seconds) == 0 and len(bench.records()) == 1
    assert bench.advance(0.001) == 1
    assert bench.records() == [] and bench.gauges() == (0, 0) and bench.event(Event.ENTRIES) == 0


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        ([("c", "S"), ("c", "A"), ("c", "FA")], 60),  # CLOSE_WAIT
        ([("c", "S"), ("c", "A"), ("c", "FA"), ("s", "FA")], 120),  # TIME_WAIT
    ],
)
def test_expiry_of_masqueraded(bench: Bench, steps: list[tuple[str, str]], seconds: int) -> None:
    bench.server(bench.service(), "198.51.100.11:8080")
    for who, flags in steps:
        if who == "c":
            out = bench.send(tcp(flags=flags))
        else:
            bench.send(answer(out.ip, flags), "back")
    assert bench.advance(seconds) == 0
    assert bench.advance(0.001) == 1
    # the way back is gone with it
    assert bench.send(answer(out.ip, "A"), "back").verdict == "pass"


OWN = {"longer": OwnTimeouts(tcp_s=2000, tcp_fin_s=300), "shorter": OwnTimeouts(tcp_s=30, tcp_fin_s=7)}
# Client's packets, and the seconds that the connection lives after them: {whose time-outs: seconds}
LIVES = {
    "half-open": (("S",), {"": 60, "longer": 60, "shorter": 60}),
    "established": (("S", "A"), {"": 700, "longer": 2000, "shorter": 30}),
    "finished by the client": (("S", "A", "FA"), {"": 40, "longer": 300, "shorter": 7}),
    "reset": (("S", "A", "R"), {"": 10, "longer": 10, "shorter": 10}),
}


def services_of_three_kinds(bench: Bench, forward: str = DIRECT) -> dict[str, ServiceId]:
    """One with the cluster's time-outs between two with their own; they share nothing but the gateway."""
    bench.configure(timeouts=TIMEOUTS)
    found = {}
    for port, name in enumerate(("longer", "", "shorter"), 80):
        service = bench.service(f"tcp:{VIP}:{port}", timeouts=OWN.get(name, OwnTimeouts()))
        bench.server(service, f"198.51.100.11:{port}", forward)
        found[name] = service
    return found


@pytest.mark.parametrize("name", LIVES)
def test_a_services_own_timeouts(bench: Bench, name: str) -> None:
    flags, lives = LIVES[name]
    for service in services_of_three_kinds(bench).values():
        for one in flags:
            bench.send(tcp(flags=one, dport=service.port))
    left = {record.inward.target_port: record.timeout_ms for record in bench.records()}
    assert left == {80: lives["longer"] * 1000, 81: lives[""] * 1000, 82: lives["shorter"] * 1000}
    passed = 0
    for seconds in sorted({*lives.values()}):
        assert bench.advance(seconds - passed) == 0
        assert bench.advance(0.001) == [*lives.values()].count(seconds)
        passed = seconds + 0.001
    assert bench.records() == [] and bench.gauges() == (0, 0)


def test_own_timeouts_count_for_packets_before_the_sweeper_comes(bench: Bench) -> None:
    services = services_of_three_kinds(bench, MASQUERADE)
    last = {name: bench.establish(dport=service.port) for name, service in services.items()}
    bench.now_ms += 31_000
    bench.maps["clock"].put_index(0, struct.pack("=II", bench.now_ms, 0))
    assert bench.send(answer(last["shorter"]), "back").verdict == "pass"
    assert bench.send(answer(last[""]), "back").verdict == "send"
    bench.now_ms += 1_900_000
    bench.maps["clock"].put_index(0, struct.pack("=II", bench.now_ms, 0))
    assert bench.send(tcp(flags="A", dport=services[""].port)).verdict == "pass"
    assert bench.send(tcp(flags="A", dport=services["longer"].port)).verdict == "send"


def test_own_timeouts_that_change_hold_for_the_connections_there_are(bench: Bench) -> None:
    service = services_of_three_kinds(bench)["longer"]
    bench.establish(dport=80)
    bench.advance(1000)
    assert [record.timeout_ms for record in bench.records()] == [2_000_000]
    bench.service(str(service), timeouts=OwnTimeouts(tcp_s=1001))
    assert [record.timeout_ms for record in bench.records()] == [1_001_000]
    assert bench.advance(1) == 0
    bench.service(str(service))  # the cluster's again
    assert bench.advance(0) == 1


def test_a_deleted_service_leaves_its_timeouts_to_nobody(bench: Bench) -> None:
    bench.remove(bench.service(timeouts=OwnTimeouts(tcp_s=30)))
    again = bench.service(f"tcp:{VIP}:81")
    bench.server(again, "198.51.100.11:81", DIRECT)
    bench.establish(dport=81)
    assert bench.record().timeout_ms == 900_000 and bench.advance(900) == 0 and bench.advance(1) == 1


def test_a_services_own_udp_timeout(bench: Bench) -> None:
    bench.configure(timeouts=TIMEOUTS)
    service = bench.service(f"udp:{VIP}:53", timeouts=OwnTimeouts(udp_s=5))
    bench.server(service, "198.51.100.11:53")
    bench.send(udp())
    assert bench.advance(5) == 0
    assert bench.advance(0.001) == 1


def test_templates_keep_the_time_of_persistence(bench: Bench) -> None:
    service = bench.service(persistent_s=400, timeouts=OwnTimeouts(tcp_s=30))
    bench.server(service, "198.51.100.11:80", DIRECT)
    bench.establish()
    assert {record.state: record.timeout_ms for record in bench.records()} == {
        State.ESTABLISHED: 30_000,
        State.TEMPLATE: 400_000,
    }


def test_udp_expiry_and_packets_that_prolong(bench: Bench) -> None:
    bench.configure(timeouts=TIMEOUTS)
    service = bench.service(f"udp:{VIP}:53")
    server = bench.server(service, "198.51.100.11:53")
    out = bench.send(udp())
    assert bench.record().state is State.UDP and (bench.gauges()) == (0, 1)
    assert bench.advance(80) == 0
    bench.send(answer(out.ip), "back")
    assert bench.advance(80) == 0
    bench.send(udp())
    assert bench.advance(90) == 0
    assert bench.record().idle_ms == 90_000
    assert bench.advance(1) == 1 and bench.gauge(service, server).inactive == 0


def test_expired_but_not_yet_swept_counts_as_gone(bench: Bench) -> None:
    service = bench.service(f"udp:{VIP}:53")
    bench.server(service, "198.51.100.11:53")
    bench.server(service, "198.51.100.12:53")
    first = bench.send(udp()).ip.dst
    bench.maps["clock"].put_index(0, (bench.now_ms + 301_000).to_bytes(4, "little") + bytes(4))
    assert bench.send(udp()).ip.dst != first
    assert bench.counters(service).connections == 2 and bench.gauges() == (0, 1)


def test_clock_wraps(bench: Bench) -> None:
    """Milliseconds in 32 bits: nothing expires early or late over the edge."""
    bench.now_ms = 0xFFFFFFFF - 30_000
    bench.advance(0)
    bench.server(bench.service(), "198.51.100.11:80", MASQUERADE)
    out = bench.connect()
    assert bench.advance(60) == 0 and bench.now_ms < 40_000
    assert bench.record().idle_ms == 60_000
    assert bench.send(answer(out.ip), "back").verdict == "send"
    assert bench.record().idle_ms == 0
    assert bench.advance(60) == 0
    assert bench.advance(0.001) == 1


def test_gauges_after_many_ends(bench: Bench) -> None:
    service = bench.service()
    servers = [bench.server(service, f"198.51.100.{last}:8080") for last in (11, 12, 13)]
    for port in range(40000, 40030):
        last = bench.establish(port)
        if port % 3 == 0:
            bench.send(tcp(port, "R"))
        elif port % 3 == 1:
            bench.send(answer(last, "FA"), "back")
    assert bench.gauges() == (10, 20)
    assert bench.advance(11) == 10 and bench.gauges() == (10, 10)
    assert bench.advance(120) == 10 and bench.gauges() == (10, 0)
    assert bench.advance(900) == 10 and bench.gauges() == (0, 0)
    assert sum(bench.counters(service, server).connections for server in servers) == 30
