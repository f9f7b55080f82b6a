"""Which service a packet belongs to (ip_vs_service_find): its firewall mark's, else its address and port's."""

from __future__ import annotations

import pytest

from lbnode.model import ServiceId
from tests.packets.bench import DIRECT, Bench
from tests.packets.traffic import answer, tcp, udp
from tests.packets.wire import CLIENT, VIP

pytestmark = pytest.mark.root


at_tc = pytest.mark.parametrize("entry", ["tc"], indirect=True)  # frames have no firewall mark


@pytest.fixture
def marked(bench: Bench) -> ServiceId:
    return bench.service("fwmark:7")


@at_tc
def test_a_mark_comes_before_the_address(bench: Bench, marked: ServiceId) -> None:
    bench.server(marked, "198.51.100.11:0")
    bench.server(bench.service(), "198.51.100.12:80")
    assert bench.send(tcp(40000), mark=7).ip.dst == "198.51.100.11"
    assert bench.send(tcp(40001), mark=8).ip.dst == "198.51.100.12", "no service has this mark"
    assert bench.send(tcp(40002)).ip.dst == "198.51.100.12"


@at_tc
def test_a_mark_takes_every_address_and_port(bench: Bench, marked: ServiceId) -> None:
    server = bench.server(marked, "198.51.100.11:0")
    for port, packet in enumerate((tcp(vip="192.0.2.77", dport=8080), udp(vip="192.0.2.78", dport=99)), 1):
        out = bench.send(packet, mark=7)
        assert (out.ip.dst, out.ip.dport) == ("198.51.100.11", packet.dport), "port 0: the client's stays"
        back = bench.send(answer(out.ip), "back")
        assert (back.ip.src, back.ip.sport, back.ip.dst) == (packet.dst, packet.dport, CLIENT)
        assert len(bench.records()) == port
    assert {record.mark for record in bench.records()} == {7}
    assert bench.counters(marked, server).connections == 2


@at_tc
def test_a_marks_server_may_have_a_port(bench: Bench, marked: ServiceId) -> None:
    bench.server(marked, "198.51.100.11:8080")
    out = bench.send(tcp(dport=80), mark=7)
    assert out.ip.dport == 8080 and bench.send(answer(out.ip), "back").ip.sport == 80


@at_tc
def test_a_marks_other_family_is_another_service(bench: Bench) -> None:
    bench.server(bench.service("fwmark:7:inet6"), "198.51.100.11:0", DIRECT)
    assert bench.send(tcp(), mark=7).verdict == "pass"


@at_tc
def test_connections_by_mark_reach_a_peer(bench: Bench, marked: ServiceId, peer: Bench) -> None:
    bench.server(marked, "198.51.100.11:0")
    peer.server(peer.service("fwmark:7"), "198.51.100.11:0")
    bench.configure(sync=True)
    packet = tcp(vip="192.0.2.77", dport=8080)
    out = bench.send(packet, mark=7)
    bench.send(answer(out.ip), "back")
    bench.send(tcp(flags="A", vip="192.0.2.77", dport=8080), mark=7)
    peer.merge(bench.export())
    assert peer.record().outward == bench.record().outward
    assert peer.send(tcp(flags="A", vip="192.0.2.77", dport=8080)).ip.dst == "198.51.100.11"


def test_an_unused_address_is_not_ours(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    assert bench.send(tcp(vip="192.0.2.99")).verdict == "pass"
    assert bench.send(tcp(vip=VIP, dport=81)).verdict == "pass"
