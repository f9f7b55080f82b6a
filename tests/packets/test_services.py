"""Which packets are balanced, which are refused, which are nobody's business; counters."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import Counters
from tests.packets.bench import DIRECT, Bench
from tests.packets.traffic import answer, tcp, udp
from tests.packets.wire import CLIENT, VIP

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    "packet",
    [tcp(dport=81), udp(dport=80), tcp(vip="192.0.2.11"), IP(src=CLIENT, dst=VIP, proto=47) / (b"gre" * 10)],
    ids=["port", "protocol", "address", "gre"],
)
def test_no_service_passes_untouched(bench: Bench, packet: Packet) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    out = bench.send(packet)
    assert out.verdict == "pass" and out.ip.dst == packet.dst
    assert bytes(out.ip) == bytes(packet) and bench.records() == [] and bench.events() == {}


@pytest.mark.parametrize(
    "packet", [ARP(pdst=VIP), IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(dport=80), Dot1Q(vlan=5) / tcp()]
)
def test_other_ethernet_passes_untouched(bench: Bench, packet: Packet) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    frame = bytes(Ether(src="02:00:00:00:00:99", dst=bench.wire.mac("front")) / packet)
    out = bench.send(frame)
    assert (out.verdict, out.frame) == ("pass", frame) and bench.events() == {}


def test_segment_of_an_unknown_connection_goes_to_the_stack(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    for flags in ("A", "PA", "FA", "R", "RA"):
        assert bench.send(tcp(flags=flags)).verdict == "pass"
    assert bench.events() == {Event.NO_CONNECTION: 5} and bench.records() == []


def test_weight_0_gets_no_new_connections_and_keeps_the_old(bench: Bench) -> None:
    service = bench.service()
    one, two = bench.server(service, "198.51.100.11:80"), bench.server(service, "198.51.100.12:80")
    chosen = {port: bench.establish(port).dst for port in range(40000, 40006)}
    bench.server(service, "198.51.100.11:80", weight=0)
    for port in range(41000, 41006):
        assert bench.connect(port).ip.dst == "198.51.100.12"
    for port, server in chosen.items():
        assert bench.send(tcp(port, "PA", data=b"more")).ip.dst == server
    assert (bench.gauge(service, one).active, bench.gauge(service, two).active) == (3, 9)


@pytest.mark.parametrize("servers", ["none", "weight 0"])
@pytest.mark.parametrize("scheduler", ["rr", "wrr", "wlc", "sh", "mh"])
def test_without_a_server_it_is_refused_and_counted(bench: Bench, scheduler: str, servers: str) -> None:
    service = bench.service(scheduler=scheduler)
    if servers == "weight 0":
        bench.server(service, "198.51.100.11:80", weight=0)
    out = bench.send(tcp())
    assert (out.verdict, out.ip.src, out.ip.dst) == ("send", VIP, CLIENT)
    assert (out.ip[ICMP].type, out.ip[ICMP].code) == (3, 3)
    assert bench.events() == {Event.DROP_NO_SERVER: 1, Event.ICMP_SENT: 1} and bench.records() == []


@pytest.mark.parametrize("scheduler", ["sh", "mh", "dh"])
def test_a_reset_of_nothing_known_opens_nothing(bench: Bench, scheduler: str) -> None:
    """Also where the hash would lead it to a server, as it does other segments."""
    bench.server(bench.service(scheduler=scheduler), "198.51.100.11:80")
    for flags in ("R", "RA"):
        assert bench.send(tcp(flags=flags)).verdict == "pass"
    assert bench.records() == [] and bench.events() == {Event.NO_CONNECTION: 2}
    assert bench.send(tcp(flags="A")).verdict == "send"


def test_deleted_server_loses_its_connections_only(bench: Bench) -> None:
    service = bench.service()
    gone, kept = bench.server(service, "198.51.100.11:80"), bench.server(service, "198.51.100.12:80")
    chosen = {port: bench.establish(port).dst for port in range(40000, 40004)}
    bench.remove(service, gone)
    for port, server in chosen.items():
        out = bench.send(tcp(port, "A"))
        if server == "198.51.100.11":
            assert out.verdict == "drop"
        else:
            assert (out.verdict, out.ip.dst) == ("send", "198.51.100.12")
    assert bench.event(Event.DROP_SERVER_GONE) == 2
    assert {str(record.outward.source) for record in bench.records()} == {"198.51.100.12"}
    assert bench.gauge(service, kept).active == 2


def test_idle_connections_of_a_deleted_server_run_out(bench: Bench) -> None:
    """Until then its index is not given away: it counts them."""
    service = bench.service()
    gone = bench.server(service, "198.51.100.11:80")
    bench.establish()
    index = bench.tables.services[service].servers[gone].index
    bench.remove(service, gone)
    assert bench.advance(899) == 0 and len(bench.records()) == 1
    other = bench.server(service, "198.51.100.12:80")
    assert bench.tables.services[service].servers[other].index != index
    assert bench.advance(2) == 1 and bench.records() == []
    bench.remove(service, other)
    again = bench.server(service, "198.51.100.13:80")
    assert bench.tables.services[service].servers[again].index == index


def test_a_server_added_again_gets_its_connections_back(bench: Bench) -> None:
    """As from IPVS's trash."""
    service = bench.service()
    server = bench.server(service, "198.51.100.11:80")
    bench.establish()
    bench.remove(service, server)
    bench.server(service, "198.51.100.11:80")
    assert bench.gauge(service, server).active == 1
    assert bench.send(tcp(40000, "A")).ip.dst == "198.51.100.11"
    bench.remove(service)
    bench.server(bench.service(), "198.51.100.11:80")
    assert bench.gauge(service, server).active == 1


def test_index_of_a_deleted_server_used_again(bench: Bench) -> None:
    """The new server neither inherits connections nor is counted down for them."""
    service = bench.service()
    gone = bench.server(service, "198.51.100.11:80")
    bench.establish()
    bench.remove(service, gone)
    new = bench.server(service, "198.51.100.12:80")
    assert bench.send(tcp(40000, "A")).verdict == "drop"
    bench.advance(0)
    assert (bench.gauge(service, new).active, bench.gauge(service, new).inactive) == (0, 0)
    assert bench.connect(40000).ip.dst == "198.51.100.12"


def test_new_syn_of_a_connection_to_a_deleted_server_gets_another(bench: Bench) -> None:
    service = bench.service()
    gone = bench.server(service, "198.51.100.11:80")
    bench.establish()
    bench.server(service, "198.51.100.12:80")
    bench.remove(service, gone)
    assert bench.connect().ip.dst == "198.51.100.12"


def test_counters_are_exact(bench: Bench) -> None:
    service = bench.service()
    server = bench.server(service, "198.51.100.11:8080")
    other = bench.server(bench.service(f"udp:{VIP}:53"), "198.51.100.11:53")
    sizes_in = [len(tcp(flags="S")), len(tcp(flags="A")), len(tcp(flags="PA", data=b"x" * 100))]
    bench.establish()
    data = bench.send(tcp(flags="PA", data=b"x" * 100))
    reply = answer(data.ip, "PA", data=b"y" * 1000)
    bench.send(reply, "back")
    expected = Counters(1, 3, 2, sum(sizes_in), 40 + len(reply), 1, 0)
    assert bench.counters(service, server) == expected
    of_service = bench.counters(service)
    assert (of_service.connections, of_service.packets_in, of_service.packets_out) == (1, 3, 2)
    assert (of_service.bytes_in, of_service.bytes_out) == (expected.bytes_in, expected.bytes_out)
    assert bench.counters(next(key for key in bench.tables.services if key != service), other) == Counters()


def test_ethernet_padding_is_not_counted(bench: Bench) -> None:
    service = bench.service()
    server = bench.server(service, "198.51.100.11:80", DIRECT)
    frame = bytes(Ether(src="02:00:00:00:00:99", dst=bench.wire.mac("front")) / tcp()) + bytes(6)
    assert bench.send(frame).verdict == "send"
    assert bench.counters(service, server).bytes_in == 40


def test_thresholds(bench: Bench) -> None:
    """ipvsadm -x 2 -y 1: full at two connections, open again below one."""
    service = bench.service()
    limited = bench.server(service, "198.51.100.11:80", upper=2, lower=1)
    bench.server(service, "198.51.100.12:80")
    ports = range(40000, 40010)
    chosen = [bench.connect(port).ip.dst for port in ports]
    assert chosen.count("198.51.100.11") == 2 and bench.gauge(service, limited).overloaded
    bench.advance(61)  # SYN_RECV runs out
    assert not bench.gauge(service, limited).overloaded
