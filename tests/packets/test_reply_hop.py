"""Next hops that are remembered for replies: what makes one valid, and that nothing else uses it.

The wire changes the neighbour's MAC address and nobody tells the programs: whoever remembers sends to the old one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import ForwardingMethod
from tests.packets.bench import FULLNAT, MASQUERADE, Bench
from tests.packets.traffic import answer
from tests.packets.wire import CLIENT_ROUTER_MAC, VIP, VIP6, Wire

pytestmark = pytest.mark.root
NEW_MAC = "02:00:00:00:0f:ff"
OTHER = {4: ("192.0.2.12", "203.0.113.77"), 6: ("2001:db8::12", "2001:db8:c::77")}  # VIP, client
ROUTER = {4: "192.0.2.254", 6: "2001:db8::fe"}


@pytest.fixture(autouse=True)
def one_cpu() -> Iterator[None]:
    """Each CPU remembers for itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(params=[4, 6])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[MASQUERADE, FULLNAT])
def method(request: pytest.FixtureRequest) -> ForwardingMethod:
    return ForwardingMethod(request.param)


class Conversation:
    """A connection that is established, and replies of its server."""

    def __init__(self, bench: Bench, family: int, method: ForwardingMethod, vip: str = "", client: str = "") -> None:
        self.bench = bench
        vip = vip or (VIP if family == 4 else VIP6)
        service = bench.service(f"tcp:{vip}:80" if family == 4 else f"tcp:[{vip}]:80")
        last = 12 if vip in (OTHER[4][0], OTHER[6][0]) else 11
        bench.server(service, f"198.51.100.{last}:80" if family == 4 else f"[2001:db8:b::{last}]:80", method)
        self.got = bench.connect(vip=vip, client=client or ("203.0.113.5" if family == 4 else "2001:db8:c::5")).ip

    def reply(self, interface: str = "back", *, data: bytes = b"", tos: int = 0) -> Packet:
        packet = answer(self.got, "SA" if not data else "A", data=data)
        if tos:
            packet.setfieldval("tos" if packet.version == 4 else "tc", tos)
        if packet.version == 4:
            packet.flags = "DF"
        return self.bench.send(packet, interface)

    def sent_to(self, interface: str = "back", *, tos: int = 0) -> str:
        out = self.reply(interface, tos=tos)
        assert out.verdict == "send" and out.eth.src == self.bench.wire.mac("front")
        return str(out.eth.dst)


@pytest.fixture
def talk(bench: Bench, family: int, method: ForwardingMethod) -> Conversation:
    return Conversation(bench, family, method)


@pytest.fixture
def moved(talk: Conversation, wire: Wire, family: int) -> Iterator[Conversation]:
    """The router towards the client got another MAC address after a reply."""
    assert talk.sent_to() == CLIENT_ROUTER_MAC
    way = ("dev", "front", "lladdr")
    wire.net.run("gw", "ip", "neigh", "replace", ROUTER[family], *way, NEW_MAC)
    yield talk
    wire.net.run("gw", "ip", "neigh", "replace", ROUTER[family], *way, CLIENT_ROUTER_MAC)


def test_it_is_remembered_until_anything_changes(moved: Conversation) -> None:
    assert moved.sent_to() == CLIENT_ROUTER_MAC
    moved.bench.machine.forget_hops()
    assert [moved.sent_to(), moved.sent_to()] == [NEW_MAC, NEW_MAC]


def test_it_is_remembered_for_a_second(moved: Conversation) -> None:
    moved.bench.advance(0.999)
    assert moved.sent_to() == CLIENT_ROUTER_MAC, "its use does not prolong it"
    moved.bench.advance(0.001)
    assert moved.sent_to() == NEW_MAC


def test_another_interface_is_another_question(moved: Conversation) -> None:
    """Policy rules may tell them apart, as all below (ip-rule(8): iif, tos, from, to)."""
    assert moved.sent_to("front") == NEW_MAC


@pytest.mark.parametrize(("family", "tos", "another"), [(4, 0x10, True), (4, 0x02, False), (6, 0x10, False)])
def test_so_is_another_tos_of_ipv4(moved: Conversation, tos: int, another: bool) -> None:
    """But for its ECN bits, which vary from packet to packet (RFC 3168); of IPv6's class the kernel is told nothing."""
    assert moved.sent_to(tos=tos) == (NEW_MAC if another else CLIENT_ROUTER_MAC)


@pytest.mark.parametrize("method", [MASQUERADE])
def test_so_is_another_vip(moved: Conversation, family: int, method: ForwardingMethod) -> None:
    assert Conversation(moved.bench, family, method, vip=OTHER[family][0]).sent_to() == NEW_MAC


@pytest.mark.parametrize("method", [MASQUERADE])
def test_so_is_another_client(moved: Conversation, family: int, method: ForwardingMethod) -> None:
    assert Conversation(moved.bench, family, method, client=OTHER[family][1]).sent_to() == NEW_MAC
    assert moved.sent_to() == CLIENT_ROUTER_MAC


def test_clients_that_share_a_place_get_their_own(bench: Bench, wire: Wire) -> None:
    """More of them than places; every other one is behind another router."""
    service = bench.service(scheduler="rr")
    bench.server(service)
    wire.net.run("gw", "ip", "neigh", "replace", "192.0.2.253", "dev", "front", "lladdr", NEW_MAC)
    routes = [("10.2.0.0/16", "192.0.2.254"), ("10.3.0.0/16", "192.0.2.253")]
    for network, router in routes:
        wire.net.run("gw", "ip", "route", "add", network, "via", router)
    try:
        places = bench.maps["reply_hops"].info.max_entries
        clients = [f"10.{2 + n % 2}.{n // 199 % 256}.{n % 199 + 1}" for n in range(0, 2 * places, 61)]
        for _ in range(2):
            for client, port in zip(clients, range(1024, 65536), strict=False):
                got = bench.connect(port, client=client).ip
                expected = CLIENT_ROUTER_MAC if client.startswith("10.2.") else NEW_MAC
                assert bench.send(answer(got), "back").eth.dst == expected
    finally:
        for network, router in routes:
            wire.net.run("gw", "ip", "route", "del", network, "via", router)


def test_the_mtu_is_remembered_too(talk: Conversation, family: int, method: ForwardingMethod) -> None:
    header = 40 if family == 4 else 60
    assert talk.reply(data=bytes(1500 - header)).verdict == "send"
    for _ in range(2):
        told = talk.reply(data=bytes(1501 - header))
        mtu = told.ip[ICMP].nexthopmtu if family == 4 else told.ip[ICMPv6PacketTooBig].mtu
        assert (told.verdict, mtu) == ("send", 1500)
    assert talk.bench.events() == {Event.DROP_TOO_BIG: 2, Event.ICMP_SENT: 2}
    assert talk.reply(data=b"x").ip[TCP].payload.load == b"x"


@pytest.mark.parametrize(("family", "client"), [(4, "192.0.2.77"), (6, "2001:db8::77")])
def test_what_is_not_resolved_is_asked_for_each_time(
    bench: Bench, wire: Wire, family: int, client: str, method: ForwardingMethod
) -> None:
    talk = Conversation(bench, family, method, client=client)
    for _ in range(2):
        talk.reply()
    assert bench.events() == {Event.NO_NEIGHBOUR: 2}
    wire.net.run("gw", "ip", "neigh", "replace", client, "dev", "front", "lladdr", NEW_MAC)
    try:
        assert talk.sent_to() == NEW_MAC
    finally:
        wire.net.run("gw", "ip", "neigh", "del", client, "dev", "front")
