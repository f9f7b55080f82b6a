"""Which service a packet belongs to (ip_vs_service_find): its firewall mark's, else its address and port's."""

from __future__ import annotations

import pytest

from lbnode.model import ServiceId
from tests.packets.bench import CLIENT, DIRECT, VIP, Bench, answer, tcp, udp

pytestmark = pytest.mark.root


@pytest.fixture
def marks(bench: Bench) -> Bench:
    if bench.entry == "xdp":
        pytest.skip("frames have no firewall mark: the service needs socket buffers")
    return bench


@pytest.fixture
def marked(marks: Bench) -> ServiceId:
    return marks.service("fwmark:7")


def test_a_mark_comes_before_the_address(marks: Bench, marked: ServiceId) -> None:
    marks.server(marked, "198.51.100.11:0")
    marks.server(marks.service(), "198.51.100.12:80")
    assert marks.send(tcp(40000), mark=7).ip.dst == "198.51.100.11"
    assert marks.send(tcp(40001), mark=8).ip.dst == "198.51.100.12", "no service has this mark"
    assert marks.send(tcp(40002)).ip.dst == "198.51.100.12"


def test_a_mark_takes_every_address_and_port(marks: Bench, marked: ServiceId) -> None:
    server = marks.server(marked, "198.51.100.11:0")
    for port, packet in enumerate((tcp(vip="192.0.2.77", dport=8080), udp(vip="192.0.2.78", dport=99)), 1):
        out = marks.send(packet, mark=7)
        assert (out.ip.dst, out.ip.dport) == ("198.51.100.11", packet.dport), "port 0: the client's stays"
        back = marks.send(answer(out.ip), "back")
        assert (back.ip.src, back.ip.sport, back.ip.dst) == (packet.dst, packet.dport, CLIENT)
        assert len(marks.records()) == port
    assert {record.mark for record in marks.records()} == {7}
    assert marks.counters(marked, server).connections == 2


def test_a_marks_server_may_have_a_port(marks: Bench, marked: ServiceId) -> None:
    marks.server(marked, "198.51.100.11:8080")
    out = marks.send(tcp(dport=80), mark=7)
    assert out.ip.dport == 8080 and marks.send(answer(out.ip), "back").ip.sport == 80


def test_a_marks_other_family_is_another_service(marks: Bench) -> None:
    marks.server(marks.service("fwmark:7:inet6"), "198.51.100.11:0", DIRECT)
    assert marks.send(tcp(), mark=7).verdict == "pass"


def test_connections_by_mark_reach_a_peer(marks: Bench, marked: ServiceId, peer: Bench) -> None:
    marks.server(marked, "198.51.100.11:0")
    peer.server(peer.service("fwmark:7"), "198.51.100.11:0")
    marks.configure(sync=True)
    packet = tcp(vip="192.0.2.77", dport=8080)
    out = marks.send(packet, mark=7)
    marks.send(answer(out.ip), "back")
    marks.send(tcp(flags="A", vip="192.0.2.77", dport=8080), mark=7)
    peer.merge(marks.export())
    assert peer.record().outward == marks.record().outward
    assert peer.send(tcp(flags="A", vip="192.0.2.77", dport=8080)).ip.dst == "198.51.100.11"


def test_an_unused_address_is_not_ours(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    assert bench.send(tcp(vip="192.0.2.99")).verdict == "pass"
    assert bench.send(tcp(vip=VIP, dport=81)).verdict == "pass"
