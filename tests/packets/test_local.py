"""Servers that are the gateway itself: what the client sent goes up the network stack as it is (IPVS: "Local")."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lbnode.dataplane.xdp.layout import Event
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, Bench
from tests.packets.traffic import tcp, udp
from tests.packets.wire import GATEWAY, VIP, VIP6

pytestmark = pytest.mark.root


@pytest.mark.parametrize("forward", [DIRECT, TUNNEL, MASQUERADE])
@pytest.mark.parametrize("family", [4, 6])
def test_a_local_server_gets_the_packet_untouched(bench: Bench, family: int, forward: str) -> None:
    vip, own = (f"[{VIP6}]", "[2001:db8::1]") if family == 6 else (VIP, GATEWAY)
    bench.hops.own.add(ip_address(own.strip("[]")))
    service = bench.service(f"udp:{vip}:53")
    server = bench.server(service, f"{own}:53", forward)
    packet = udp(vip=vip.strip("[]"), data=b"question")
    for _ in range(2):
        out = bench.send(packet)
        assert (out.verdict, bytes(out.ip)) == ("pass", bytes(packet))
    assert bench.events() == {} and len(bench.records()) == 1
    assert bench.counters(service, server).packets_in == 2


def test_local_and_far_servers_share(bench: Bench) -> None:
    bench.hops.own.add(ip_address(GATEWAY))
    service = bench.service()
    bench.server(service, f"{GATEWAY}:80", DIRECT)
    bench.server(service, "198.51.100.11:80", DIRECT)
    verdicts = [bench.send(tcp(port)).verdict for port in range(40000, 40006)]
    assert sorted(verdicts) == ["pass"] * 3 + ["send"] * 3


def test_a_service_with_a_local_server_sends_no_cookies(bench: Bench) -> None:
    """Its answers do not pass the programs, so nobody could translate them."""
    bench.hops.own.add(ip_address(GATEWAY))
    service = bench.service(syn_proxy=0)
    bench.server(service, "198.51.100.11:80")
    bench.send(tcp(40000))
    assert bench.events() == {Event.COOKIE_SENT: 1}
    own = bench.server(service, f"{GATEWAY}:80")
    assert {bench.send(tcp(port)).verdict for port in (40001, 40002)} == {"pass", "send"}
    assert bench.events() == {Event.COOKIE_SENT: 1}
    bench.remove(service, own)
    bench.send(tcp(40003))
    assert bench.events() == {Event.COOKIE_SENT: 2}
