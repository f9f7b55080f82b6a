"""Connections travel: out of one node as records, into another, where they go on with the same server."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import TCP

from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.records import RECORD_SIZE, MergeResult, Record, unpack_records
from lbnode.model import L4Protocol, OwnTimeouts, ServiceId
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, Bench
from tests.packets.traffic import answer, tcp, udp
from tests.packets.wire import VIP

pytestmark = pytest.mark.root


def configured(bench: Bench, forward: str = MASQUERADE, order: tuple[int, ...] = (11, 12, 13)) -> ServiceId:
    """The same three servers on every node, in whatever order."""
    service = bench.service()
    for last in order:
        bench.server(service, f"198.51.100.{last}:{8080 if forward is MASQUERADE else 80}", forward)
    return service


def changed(bench: Bench) -> list[Record]:
    return list(unpack_records(bench.machine.exchange.changed(1 << 16)))


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT, TUNNEL])
def test_connections_go_on_with_the_same_server(bench: Bench, peer: Bench, forward: str) -> None:
    configured(bench, forward)
    configured(peer, forward, (13, 11, 12))
    before = {port: bench.establish(port) for port in range(40000, 40030)}
    assert set(peer.merge(bench.export())) == {MergeResult.TAKEN}
    assert {record.inward for record in peer.records()} == {record.inward for record in bench.records()}
    assert peer.gauges() == bench.gauges() == (30, 0) and peer.event(Event.IMPORTED) == 30
    for port, earlier in before.items():
        out = peer.send(tcp(port, "PA", data=b"more"))
        assert (out.verdict, out.ip.dst) == ("send", earlier.dst)
        if forward is MASQUERADE:
            back = peer.send(answer(out.ip, "A"), "back")
            assert (back.verdict, back.ip.src, back.ip[TCP].sport) == ("send", VIP, 80)


def test_reply_arrives_first(bench: Bench, peer: Bench) -> None:
    """A download: after the failover the next packet is the server's."""
    configured(bench), configured(peer)
    last = bench.establish()
    peer.merge(bench.export())
    back = peer.send(answer(last, "PA", data=b"z" * 1000), "back")
    assert (back.verdict, back.ip.src) == ("send", VIP)


def test_half_open_connections_do_not_travel(bench: Bench) -> None:
    configured(bench)
    bench.connect(40000)
    bench.establish(40001)
    assert [record.inward.source_port for record in unpack_records(bench.export())] == [40001]
    assert len(bench.records()) == 2


def test_changes_are_reported_once(bench: Bench) -> None:
    bench.configure(sync=True)
    configured(bench)
    bench.connect()
    assert changed(bench) == []
    last = bench.establish()
    (record,) = changed(bench)
    assert (record.state, record.idle_ms) == (State.ESTABLISHED, 0)
    assert (str(record.inward.target), record.outward.source) == (VIP, IPv4Address(last.dst))
    for _ in range(3):
        bench.send(tcp(flags="A"))
    assert changed(bench) == []
    bench.send(tcp(flags="FA"))
    bench.send(answer(last, "FA"), "back")
    assert [record.state for record in changed(bench)] == [State.TIME_WAIT]  # two changes, the newest state


def test_udp_is_reported_from_the_second_packet_on(bench: Bench) -> None:
    bench.configure(sync=True)
    bench.server(bench.service(f"udp:{VIP}:53"), "198.51.100.11:53")
    bench.send(udp())
    assert changed(bench) == []
    bench.send(udp())
    assert [record.state for record in changed(bench)] == [State.UDP]


def test_busy_connection_is_reported_again_before_its_copy_expires(bench: Bench) -> None:
    bench.configure(sync=True)
    configured(bench)
    bench.establish()
    assert len(changed(bench)) == 1
    for _ in range(9):  # 900 s in all, a packet every 100 s
        bench.advance(100)
        bench.send(tcp(flags="A"))
    bench.advance(1)
    assert len(changed(bench)) == 1


def test_nothing_is_reported_without_sync(bench: Bench) -> None:
    configured(bench)
    bench.establish()
    bench.advance(600)
    assert changed(bench) == []


def test_imported_connections_are_not_reported_back(bench: Bench, peer: Bench) -> None:
    bench.configure(sync=True), peer.configure(sync=True)
    configured(bench), configured(peer)
    bench.establish()
    peer.merge(bench.export())
    peer.advance(1)
    assert changed(peer) == []
    peer.send(tcp(flags="A"))  # used here now: its idle time is ours to tell
    assert [record.state for record in changed(peer)] == [State.ESTABLISHED]


def test_idle_time_travels(bench: Bench, peer: Bench) -> None:
    configured(bench), configured(peer)
    bench.establish()
    bench.advance(800)
    peer.merge(bench.export())
    assert peer.record().idle_ms == 800_000
    assert peer.advance(100) == 0 and peer.advance(1) == 1


def test_the_copy_of_a_connection_has_its_services_own_timeout(bench: Bench, peer: Bench) -> None:
    for node in (bench, peer):
        configured(node)
        node.service(timeouts=OwnTimeouts(tcp_s=5000))
    bench.establish()
    bench.advance(4000)
    aged = bench.export()
    assert peer.merge(aged) == [MergeResult.TAKEN]
    assert peer.advance(1000) == 0 and peer.advance(1) == 1
    peer.service(timeouts=OwnTimeouts(tcp_s=3999))  # it is over by what that node has
    assert peer.merge(aged) == [MergeResult.OLDER]


def test_a_short_own_timeout_is_half_over_sooner(bench: Bench) -> None:
    """So the peers hear of the connection again in time."""
    bench.configure(sync=True)
    configured(bench)
    bench.service(timeouts=OwnTimeouts(tcp_s=20))
    bench.establish()
    assert len(changed(bench)) == 1
    for _ in range(2):
        bench.advance(9)
        bench.send(tcp(flags="A"))
    bench.advance(0)
    assert len(changed(bench)) == 1


def test_what_this_node_saw_later_wins(bench: Bench, peer: Bench) -> None:
    configured(bench), configured(peer)
    bench.establish()
    old = bench.export()
    peer.merge(old)
    peer.send(tcp(flags="FA"))
    bench.advance(5)
    aged = bench.export()
    assert peer.merge(aged) == [MergeResult.OLDER]
    assert peer.record().state is State.CLOSE_WAIT
    bench.send(tcp(flags="R"))
    assert peer.merge(bench.export()) == [MergeResult.TAKEN]
    assert peer.record().state is State.CLOSE and peer.gauges() == (0, 1)


def test_a_peers_word_that_a_connection_ends_counts_though_it_came_faster(bench: Bench, peer: Bench) -> None:
    """The first record was 50 ms under way, the second one less: its packet seems to be the earlier one."""
    configured(bench), configured(peer)
    bench.establish()
    begins = bench.record()
    assert peer.merge(begins.pack()) == [MergeResult.TAKEN]
    bench.send(tcp(flags="R"))
    ends = replace(bench.record(), idle_ms=30)
    assert peer.merge(ends.pack()) == [MergeResult.TAKEN]
    assert peer.record().state is State.CLOSE and peer.gauges() == (0, 1)
    assert peer.merge(replace(begins, idle_ms=40).pack()) == [MergeResult.OLDER], "none begins by an older record"


def test_expired_record_is_not_taken(bench: Bench, peer: Bench) -> None:
    configured(bench), configured(peer)
    bench.establish()
    record = replace(bench.record(), idle_ms=900_001)
    assert peer.merge(record.pack()) == [MergeResult.OLDER] and peer.records() == []


def test_unknown_service_or_server(bench: Bench, peer: Bench) -> None:
    configured(bench)
    bench.establish()
    data = bench.export()
    assert peer.merge(data) == [MergeResult.UNKNOWN]
    service = peer.service()
    peer.server(service, "198.51.100.99:8080")
    assert peer.merge(data) == [MergeResult.UNKNOWN]
    configured(peer)
    assert peer.merge(data) == [MergeResult.TAKEN]


FORGED = {
    "state none": {"state": State.NONE},
    "udp state of tcp": {"state": State.UDP},
    "listen on the way back": {"outward_port": 1},
    "another client on the way back": {"outward_target": "203.0.113.99"},
    "other protocol on the way back": {"outward_protocol": L4Protocol.UDP},
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_record(bench: Bench, peer: Bench, name: str) -> None:
    configured(bench), configured(peer)
    bench.establish()
    record = bench.record()
    match FORGED[name]:
        case {"state": state}:
            record = replace(record, state=state)
        case {"outward_port": port}:
            record = replace(record, outward=replace(record.outward, target_port=port))
        case {"outward_target": target}:
            record = replace(record, outward=replace(record.outward, target=IPv4Address(target)))
        case {"outward_protocol": protocol}:
            record = replace(record, outward=replace(record.outward, protocol=protocol))
    assert peer.merge(record.pack()) == [MergeResult.INVALID]
    assert peer.records() == [] and peer.gauges() == (0, 0)


def test_random_records_do_no_harm(bench: Bench, peer: Bench) -> None:
    configured(bench), configured(peer)
    for port in range(40000, 40008):
        bench.establish(port)
    good = bench.export()
    peer.merge(good)
    dice = random.Random(3)
    for _ in range(200):
        bad = bytearray(good)
        for _ in range(20):
            bad[dice.randrange(len(bad))] = dice.randrange(256)
        peer.merge(bytes(bad))
        peer.merge(dice.randbytes(RECORD_SIZE * 8))
    # whatever was taken is consistent: every entry can be read, is counted, and expires
    peer.merge(good)
    assert peer.event(Event.ENTRIES) == len(peer.records()) == sum(peer.gauges())
    peer.advance(2000)
    assert peer.records() == [] and peer.gauges() == (0, 0)
