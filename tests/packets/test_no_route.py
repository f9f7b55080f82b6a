"""Packets that the data plane has no usable route for: dropped, counted and answered, or left to the network stack.

The stack alone can use a route that encapsulates (ip-route(8): encap), and takes only what it would forward anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.layout import Event
from lbnode.errors import DataPlaneError
from lbnode.model import ForwardingMethod
from tests.packets.bench import DIRECT, FULLNAT, MASQUERADE, TUNNEL, VERDICTS, Bench
from tests.packets.traffic import answer, client_of, ether, tcp
from tests.packets.wire import VIP, VIP6, Wire

pytestmark = pytest.mark.root
VIPS = {4: VIP, 6: VIP6}
NOWHERE = {4: "10.0.0.1", 6: "2001:db8:a::1"}
ENCAPSULATED = {4: "10.1.0.1", 6: "2001:db8:e::1"}
RESOLVED = {4: "198.51.100.11", 6: "2001:db8:b::11"}
UNRESOLVED = {4: "198.51.100.77", 6: "2001:db8:b::77"}
METHODS = [MASQUERADE, DIRECT, TUNNEL, FULLNAT]


@pytest.fixture(autouse=True)
def routes(wire: Wire) -> Iterator[None]:
    made = (
        ("10.1.0.0/24", "encap", "ip", "id", "1", "dst", "198.51.100.11", "dev", "back"),
        ("2001:db8:e::/64", "encap", "ip6", "id", "1", "dst", "2001:db8:b::11", "dev", "back"),
        ("blackhole", "10.0.1.0/24"),
        ("unreachable", "10.0.2.0/24"),
        ("prohibit", "10.0.3.0/24"),
        ("blackhole", "2001:db8:a:1::/64"),
        ("unreachable", "2001:db8:a:2::/64"),
        ("prohibit", "2001:db8:a:3::/64"),
    )
    for one in made:
        wire.net.run("gw", "ip", "route", "add", *one)
    yield
    for one in made:
        wire.net.run("gw", "ip", "route", "del", *one)


def served(bench: Bench, family: int, address: str, method: ForwardingMethod, **options: object) -> None:
    port = 8080 if method in (MASQUERADE, FULLNAT) else 80
    service = bench.service(f"tcp:{VIP}:80" if family == 4 else f"tcp:[{VIP6}]:80")
    server = f"{address}:{port}" if family == 4 else f"[{address}]:{port}"
    bench.server(service, server, method, hop=False, **options)  # type: ignore[arg-type]


def ttl(packet: Packet) -> int:
    return int(packet.ttl if IP in packet else packet.hlim)


def with_ttl(family: int, hops: int, **fields: object) -> Packet:
    packet = tcp(vip=VIPS[family], **fields)  # type: ignore[arg-type]
    packet.setfieldval("ttl" if family == 4 else "hlim", hops)
    return packet


def refused(out: Packet, sent: Packet, sender: str) -> None:
    """ICMP host unreachable to the packet's sender, about what it sent, byte for byte."""
    told = out.ip
    assert (told.src, told.dst) == (sender, sent.src)
    if IP in sent:
        assert (told[ICMP].type, told[ICMP].code) == (3, 1)
        quoted = bytes(told[ICMP].payload)
    else:
        assert told[ICMPv6DestUnreach].code == 3
        quoted = bytes(told[ICMPv6DestUnreach].payload)
    assert bytes(sent).startswith(quoted) and len(quoted) >= 28


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("method", METHODS)
def test_without_a_route_to_the_server_the_client_is_told(bench: Bench, family: int, method: ForwardingMethod) -> None:
    served(bench, family, NOWHERE[family], method)
    sent = with_ttl(family, 9)
    refused(bench.send(sent), sent, VIPS[family])
    assert bench.events() == {Event.DROP_NO_ROUTE: 1, Event.ICMP_SENT: 1}


@pytest.mark.parametrize(
    "server", ["10.0.1.1", "10.0.2.1", "10.0.3.1", "2001:db8:a:1::1", "2001:db8:a:2::1", "2001:db8:a:3::1"]
)
def test_routes_that_forbid_it_are_none(bench: Bench, server: str) -> None:
    family = 6 if ":" in server else 4
    served(bench, family, server, MASQUERADE)
    sent = with_ttl(family, 9)
    refused(bench.send(sent), sent, VIPS[family])
    assert bench.events() == {Event.DROP_NO_ROUTE: 1, Event.ICMP_SENT: 1}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("method", [MASQUERADE, FULLNAT])
def test_without_a_route_to_the_client_the_server_is_told(bench: Bench, family: int, method: ForwardingMethod) -> None:
    served(bench, family, RESOLVED[family], method)
    got = bench.connect(vip=VIPS[family], client=NOWHERE[family]).ip
    reply = answer(got)
    refused(bench.send(reply, "back"), reply, VIPS[family] if method is MASQUERADE else got.src)
    assert bench.events() == {Event.DROP_NO_ROUTE: 1, Event.ICMP_SENT: 1}


@pytest.mark.parametrize("family", [4, 6])
def test_the_stack_gets_what_is_masqueraded_with_the_ttl_it_came_with(bench: Bench, family: int) -> None:
    service = f"tcp:{VIPS[family]}:80" if family == 4 else f"tcp:[{VIP6}]:80"
    served(bench, family, ENCAPSULATED[family], MASQUERADE)
    bench.service(service, mss=700)
    served_syn = with_ttl(family, 9)
    served_syn[TCP].options = [("MSS", 1460)]
    out = bench.send(served_syn)
    assert (out.verdict, out.handover, ttl(out.ip)) == ("pass", False, 9), "the stack decrements the TTL, once"
    assert (out.ip.src, out.ip.dst, out.ip.dport) == (client_of(VIPS[family]), ENCAPSULATED[family], 8080)
    assert out.eth.dst == bench.wire.mac("front"), "or the stack takes it for another host's"
    assert dict(out.ip[TCP].options)["MSS"] == 700
    assert bench.events() == {Event.STACK: 1}


@pytest.mark.parametrize("method", [DIRECT, TUNNEL, FULLNAT])
def test_the_stack_does_not_get_ipv4_that_it_would_take_for_a_forgery(bench: Bench, method: ForwardingMethod) -> None:
    served(bench, 4, ENCAPSULATED[4], method)
    assert bench.send(tcp()).verdict == "drop"
    assert bench.events() == {Event.DROP_NO_ROUTE: 1}


def test_nor_an_ipv4_reply(bench: Bench) -> None:
    served(bench, 4, RESOLVED[4], MASQUERADE)
    got = bench.connect(client=ENCAPSULATED[4]).ip
    assert bench.send(answer(got), "back").verdict == "drop"
    assert bench.events() == {Event.DROP_NO_ROUTE: 1}


@pytest.mark.parametrize("method", [TUNNEL, FULLNAT])
def test_ipv6_of_its_own_addresses_the_stack_forwards(bench: Bench, method: ForwardingMethod) -> None:
    served(bench, 6, ENCAPSULATED[6], method)
    out = bench.send(with_ttl(6, 9))
    assert (out.verdict, out.ip.dst) == ("pass", ENCAPSULATED[6])
    hops = (ttl(out.ip), ttl(out.ip[IPv6].payload)) if method is TUNNEL else ttl(out.ip)
    assert hops == ((64, 8) if method is TUNNEL else 9)
    assert bench.events() == {Event.STACK: 1}


def test_and_an_ipv6_reply(bench: Bench) -> None:
    served(bench, 6, RESOLVED[6], MASQUERADE)
    got = bench.connect(vip=VIP6, client=ENCAPSULATED[6]).ip
    out = bench.send(answer(got, hlim=9), "back")
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.hlim) == ("pass", VIP6, ENCAPSULATED[6], 9)
    assert bench.events() == {Event.STACK: 1}


def test_direct_routing_the_stack_would_deliver_here(bench: Bench) -> None:
    served(bench, 6, ENCAPSULATED[6], DIRECT)
    assert bench.send(tcp(vip=VIP6)).verdict == "drop"
    assert bench.events() == {Event.DROP_NO_ROUTE: 1}


@pytest.mark.parametrize("entry", ["xdp"])
@pytest.mark.parametrize(("family", "method", "passes"), [(4, MASQUERADE, True), (6, MASQUERADE, True),
                                                          (4, FULLNAT, False), (4, DIRECT, False)])  # fmt: skip
def test_a_driver_without_metadata_leaves_unresolved_neighbours_to_the_stack(
    bench: Bench, family: int, method: ForwardingMethod, passes: bool
) -> None:
    """Its TTL, too, is the stack's to decrement."""
    served(bench, family, UNRESOLVED[family], method)
    verdict, frame = sent_full_of_metadata(bench, with_ttl(family, 9))
    if passes:
        out = Ether(frame).payload
        assert (verdict, out.dst, ttl(out)) == ("pass", UNRESOLVED[family], 9)
        assert bench.events() == {Event.NO_NEIGHBOUR: 1, Event.STACK: 1}
    else:
        assert verdict == "drop" and bench.events() == {Event.NO_NEIGHBOUR: 1, Event.DROP_NO_ROUTE: 1}


def sent_full_of_metadata(bench: Bench, packet: Packet) -> tuple[str, bytes]:
    """As much as the kernel allows stands in front of the frame already: 32 bytes, or all headroom but 40."""
    index, mac = bench.wire.interfaces["front"]
    frame = ether(packet, target=mac)
    for size in (216, 32):
        data = bytes(size) + frame
        context = struct.pack("=6I", size, len(data), 0, index, 0, 0)
        try:
            with bench.wire.inside():
                run = syscall.prog_test_run(bench.machine.programs["xdp_lb"], data, context=context)
            return VERDICTS["xdp"][run.retval], run.data[size:]
        except DataPlaneError:
            if size == 32:
                raise
    raise AssertionError
