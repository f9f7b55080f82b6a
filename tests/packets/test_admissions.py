"""What each service alone is told of packets that would have opened a connection to it."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_network

import pytest
from scapy.layers.inet import ICMP, TCP

from lbnode.dataplane.xdp.counts import NOTHING_REFUSED
from lbnode.dataplane.xdp.layout import Event
from lbnode.model import Access, Admission, ConnectionRate, ServiceId
from tests.packets.bench import DIRECT, FULLNAT, Bench
from tests.packets.syn_proxy import ISN, Opening
from tests.packets.traffic import answer, ip, tcp, udp
from tests.packets.wire import CLIENT, SERVER6, VIP, VIP6

pytestmark = pytest.mark.root
OTHERS = {  # cookies and `mss`
    "cookies_sent": Event.COOKIE_SENT,
    "cookies_accepted": Event.COOKIE_ACCEPTED,
    "cookies_refused": Event.COOKIE_REFUSED,
}


def counted(bench: Bench, service: ServiceId, total: int = 1) -> dict[str, int]:
    """What is not 0 of the service. Other services have nothing, and the data plane's own counters say the same."""
    found = {key: bench.admission(key) for key in bench.tables.services}
    assert all(found[key] == NOTHING_REFUSED for key in found if key != service)
    mine = found[service]
    values = {field.name: getattr(mine, field.name) for field in fields(Admission) if field.name != "refused"}
    by_event = {event.label: count for event, count in bench.events().items()}
    for reason, packets in mine.refused.items():
        assert by_event.get(reason, 0) == packets
    for name, event in OTHERS.items():
        assert by_event.get(event.label, 0) == values[name]
    result = {name: count for name, count in {**mine.refused, **values}.items() if count}
    assert sum(result.values()) == total
    return result


@pytest.fixture
def bystander(bench: Bench) -> ServiceId:
    """Takes the first index."""
    service = bench.service(f"udp:{VIP}:53", one_packet=True)
    bench.server(service, "198.51.100.13:53", DIRECT)
    assert bench.send(udp(dport=53)).verdict == "send"
    return service


def test_who_is_denied_or_over_its_rate(bench: Bench, bystander: ServiceId) -> None:
    denied = Access(deny=frozenset({ip_network("203.0.113.0/24")}))
    service = bench.service(access=denied)
    bench.server(service)
    assert bench.send(tcp()).verdict == bench.send(tcp()).verdict == "drop"
    assert counted(bench, service, 2) == {"denied": 2}
    bench.service(access=Access(rate=ConnectionRate(1, 1, 32)))
    bench.connect(40000)
    for flags in ("S", "S"):
        assert bench.send(tcp(40001, flags)).verdict == "drop"
    assert bench.send(tcp(40000, "A")).verdict == "send"
    assert counted(bench, service, 4) == {"denied": 2, "rate": 2}
    assert bench.counters(service).connections == 1
    bench.tables.zero(bench.tables.services[service])
    assert bench.admission(service) == NOTHING_REFUSED


def test_a_service_that_comes_anew_begins_with_nothing(bench: Bench, bystander: ServiceId) -> None:
    for _ in range(2):
        service = bench.service()
        assert ICMP in bench.send(tcp()).ip
        assert bench.admission(service).refused["no-server"] == 1
        bench.remove(service)
    assert bench.admission(bystander) == NOTHING_REFUSED


@pytest.mark.parametrize("vip", [VIP, VIP6])
@pytest.mark.parametrize("scheduler", ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "lblcr", "twos", "mh"])
def test_no_server_or_all_are_at_their_thresholds(bench: Bench, bystander: ServiceId, scheduler: str, vip: str) -> None:
    """As the scheduler of ip_vs says "no destination available", but which of the two is told apart."""
    flags = ["mh-fallback"] if scheduler == "mh" else []
    text, server = (f"[{vip}]", f"[{SERVER6}]:80") if vip == VIP6 else (vip, "198.51.100.11:80")
    service = bench.service(f"tcp:{text}:80", scheduler, *flags)
    bench.configure(icmp_rate=0)
    bench.advance(0)
    assert bench.send(tcp(vip=vip)).verdict == "drop"
    bench.server(service, server, weight=0)
    assert bench.send(tcp(vip=vip)).verdict == "drop"
    assert counted(bench, service, 2) == {"no-server": 2}
    bench.server(service, server, upper=1)
    bench.connect(40001, vip=vip)
    for port in (40002, 40003, 40004):
        assert bench.send(tcp(port, vip=vip)).verdict == "drop"
    assert counted(bench, service, 5) == {"no-server": 2, "overloaded": 3}
    bench.server(service, server, weight=0, upper=1)
    assert bench.send(tcp(40005, vip=vip)).verdict == "drop"
    assert counted(bench, service, 6) == {"no-server": 3, "overloaded": 3}


def test_no_local_port(bench: Bench, bystander: ServiceId) -> None:
    service = bench.service()
    server = bench.server(service, forward=FULLNAT)
    bench.maps["pools"].put_index(
        bench.tables.services[service].servers[server].pool, bytes(bench.maps["pools"].value_size)
    )
    assert ICMP in bench.send(tcp()).ip
    assert counted(bench, service) == {"no-local-port": 1}


def test_cookies(bench: Bench, bystander: ServiceId) -> None:
    opening = Opening(bench)
    opening.syn()
    assert opening.from_client("A", ISN + 1, opening.cookie + 2, window=501).verdict != "send"
    assert counted(bench, opening.service, 2) == {"cookies_sent": 1, "cookies_refused": 1}
    opening.open()
    expected = {"cookies_sent": 2, "cookies_refused": 1, "cookies_accepted": 1}
    assert counted(bench, opening.service, 4) == expected


@pytest.mark.parametrize("announced", [1460, 1300, None])
def test_clamped_on_both_ways(bench: Bench, bystander: ServiceId, announced: int | None) -> None:
    service = bench.service(mss=1300)
    bench.server(service)
    options = [] if announced is None else [("MSS", announced)]
    syn = bench.send(ip(CLIENT, VIP) / TCP(sport=40000, dport=80, flags="S", options=options))
    back = answer(syn.ip)
    back[TCP].options = options
    assert bench.send(back, "back").verdict == "send"
    assert bench.send(tcp(flags="A")).verdict == "send"
    expected = replace(NOTHING_REFUSED, mss_clamped=2 if announced == 1460 else 0)
    assert bench.admission(service) == expected and bench.admission(bystander) == NOTHING_REFUSED
