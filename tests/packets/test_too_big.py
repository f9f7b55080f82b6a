"""IPv4 packets larger than the next hop's MTU that may be fragmented: the network stack does it, where it can."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import ForwardingMethod
from tests.packets.bench import DIRECT, FULLNAT, TUNNEL, Bench
from tests.packets.traffic import answer, udp
from tests.packets.wire import CLIENT, VIP

pytestmark = pytest.mark.root
SERVER = "198.51.100.11"
MTU = 1300


@pytest.fixture(params=[True, False], ids=["cached", "routes"])
def mtu(bench: Bench, request: pytest.FixtureRequest) -> int:
    """Of the way to the servers that a test adds."""
    if not request.param:
        bench.hops.unresolved.add(ip_address(SERVER))
        return 1500
    bench.hops.mtu = MTU
    return MTU


def sized(packet: Packet, length: int) -> IP:
    """With zeros up to so many bytes."""
    return IP(bytes(packet / Raw(bytes(length - len(packet)))))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_is_masqueraded_goes_to_the_stack_with_its_servers_address(bench: Bench, mtu: int, protocol: str) -> None:
    bench.server(bench.service(f"{protocol}:{VIP}:80"), f"{SERVER}:8080")
    layer = UDP(sport=40000, dport=80) if protocol == "udp" else TCP(sport=40000, dport=80, flags="S")
    packet = IP(src=CLIENT, dst=VIP, ttl=9) / layer
    assert bench.send(sized(packet, mtu)).verdict == "send"
    sent = sized(packet, mtu + 1)
    out = bench.send(sent)
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.dport) == ("pass", CLIENT, SERVER, 8080)
    assert (out.ip.ttl, out.ip.len, out.ip.flags) == (9, mtu + 1, 0), "the stack decrements the TTL, once"
    assert bytes(out.ip[type(layer)].payload) == bytes(sent[type(layer)].payload)
    assert bench.events() == {Event.STACK: 1}


def test_sctp(bench: Bench, mtu: int) -> None:
    """The bench looks at its CRC."""
    bench.server(bench.service(f"sctp:{VIP}:80"), f"{SERVER}:8080")
    head = IP(src=CLIENT, dst=VIP) / SCTP(sport=40000, dport=80, tag=7)
    assert bench.send(head / SCTPChunkInit()).verdict == "send"
    out = bench.send(IP(bytes(head / SCTPChunkData(data=bytes(mtu)))))
    assert (out.verdict, out.ip.dst, out.ip[SCTP].dport) == ("pass", SERVER, 8080)
    assert bench.events() == {Event.STACK: 1}


def test_fragments_that_are_too_big_themselves(bench: Bench, mtu: int) -> None:
    bench.server(bench.service(f"udp:{VIP}:53"), f"{SERVER}:5353")
    first, second, last = fragment(IP(bytes(udp(data=bytes(2 * mtu + 200), id=7))), mtu + 60)
    for one in (first, second):
        out = bench.send(one, check="ip")
        assert (out.verdict, out.ip.dst, out.ip.id, out.ip.ttl) == ("pass", SERVER, 7, 64)
    out = bench.send(last, check="ip")
    assert (out.verdict, out.ip.dst, out.ip.ttl) == ("send", SERVER, 63)
    assert bench.events() == {Event.STACK: 2}


def test_an_icmp_error_about_what_the_server_said(bench: Bench, mtu: int) -> None:
    bench.server(bench.service(f"udp:{VIP}:53"), f"{SERVER}:5353")
    query = bench.send(udp()).ip
    reply = bench.send(answer(query, data=bytes(mtu - 28)), "back").ip
    error = IP(src=CLIENT, dst=VIP, ttl=9) / ICMP(type=3, code=3) / reply
    out = bench.send(IP(bytes(error)))
    assert (out.verdict, out.ip.dst, out.ip.ttl) == ("pass", SERVER, 9)
    quoted = IP(bytes(out.ip[ICMP].payload))
    assert (quoted.src, quoted.dst, quoted.sport) == (SERVER, CLIENT, 5353)
    assert bench.events() == {Event.STACK: 1, Event.ICMP_TRANSLATED: 1}


@pytest.mark.parametrize("method", [DIRECT, TUNNEL, FULLNAT])
def test_what_the_stack_would_not_route_is_dropped_and_counted(
    bench: Bench, mtu: int, method: ForwardingMethod
) -> None:
    bench.server(bench.service(f"udp:{VIP}:53"), f"{SERVER}:53", method)
    packet = udp(data=b"")
    overhead = 20 if method is TUNNEL else 0
    assert bench.send(sized(packet, mtu - overhead)).verdict == "send"
    assert bench.send(sized(packet, mtu - overhead + 1)).verdict == "drop"
    assert bench.events() == {Event.DROP_UNFRAGMENTED: 1}


def test_a_reply_too_big_for_the_client_is_dropped_and_counted(bench: Bench) -> None:
    bench.server(bench.service(f"udp:{VIP}:53"), f"{SERVER}:5353")
    reply = answer(bench.send(udp()).ip, data=b"")
    assert bench.send(sized(reply, 1500), "back").verdict == "send"
    assert bench.send(sized(reply, 1501), "back").verdict == "drop"
    assert bench.events() == {Event.DROP_UNFRAGMENTED: 1}
