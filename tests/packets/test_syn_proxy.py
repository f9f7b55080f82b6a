"""SYN cookies: openings that leave no entry until the client has shown that it is real; judged by scapy."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, IPOption_NOP, fragment
from scapy.packet import Raw

from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.supported import check_entries
from lbnode.dataplane.xdp.tables import Tables
from lbnode.errors import Unsupported
from lbnode.model import ProgrammedServer, ProgrammedService, ServerId, ServiceId
from tests.packets.bench import COOKIE_KEY, DIRECT, FULLNAT, MASQUERADE, TUNNEL, Bench
from tests.packets.cookies import SLOT_MS, cookie, info_of
from tests.packets.syn_proxy import (
    IPV4,
    ISN,
    LINUX,
    MSS,
    PROXIED,
    SCALE,
    SERVER_ISN,
    Kind,
    Opening,
    every_kind,
    half_open,
)
from tests.packets.traffic import ip, segment, with_checksum
from tests.packets.wire import VIP

pytestmark = pytest.mark.root


@every_kind
def test_a_syn_is_answered_and_leaves_nothing(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    out = opening.from_client("S", ISN, window=64240, options=LINUX, data=b"fast open")
    answer = out.ip
    assert out.verdict == "send" and (answer.src, answer.dst) == (opening.vip, opening.client)
    tcp = answer[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.ack) == (80, 40000, "SA", ISN + 1)
    assert tcp.window == 0 and not bytes(tcp.payload)
    assert tcp.options == [
        ("MSS", MSS[kind.family][3]), ("NOP", None), ("NOP", None), ("SAckOK", b""), ("NOP", None), ("WScale", SCALE),
    ]  # fmt: skip
    expected = cookie(COOKIE_KEY, opening.client, 40000, opening.vip, 80, ISN, bench.now_ms, info_of(3, True, 7))
    assert tcp.seq == expected
    assert bench.records() == [] and bench.events() == {Event.COOKIE_SENT: 1}
    assert (answer.ttl if kind.family == 4 else answer.hlim) == 64


@every_kind
def test_a_whole_conversation(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    answer = opening.syn()
    delta = answer[TCP].seq - SERVER_ISN
    out = opening.ack(data=b"too early")
    syn = out.ip
    assert out.verdict == "send" and (syn.src, syn.dst) == (opening.seen[0], opening.server)
    tcp = syn[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags), tcp.seq, tcp.ack) == (opening.seen[1], 8080, "S", ISN, 0)
    assert tcp.window == 501 << 7 and not bytes(tcp.payload)
    assert tcp.options == [
        ("MSS", MSS[kind.family][3]), ("NOP", None), ("NOP", None), ("SAckOK", b""), ("NOP", None), ("WScale", 7),
    ]  # fmt: skip
    record = bench.record()
    assert record.state is State.SYNACK and bench.gauges() == (1, 0)

    options = [("MSS", 1400), ("NOP", None), ("NOP", None), ("SAckOK", b""), ("NOP", None), ("WScale", 9)]
    out = opening.from_server("SA", SERVER_ISN, ISN + 1, window=65000, options=options)
    probe = out.ip
    assert out.verdict == "send" and (probe.src, probe.dst) == (opening.vip, opening.client)
    tcp = probe[TCP]
    assert (tcp.sport, tcp.dport, str(tcp.flags)) == (80, 40000, "A")
    assert (tcp.seq, tcp.ack, bytes(tcp.payload)) == (opening.cookie, ISN + 1, b"\0")
    assert tcp.window == 65000 >> SCALE
    assert bench.record().state is State.SYN_RECV

    out = opening.from_client("PA", ISN + 1, opening.cookie + 1, data=b"GET", window=500)
    tcp = out.ip[TCP]
    assert (tcp.seq, tcp.ack, tcp.window) == ((ISN + 1) & 0xFFFFFFFF, SERVER_ISN + 1, 500)
    assert bytes(tcp.payload) == b"GET" and bench.record().state is State.ESTABLISHED

    out = opening.from_server("PA", SERVER_ISN + 1, ISN + 4, data=b"answer", window=700)
    tcp = out.ip[TCP]
    assert (tcp.seq, tcp.ack) == ((SERVER_ISN + 1 + delta) & 0xFFFFFFFF, (ISN + 4) & 0xFFFFFFFF)
    assert tcp.window == (700 << 9) >> SCALE and bytes(tcp.payload) == b"answer"

    opening.from_client("FA", ISN + 4, opening.cookie + 7)
    assert bench.record().state is State.CLOSE_WAIT
    assert bench.events() == {Event.COOKIE_SENT: 1, Event.COOKIE_ACCEPTED: 1}
    assert bench.counters(opening.service, opening.server_id).connections == 1


@every_kind
def test_a_flood_of_syn_acks_enters_nothing_either(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind, threshold=1)
    for port, entries in ((41000, 1), (41001, 1), (41002, 1)):  # below the threshold IPVS's rule holds
        opening.port = port
        opening.from_client("SA", ISN, 77)
        assert len(bench.records()) == entries
    assert bench.events() == {Event.NO_CONNECTION: 2}


@every_kind
def test_cookies_are_sent_from_the_threshold_on_and_no_longer(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind, threshold=2)
    for port, sent in ((41000, 0), (41001, 0), (41002, 1), (41003, 2)):
        opening.port = port
        opening.from_client("S", ISN)
        assert bench.event(Event.COOKIE_SENT) == sent
    assert half_open(bench, opening.service) == len(bench.records()) == 2
    (status,) = bench.tables.syn_proxies()
    assert (status.half_open, status.threshold, status.flooded) == (2, 2, True)
    opening.port = 41000  # a client of the two goes on
    opening.from_client("A", ISN + 1, 77)
    assert half_open(bench, opening.service) == 1
    opening.port = 41004
    opening.from_client("S", ISN)
    assert bench.event(Event.COOKIE_SENT) == 2 and half_open(bench, opening.service) == 2
    bench.advance(61)  # SYN_RECV is over
    assert half_open(bench, opening.service) == 0
    (status,) = bench.tables.syn_proxies()
    assert (status.half_open, status.flooded) == (0, False)
    for flags in ("SA", "R", "SF", "SR"):  # none of these is a SYN to answer
        opening.bench.tables.put_service(replace(bench.tables.services[opening.service].programmed, syn_proxy=0))
        opening.port += 1
        opening.from_client(flags, ISN)
    assert bench.event(Event.COOKIE_SENT) == 2


@every_kind
@pytest.mark.parametrize(
    ("options", "sack", "scale"),
    [
        ([], False, 15),
        ([("MSS", 100)], False, 15),
        ([("MSS", 1399), ("WScale", 0)], False, 0),
        ([("SAckOK", b""), ("MSS", 1452)], True, 15),
        ([("NOP", None), ("WScale", 14), ("MSS", 9000), ("EOL", None), ("SAckOK", b"")], False, 14),
        ([("NOP", None)] * 37 + [("WScale", 3)], False, 3),
    ],
)
def test_what_the_client_offered_comes_back(
    bench: Bench,
    kind: Kind,
    options: list[Any],
    sack: bool,
    scale: int,
) -> None:
    index = max(at for at, mss in enumerate(MSS[kind.family]) if not at or mss <= dict(options).get("MSS", 0))
    opening = Opening(bench, kind)
    answer = opening.syn(options)
    assert answer[TCP].seq & 0xFE == info_of(index, sack, scale)
    offered = dict(answer[TCP].options)
    assert offered.get("WScale") == (None if scale == 15 else SCALE) and ("SAckOK" in offered) == sack
    syn = opening.ack().ip[TCP]
    offered = dict(syn.options)
    assert offered["MSS"] == MSS[kind.family][index]
    assert offered.get("WScale") == (None if scale == 15 else scale) and ("SAckOK" in offered) == sack
    assert syn.window == min(65535, 501 << (0 if scale == 15 else scale))


@every_kind
@pytest.mark.parametrize("spoilt", ["ack", "seq", "port", "info"])
def test_a_wrong_cookie_opens_nothing(bench: Bench, kind: Kind, spoilt: str) -> None:
    opening = Opening(bench, kind)
    opening.syn()
    seq, ack = ISN + 1, opening.cookie + 1
    if spoilt == "port":
        opening.port += 1
    seq += spoilt == "seq"
    ack += {"ack": 0x100, "info": 2}.get(spoilt, 0)
    assert opening.from_client("A", seq, ack).verdict == "pass"  # the stack answers RST
    assert bench.records() == []
    assert bench.events() == {Event.COOKIE_SENT: 1, Event.COOKIE_REFUSED: 1, Event.NO_CONNECTION: 1}


@every_kind
def test_a_cookie_lives_one_to_two_slots(bench: Bench, kind: Kind) -> None:
    for age_s, taken in ((0, True), (65, True), (2 * SLOT_MS // 1000 + 1, False)):
        opening = Opening(bench, kind, port=42000 + age_s)
        bench.now_ms -= bench.now_ms % SLOT_MS  # the slot's beginning
        bench.advance(0)
        opening.syn()
        bench.advance(age_s)
        assert opening.ack().verdict == ("send" if taken else "pass")
        bench.advance(200)
        bench.advance(200)


def test_strangers_cost_no_hash_while_no_cookie_is_out(bench: Bench) -> None:
    opening = Opening(bench, IPV4, threshold=100)
    assert opening.from_client("A", 1, 1).verdict == "pass"
    assert bench.events() == {Event.NO_CONNECTION: 1}


@every_kind
def test_until_the_server_answers_the_client_may_only_ask_again(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    opening.syn()
    opening.ack()
    for seq in (ISN + 1, ISN):  # the ACK once more, and a window probe
        again = opening.from_client("A", seq, opening.cookie + 1, window=501).ip
        assert (str(again[TCP].flags), again[TCP].seq) == ("S", ISN)
    for flags, seq, ack in (("A", ISN + 9, opening.cookie + 1), ("A", ISN + 1, opening.cookie + 2), ("R", 5, 0)):
        assert opening.from_client(flags, seq, ack).verdict == "drop"
    for flags, ack in (("A", ISN + 1), ("SA", ISN + 2), ("RA", ISN + 7), ("R", 0)):
        assert opening.from_server(flags, SERVER_ISN, ack).verdict == "drop"
    assert bench.record().state is State.SYNACK and bench.event(Event.DROP_NOT_OPEN) == 7
    assert opening.from_client("R", ISN + 1).verdict == "drop"
    assert bench.records() == [] and bench.gauges() == (0, 0)


@every_kind
def test_the_clients_ack_may_be_lost(bench: Bench, kind: Kind) -> None:
    """Then a window probe is the first that comes, and it has an old number (RFC 9293 3.8.6.1)."""
    opening = Opening(bench, kind)
    opening.syn()
    first = opening.from_client("A", ISN, opening.cookie + 1, window=501).ip[TCP]
    assert (str(first.flags), first.seq) == ("S", ISN) and bench.record().state is State.SYNACK


@every_kind
def test_a_server_that_refuses_resets_the_client(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    opening.syn()
    opening.ack()
    reset = opening.from_server("RA", 0, ISN + 1, window=0).ip[TCP]
    assert (str(reset.flags), reset.seq) == ("RA", opening.cookie + 1)  # RFC 5961 3.2: exactly the next one
    assert bench.record().state is State.CLOSE
    opening.syn()  # the same ports again: a new opening
    assert bench.records() == []


def test_one_that_began_with_a_cookie_is_no_half_open_one(bench: Bench) -> None:
    """It has shown that it is real: a full table does not push it out, and it does not count as a part of the flood."""
    opening = Opening(bench, IPV4, threshold=0)
    opening.syn()
    opening.ack()
    assert half_open(bench, opening.service) == 0
    other = bench.service("tcp:192.0.2.10:81")
    bench.server(other, "198.51.100.12:81")
    mac = bench.wire.mac("front")
    for number in range(4000):
        frame = segment((f"203.0.113.{100 + number // 1000}", 1000 + number % 1000), (VIP, 81), "S", mac)
        bench.send(frame, check="none")
    assert bench.event(Event.EVICTED) > 1000
    assert State.SYNACK in {record.state for record in bench.records()}


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_hash_schedulers_still_take_what_lost_its_entry(bench: Bench, scheduler: str) -> None:
    opening = Opening(bench, IPV4)
    programmed = bench.tables.services[opening.service].programmed
    bench.tables.put_service(replace(programmed, scheduler=scheduler))
    opening.syn()
    opening.port += 1
    out = opening.from_client("A", 5, 6).ip[TCP]
    assert (out.seq, out.ack) == (5, 6) and bench.record().state is State.ESTABLISHED


def test_what_cannot_be_answered_in_place_is_dropped(bench: Bench) -> None:
    opening = Opening(bench, IPV4)
    syn = IP(src=opening.client, dst=VIP, options=[IPOption_NOP()] * 4) / TCP(sport=1, dport=80, flags="S")
    first = fragment(ip(opening.client, VIP) / TCP(sport=2, dport=80, flags="S") / Raw(bytes(64)), 48)[0]
    for packet in (syn, first):
        assert bench.send(packet).verdict == "drop"
    assert bench.records() == [] and bench.event(Event.DROP_ERROR) == 2


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40).map(lambda data: data + bytes(-len(data) % 4)), st.sampled_from([0, 3, 40]))
def test_any_options_are_answered_or_dropped(bench: Bench, options: bytes, data: int) -> None:
    """Whatever stands there, the answer is a SYN-ACK with a cookie that is taken back."""
    opening = Opening(bench, IPV4, port=45000)
    head = struct.pack("!HHIIBBHHH", 45000, 80, ISN, 0, 80 + len(options) * 4, 2, 64240, 0, 0)
    part = head + options + bytes(data)
    answer = bench.send(with_checksum(opening.client, VIP, part)).ip[TCP]
    assert str(answer.flags) == "SA" and answer.ack == ISN + 1
    opening.cookie = answer.seq
    assert str(opening.ack().ip[TCP].flags) == "S"
    for record in bench.records():
        assert record.state is State.SYNACK
    bench.advance(200)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from("SSSARFcsw")), max_size=60))
def test_half_open_connections_are_counted_as_the_table_has_them(bench: Bench, steps: list[tuple[int, str]]) -> None:
    """After any steps: packets of eight clients, by cookie (c) or not, their server's answers (s), time (w)."""
    bench.remove(Opening(bench, IPV4).service)
    bench.advance(1000)
    opening = Opening(bench, IPV4, threshold=3)
    cookies: dict[int, int] = {}
    for number, step in steps:
        opening.port = 40000 + number
        if step == "w":
            bench.advance(20)
        elif step == "s":
            opening.from_server("SA", SERVER_ISN, ISN + 1)
        elif step == "c":
            opening.from_client("A", ISN + 1, cookies.get(number, 0) + 1)
        else:
            out = opening.from_client(step, ISN + (step != "S"), 5)
            if step == "S" and out.verdict == "send" and out.ip[TCP].flags == "SA":
                cookies[number] = out.ip[TCP].seq
        records = bench.records()
        proxied = [one for one in records if one.flags & PROXIED]
        waiting = [one for one in records if one.state is State.SYN_RECV and one not in proxied]
        assert half_open(bench, opening.service) <= len(waiting) <= 3 + len(steps)
        assert sum(bench.gauges()) == len(records)
        assert all(one.state is not State.SYNACK for one in records if one not in proxied)


def test_a_restarted_daemon_finds_the_threshold(bench: Bench) -> None:
    """And a service that is put again keeps what is half-open."""
    services = [
        bench.service(f"tcp:{VIP}:{port}", syn_proxy=limit) for port, limit in ((80, None), (81, 0), (82, 1000))
    ]
    again = Tables(bench.maps, lambda: 0.0, cast(Neighbours, bench.hops))
    asyncio.run(again.load())
    assert [again.services[one].programmed.syn_proxy for one in services] == [None, 0, 1000]
    opening = Opening(bench, IPV4, threshold=9)
    opening.from_client("S", ISN)
    bench.service(f"tcp:{VIP}:80", "wrr", syn_proxy=8)
    assert half_open(bench, opening.service) == 1


def test_only_what_is_translated_can_be_proxied() -> None:
    service = ProgrammedService(ServiceId.of("tcp", VIP, 80), "rr", syn_proxy=100)
    server = ProgrammedServer(ServerId.parse("198.51.100.11:80"), 1, MASQUERADE)
    check_entries(service, [server, replace(server, forward=FULLNAT)])
    for method in (DIRECT, TUNNEL):
        with pytest.raises(Unsupported, match=f"must be forwarded to by masquerade or fullnat, not {method}"):
            check_entries(service, [replace(server, forward=method)])
        check_entries(replace(service, syn_proxy=None), [replace(server, forward=method)])
