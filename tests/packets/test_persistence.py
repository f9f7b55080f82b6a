"""Persistence as IPVS has it (ip_vs_sched_persist): templates, their time, their netmask, their ports."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from scapy.layers.inet6 import IPv6

from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.listing import line
from lbnode.dataplane.xdp.records import Record
from lbnode.model import Connection, ServerId, ServiceId
from tests.listed import connection
from tests.packets.bench import DIRECT, Bench
from tests.packets.traffic import answer, tcp, udp
from tests.packets.wire import CLIENT, VIP, VIP6

pytestmark = pytest.mark.root
at_tc = pytest.mark.parametrize("entry", ["tc"], indirect=True)  # frames have no firewall mark

ONE, OTHER = "198.51.100.11", "198.51.100.12"
NETWORK = [f"203.0.113.{last}" for last in (5, 77, 200)]


def persistent(bench: Bench, text: str = f"tcp:{VIP}:80", scheduler: str = "rr", **fields: Any) -> ServiceId:
    """A service with two servers, of which rr takes OTHER first."""
    service = bench.service(text, scheduler, **{"persistent_s": 300, **fields})
    for address in (ONE, OTHER):
        bench.server(service, f"{address}:{service.port}")
    return service


def templates(bench: Bench) -> list[Record]:
    return [record for record in bench.records() if record.state is State.TEMPLATE]


def listed(bench: Bench) -> list[Connection]:
    return [connection(line(record.pack(), 0)) for record in templates(bench)]


def servers(bench: Bench, clients: Iterable[str], first_port: int = 40000, **fields: Any) -> list[str]:
    return [bench.connect(port, client=client, **fields).ip.dst for port, client in enumerate(clients, first_port)]


def test_a_client_keeps_its_server(bench: Bench) -> None:
    service = persistent(bench)
    assert servers(bench, [CLIENT] * 5) == [OTHER] * 5
    assert servers(bench, ["203.0.113.6"] * 3) == [ONE] * 3
    assert [bench.gauge(service, ServerId.parse(f"{one}:80")).persistent for one in (ONE, OTHER)] == [1, 1]
    assert bench.counters(service, ServerId.parse(f"{OTHER}:80")).persistent == 1


def test_a_template_is_listed_as_ipvs_lists_it(bench: Bench) -> None:
    persistent(bench, persistent_netmask=24)
    bench.connect()
    (found,) = listed(bench)
    assert found.client == (ip_address("203.0.113.0"), 0) and found.virtual == (ip_address(VIP), 80)
    assert (found.protocol, found.server, found.state) == ("tcp", (ip_address(OTHER), 80), "NONE")
    bench.advance(20)
    assert listed(bench)[0].expires_s == 280
    bench.send(tcp(flags="A"))
    assert listed(bench)[0].state == "ASSURED", "a connection got through its opening"


@pytest.mark.parametrize(
    ("netmask", "same"), [(24, True), (25, False), (None, False), (IPv4Address("255.0.255.0"), True)]
)
def test_a_netmask_makes_one_client_of_many(bench: Bench, netmask: Any, same: bool) -> None:
    persistent(bench, persistent_netmask=netmask)
    assert (len(set(servers(bench, NETWORK))) == 1) is same
    assert len(templates(bench)) == (1 if same else len(NETWORK) if netmask is None else 2)


def test_its_time_begins_anew_with_each_connection(bench: Bench) -> None:
    persistent(bench, f"udp:{VIP}:53", persistent_s=400)
    assert bench.send(udp(40000)).ip.dst == OTHER
    bench.advance(399)
    assert bench.send(udp(40001)).ip.dst == OTHER
    bench.advance(399)
    assert bench.send(udp(40002)).ip.dst == OTHER
    bench.advance(401)
    assert bench.records() == [] and bench.send(udp(40003)).ip.dst == ONE


def test_it_lives_as_long_as_its_connections(bench: Bench) -> None:
    """ip_vs_conn_expire; and at most a minute after them."""
    service = persistent(bench, persistent_s=100)
    bench.establish()
    for _ in range(8):
        bench.advance(100)
        assert len(templates(bench)) == 1
    assert bench.connect(40001).ip.dst == OTHER
    for port, flags in ((40000, "R"), (40001, "R")):
        bench.send(tcp(port, flags))
    bench.advance(11)
    bench.advance(101)
    assert bench.records() == []
    gauge = bench.gauge(service, ServerId.parse(f"{OTHER}:80"))
    assert gauge.idle


def test_a_drained_server_keeps_its_clients(bench: Bench) -> None:
    """net.ipv4.vs.expire_quiescent_template = 0."""
    service = persistent(bench)
    bench.connect()
    bench.server(service, f"{OTHER}:80", weight=0)
    assert servers(bench, [CLIENT] * 2, 41000) == [OTHER] * 2
    assert servers(bench, ["203.0.113.6"] * 2, 42000) == [ONE] * 2


def test_a_full_server_keeps_its_clients(bench: Bench) -> None:
    service = persistent(bench)
    bench.server(service, f"{OTHER}:80", upper=2)
    assert servers(bench, [CLIENT] * 4) == [OTHER] * 4
    assert servers(bench, ["203.0.113.6", "203.0.113.7"], 41000) == [ONE] * 2


def test_a_deleted_server_loses_its_clients(bench: Bench) -> None:
    service = persistent(bench)
    bench.connect()
    bench.remove(service, ServerId.parse(f"{OTHER}:80"))
    assert bench.connect(40001).ip.dst == ONE
    bench.server(service, f"{OTHER}:80")
    assert bench.connect(40002).ip.dst == ONE, "the template is another one now"


def test_each_port_has_templates_of_its_own(bench: Bench) -> None:
    persistent(bench)
    other = persistent(bench, f"tcp:{VIP}:443")
    bench.remove(other, ServerId.parse(f"{OTHER}:443"))
    assert bench.connect(40000).ip.dst == OTHER and bench.connect(40000, dport=443).ip.dst == ONE
    assert len(templates(bench)) == 2


@pytest.fixture
def all_ports(bench: Bench) -> Bench:
    persistent(bench, f"tcp:{VIP}:0")
    return bench


def test_a_service_of_all_ports(all_ports: Bench) -> None:
    for port in (80, 443, 8080):
        out = all_ports.connect(40000, dport=port)
        assert (out.ip.dst, out.ip.dport) == (OTHER, port), "one client, one server; the port stays"
        back = all_ports.send(answer(out.ip), "back")
        assert (back.ip.src, back.ip.sport) == (VIP, port)
    (found,) = listed(all_ports)
    assert found.virtual == (ip_address(VIP), 0) and found.server == (ip_address(OTHER), 0)
    assert all_ports.send(udp(dport=80)).verdict == "pass", "of its protocol only"


def test_a_service_of_one_port_comes_before_all_ports(all_ports: Bench) -> None:
    all_ports.server(all_ports.service(f"tcp:{VIP}:443"), "198.51.100.20:443")
    assert all_ports.connect(dport=443).ip.dst == "198.51.100.20"
    assert all_ports.connect(dport=80).ip.dst == OTHER


def test_all_ports_by_direct_routing(bench: Bench) -> None:
    service = bench.service(f"tcp:{VIP}:0", persistent_s=300)
    bench.server(service, f"{ONE}:0", DIRECT)
    assert bench.connect(dport=8080).ip.dport == 8080
    bench.send(tcp(flags="A", dport=8080))
    assert listed(bench)[0].state == "ASSURED"


@at_tc
def test_a_marks_services_are_one(bench: Bench) -> None:
    """The classic: http and https of a shop on one server."""
    persistent(bench, "fwmark:7")
    chosen = {
        bench.send(tcp(40000 + port, dport=port, vip=vip), mark=7).ip.dst
        for port in (80, 443)
        for vip in (VIP, "192.0.2.11")
    }
    assert chosen == {OTHER}
    (found,) = listed(bench)
    assert (found.protocol, found.virtual, found.server) == (None, (ip_address("0.0.0.7"), 0), (ip_address(OTHER), 0))


def test_ipv6_clients_by_prefix(bench: Bench) -> None:
    service = bench.service(f"tcp:[{VIP6}]:80", persistent_s=300, persistent_netmask=64)
    for last in ("11", "12"):
        bench.server(service, f"[2001:db8:b::{last}]:80")
    clients = ["2001:db8:c::5", "2001:db8:c::77:1", "2001:db8:c:1::5"]
    chosen = [bench.connect(40000, client=client, vip=VIP6).eth[IPv6].dst for client in clients]
    assert chosen[0] == chosen[1] != chosen[2]
    assert {one.client for one in listed(bench)} == {
        (ip_address("2001:db8:c::"), 0), (ip_address("2001:db8:c:1::"), 0),
    }  # fmt: skip


@at_tc
def test_a_marks_ipv6_service(bench: Bench) -> None:
    service = bench.service("fwmark:7:inet6", persistent_s=300)
    for last in ("11", "12"):
        bench.server(service, f"[2001:db8:b::{last}]:0")
    packets = [tcp(40000 + port, vip=VIP6, dport=port) for port in (80, 443, 8080)]
    assert len({bench.send(packet, mark=7).eth[IPv6].dst for packet in packets}) == 1
    assert listed(bench)[0].virtual == (ip_address("0:7::"), 0)


def test_one_packet_scheduling_remembers_the_client_alone(bench: Bench) -> None:
    persistent(bench, f"udp:{VIP}:53", one_packet=True)
    assert {bench.send(udp(port)).ip.dst for port in range(40000, 40005)} == {OTHER}
    assert [record.state for record in bench.records()] == [State.TEMPLATE]


def test_no_packet_is_taken_for_a_template(bench: Bench) -> None:
    """A client with source port 0 has the template's addresses and ports."""
    persistent(bench)
    bench.connect(40000)
    out = bench.connect(0)
    assert out.ip.sport == 0 and len(templates(bench)) == 1 and len(bench.records()) == 3


def test_half_open_templates_make_room_first(bench: Bench) -> None:
    """A flood from forged addresses fills the table; the client that is served keeps its entries."""
    persistent(bench)
    bench.establish()
    for number in range(1500):
        bench.send(tcp(50000, client=f"203.0.{number // 250}.{number % 250 + 1}"), check="none")
    assert bench.event(Event.EVICTED) > 0
    assert {(str(one.client[0]), one.state) for one in listed(bench)} >= {(CLIENT, "ASSURED")}
    assert bench.send(tcp(flags="A")).ip.dst == OTHER


# --- at the peer ----------------------------------------------------------------------------------------------------


def test_a_peer_knows_the_clients_server(bench: Bench, peer: Bench) -> None:
    for node in (bench, peer):
        persistent(node, persistent_s=600)
        node.configure(sync=True)
    peer.connect(39999, client="203.0.113.99")  # rr there is at another place of its list
    bench.establish()
    half_open = bench.connect(40001, client="203.0.113.6")
    assert half_open.ip.dst == ONE
    records = bench.machine.exchange.changed(100)
    assert all(result == 0 for result in peer.merge(records))
    (imported,) = [record for record in templates(peer) if str(record.inward.source) == CLIENT]
    assert str(imported.outward.source) == OTHER and imported.timeout_ms == 600_000
    assert peer.machine.exchange.changed(100) == b"", "what comes from a peer is not reported back"
    assert peer.connect(41000).ip.dst == OTHER


def test_a_fresher_template_renews_the_peers(bench: Bench, peer: Bench) -> None:
    """In place: the peer's connections go on referring to it."""
    for node in (bench, peer):
        persistent(node, persistent_s=600)
    bench.establish()
    peer.merge(bench.export())
    bench.advance(300)
    peer.advance(300)
    bench.establish(40001)
    before = {record.inward for record in templates(peer)}
    peer.merge(bench.export())
    assert {record.inward for record in templates(peer)} == before
    assert templates(peer)[0].idle_ms == 0
    peer.advance(700)  # its connections live on: they hold it
    assert len(templates(peer)) == 1


def test_a_template_of_a_service_that_is_not_persistent_there(bench: Bench, peer: Bench) -> None:
    persistent(bench)
    persistent(peer, persistent_s=0)
    bench.establish()
    peer.merge(bench.export())
    assert [record.state for record in peer.records()] == [State.ESTABLISHED]
