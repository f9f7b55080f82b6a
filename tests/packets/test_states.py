"""TCP states, time-outs and the gauges that hang on them, as IPVS has them (ip_vs_proto_tcp.c)."""

from __future__ import annotations

import pytest

from lbnode.dataplane.xdp.layout import Event, State
from lbnode.model import Timeouts
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, VIP, Bench, answer, tcp, udp

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
