"""The words for what a program left behind, where the packet comes in, and the entries in a copy of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbnode.dataplane.base import InterfaceStatus
from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.explain import table
from lbnode.dataplane.xdp.explain.explainer import arrival
from lbnode.dataplane.xdp.explain.probe import frame
from lbnode.dataplane.xdp.explain.table import Entry
from lbnode.dataplane.xdp.explain.traces import Traces
from lbnode.dataplane.xdp.explain.verdict import Scene, explain, match
from lbnode.dataplane.xdp.interfaces import Interface
from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.mirror import Service, service_of
from lbnode.dataplane.xdp.records import Tuple
from lbnode.errors import ConfigError, DataPlaneError
from lbnode.explanation import Explanation, Question
from lbnode.model import Counters, ForwardingMethod, L4Protocol, ServiceId

WEB = ServiceId.of("tcp", "192.0.2.10", 80)
ASK = Question.parse("tcp", "203.0.113.5:40000", "192.0.2.10:80", "", 0, 0)
SERVER = layout.Server(ip_address("198.51.100.11"), 8080, ForwardingMethod.MASQUERADE, 9, 3, 1)
FRAME = frame(ASK, bytes(6), known=False)
ENTRY = Entry(5, 1, True, State.SYN_RECV, 0, 9, 1000, 0, -1, 0)


def service(service_id: ServiceId = WEB, **fields: object) -> Service:
    entry = layout.Service(3, layout.Scheduler.RR, 1, 0, 0)
    return Service(entry, replace(service_of(service_id, entry), **fields))  # type: ignore[arg-type]


def scene(**changes: object) -> Scene:
    return replace(
        Scene("front", "tcx", {WEB: service()}, {0: SERVER}, {}, 2000, "", {}, {}),
        **changes,  # type: ignore[arg-type]
    )


def told(
    verdict: str = "send",
    events: Mapping[Event, int] | None = None,
    *,
    server: int | None = 0,
    entry: Entry | None = ENTRY,
    around: Scene | None = None,
) -> Explanation:
    counted = Counters(connections=1, packets_in=1)
    return explain(
        ASK, FRAME, None, Traces(verdict, FRAME, events or {}, server, counted, entry, False), around or scene()
    )


@pytest.mark.parametrize(
    ("event", "reason", "words"),
    [
        (Event.DROP_NO_LEASE, "no-lease", "another node may serve it"),
        (Event.DROP_NO_SERVER, "no-server", "no server of tcp:192.0.2.10:80 takes a new connection: it has none"),
        (Event.DROP_TABLE_FULL, "table-full", "no room"),
        (Event.DROP_NO_ROUTE, "no-route", "no route to 198.51.100.11:8080"),
        (Event.DROP_ERROR, "error", "could not be rewritten"),
    ],
)
def test_each_drop_has_its_words(event: Event, reason: str, words: str) -> None:
    server = None if event in (Event.DROP_NO_LEASE, Event.DROP_NO_SERVER, Event.DROP_TABLE_FULL) else 0
    answer = told("drop", {event: 1}, server=server, entry=None)
    assert (answer.verdict, answer.reason, answer.after) == ("dropped", reason, ())
    assert words in answer.text and answer.counters == {reason: 1}


def test_every_reason_to_drop_a_clients_packet_has_words() -> None:
    """Solicitations and claims are no TCP, UDP or SCTP."""
    for event in Event:
        if event >= layout.FIRST_DROP and event not in (Event.DROP_SOLICITATION, Event.DROP_CLAIM):
            assert told("drop", {event: 1}).verdict == "dropped", event


def test_what_a_full_table_means() -> None:
    assert "in place of a half-open" in told(events={Event.EVICTED: 1}).connection
    assert "without an entry" in told(events={Event.UNTRACKED: 1}, entry=None).connection


def test_one_packet_scheduling_keeps_nothing() -> None:
    assert "one-packet" in told(entry=None).connection


def test_left_to_the_network_stack() -> None:
    assert told("pass", {Event.STACK: 1}).reason == "stack"
    local = scene(servers={0: replace(SERVER, flags=layout.ServerFlag.LOCAL)})
    assert told("pass", around=local).verdict == "local"
    assert told("pass", {Event.NO_CONNECTION: 1}, server=None, entry=None).reason == "no-connection"
    assert told("pass", server=None, entry=None, around=scene(services={})).reason == "not-a-vip"


def test_the_service_is_the_one_that_the_program_would_find() -> None:
    all_ports, mark = ServiceId.of("tcp", "192.0.2.10", 0), ServiceId.parse("fwmark:7")
    services = {one: service(one) for one in (WEB, all_ports, mark)}
    other = Question.parse("tcp", "203.0.113.5:1", "192.0.2.10:81", "", 0, 0)
    for question, of_mark, wanted in ((ASK, 0, WEB), (other, 0, all_ports), (ASK, 7, mark), (ASK, 8, WEB)):
        assert match(services, question, of_mark) is services[wanted]
    assert match({WEB: services[WEB]}, other, 0) is None


def test_where_it_comes_in() -> None:
    def link(index: int, name: str, vlan: tuple[int, int] | None = None) -> Interface:
        return Interface(index, name, "", "", True, True, bytes([index] * 6), 1500, 0, vlan)

    links = [link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "eth0.5", (2, 5))]
    status = [InterfaceStatus(name, mode, "") for name, mode in (("eth0", "xdp"), ("eth1", "tcx"), ("eth0.5", "xdp"))]
    assert arrival("", status, links, 3).interface == "eth1"
    assert arrival("", status, links, None).interface == arrival("", status, links, 1).interface == "eth0"
    tagged = arrival("eth0.5", status, links, 3)
    assert (tagged.ifindex, tagged.vlan, tagged.mac) == (2, 5, bytes([4] * 6))
    with pytest.raises(KeyError, match=r"lo carries no program .* eth0, eth0.5, eth1"):
        arrival("lo", status, links, 3)
    with pytest.raises(KeyError, match="eth9 does not exist"):
        arrival("eth9", status, links, 3)
    with pytest.raises(DataPlaneError, match="no interface"):
        arrival("", [InterfaceStatus("eth0", "-", "", "down")], links, 2)


def test_an_entry_is_found_by_both_its_tuples() -> None:
    client, vip, server = ip_address("203.0.113.5"), ip_address("192.0.2.10"), ip_address("198.51.100.11")
    inward = Tuple(client, 40000, vip, 80, L4Protocol.TCP).pack()
    outward = Tuple(server, 8080, client, 40000, L4Protocol.TCP).pack()
    buckets, way = 8, 2
    bucket = table.tuple_hash(inward, 7) >> 32 & buckets - 1  # the second choice
    memory, replies = bytearray(buckets * table.BUCKET_SIZE), bytearray(2 * buckets * 64)
    start = bucket * table.BUCKET_SIZE
    numbers = b"".join(number.to_bytes(4, "little") for number in (6, 9, 1000, 0))
    for at, part in (
        (start + table.WAYS_AT + way * table.CONN_SIZE, inward + numbers + bytes(8)),
        (start + table.BACKS_AT + way * table.BACK_SIZE, outward + bytes(8)),
    ):
        memory[at : at + len(part)] = part

    def state(state: int) -> None:
        memory[start + way * 8 : start + way * 8 + 8] = (77 << 32 | state).to_bytes(8, "little")

    state(State.ESTABLISHED)
    found = table.find(memory, replies, buckets, 7, inward)
    assert found == Entry(bucket * 8 + way, 77, True, State.ESTABLISHED, 6, 9, 1000, 0, -1, 0)
    assert table.birth(memory, found.at) == 77
    assert table.find(memory, replies, buckets, 7, outward) is None  # as of direct routing
    reply_at = (table.tuple_hash(outward, 7) & 2 * buckets - 1) * 64 + 8
    replies[reply_at : reply_at + 8] = (found.at + 1).to_bytes(8, "little")
    assert table.find(memory, replies, buckets, 7, outward) == replace(found, inward=False)
    state(State.NONE)
    assert table.find(memory, replies, buckets, 7, inward) is table.find(memory, replies, buckets, 7, outward) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("icmp", "192.0.2.1:1", "192.0.2.2:1"), "protocol: 'icmp'"),
        (("tcp", "192.0.2.1", "192.0.2.2:1"), "source: '192.0.2.1' is not ADDRESS:PORT"),
        (("tcp", "192.0.2.1:1", "[2001:db8::1]:1"), "another address family"),
    ],
)
def test_a_question_that_makes_no_sense(words: tuple[str, str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        Question.parse(*words, "", 0, 0)
