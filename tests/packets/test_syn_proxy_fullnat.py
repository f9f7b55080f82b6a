"""SYN cookies before full NAT: the server's opening comes from a local port, if there is one, and may have TOA."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP

from lbnode.dataplane.xdp.layout import Event, State
from tests.packets.bench import FULLNAT, Bench
from tests.packets.fullnat import FIRST_PORT, PORTS, ends, sides
from tests.packets.syn_proxy import ISN, SERVER_ISN, Kind, Opening
from tests.packets.test_toa import told

pytestmark = pytest.mark.root
every_family = pytest.mark.parametrize("kind", [Kind(4, FULLNAT), Kind(6, FULLNAT)], ids=str)


@every_family
def test_the_opening_comes_from_a_local_port(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    opening.syn()
    assert bench.records() == []
    first = opening.ack().ip
    server, local = ends(opening.vip)
    assert sides(first)[:2] == (local, server) and first[TCP].sport in range(FIRST_PORT, FIRST_PORT + PORTS)
    for seq in (ISN + 1, ISN):  # the ACK once more, and a window probe
        again = opening.from_client("A", seq, opening.cookie + 1, window=501).ip
        assert sides(again) == sides(first) and str(again[TCP].flags) == "S"
    out = opening.from_server("SA", SERVER_ISN, ISN + 1, window=65000)
    assert sides(out.ip) == (opening.vip, opening.client, 80, opening.port)
    assert sides(opening.from_client("A", ISN + 1, opening.cookie + 1).ip) == sides(first)
    assert bench.record().state is State.ESTABLISHED


@every_family
def test_two_clients_have_two_ports(bench: Bench, kind: Kind) -> None:
    for port in range(40000, 40200):
        opening = Opening(bench, kind, port=port)
        opening.syn()
        assert opening.ack().verdict == "send"
    ways = [record.outward for record in bench.records()]
    assert len(set(ways)) == len(ways) == 200


@every_family
def test_the_server_is_told_who_the_client_is(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind, toa=True)
    client, forged = (opening.client, opening.port), [(254, bytes(range(6)))]
    opening.syn(forged)
    first = opening.ack(options=forged)
    assert str(first.ip[TCP].flags) == "S" and told(first.ip) == client
    assert told(opening.ack(options=forged).ip) == client, "sent again"
    opening.from_server("SA", SERVER_ISN, ISN + 1, window=65000)
    assert told(opening.ack(options=forged).ip) == client, "the third packet, which kernel modules read"
    opening.from_server("A", SERVER_ISN + 1, ISN + 1)
    assert told(opening.ack(options=forged).ip) is None
    assert Event.TOA_LEFT_OUT not in bench.events()


@every_family
def test_not_told_means_no_option_at_all(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    opening.open()
    assert told(opening.ack(options=[(254, bytes(range(6)))]).ip) is None


@every_family
def test_without_a_free_port_the_client_asks_again(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    (server,) = bench.tables.services[opening.service].servers.values()
    pool = bench.maps["pools"].get_index(server.pool)
    opening.syn()
    bench.maps["pools"].put_index(server.pool, bytes(len(pool)))
    out = opening.ack()
    assert out.ip.dst == opening.client and out.ip.payload.type == (3 if kind.family == 4 else 1)
    assert kind.family == 6 or out.ip[ICMP].code == 3
    assert bench.records() == [] and bench.event(Event.DROP_NO_LOCAL_PORT) == 1
    bench.maps["pools"].put_index(server.pool, pool)
    bench.advance(1)
    assert str(opening.from_client("A", ISN, opening.cookie + 1, window=501).ip[TCP].flags) == "S", "a window probe"
    assert bench.gauges() == (1, 0)
