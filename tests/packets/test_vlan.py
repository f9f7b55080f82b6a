"""VLAN tags (802.1Q) at XDP: taken off, put on, kept. At tcx packets come in by the VLAN's interface, without a tag."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6TimeExceeded, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from lbnode.dataplane.xdp.interfaces import Interface
from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.vlans import Vlans
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, Bench, Machine, Out
from tests.packets.traffic import answer, tcp
from tests.packets.wire import CLIENT, CLIENT6, SERVER6, SERVER_MAC, VIP, VIP6, Wire

pytestmark = pytest.mark.root
VLAN_INTERFACE = 4000
ROUTER_MAC = "02:00:00:00:00:99"


@pytest.fixture
def bench(machine: Machine, wire: Wire) -> Bench:
    """Frames alone: with VLAN 5 on the front interface."""
    bench = Bench(machine, wire, "xdp")
    links(bench, interface(VLAN_INTERFACE, wire.index("front"), 5))
    return bench


def interface(index: int, lower: int, vlan: int) -> Interface:
    return Interface(index, f"vlan{vlan}", "vlan", "", True, True, bytes(6), 1500, 0, (lower, vlan))


def links(bench: Bench, *found: Interface) -> None:
    Vlans(bench.maps).update(found)


def send(bench: Bench, packet: Packet, vlan: int = 5, prio: int = 0) -> Out:
    return bench.send(bytes(Ether(src=ROUTER_MAC, dst=bench.wire.mac("front")) / Dot1Q(vlan=vlan, prio=prio) / packet))


@pytest.mark.parametrize("forward", [MASQUERADE, DIRECT, TUNNEL])
@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_the_tag_is_taken_off_where_the_way_on_has_none(bench: Bench, vip: str, forward: str) -> None:
    text, server = (f"[{VIP6}]", f"[{SERVER6}]") if vip == VIP6 else (VIP, "198.51.100.11")
    bench.server(bench.service(f"tcp:{text}:80"), f"{server}:80", forward)
    out = send(bench, tcp(vip=vip, data=b"hello"), prio=3)
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    assert Dot1Q not in out.eth and out.eth.type == (0x86DD if vip == VIP6 else 0x0800)
    assert bytes(out.eth[TCP].payload) == b"hello"


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_the_tag_of_the_way_on_is_put_on(bench: Bench, vip: str, tagged: bool) -> None:
    """The next hop is behind VLAN 7 of the interface that the packet came in by: one arm, two VLANs."""
    front, back = bench.wire.index("front"), bench.wire.index("back")
    links(bench, interface(VLAN_INTERFACE, front, 5), interface(back, front, 7))
    text, server = (f"[{VIP6}]", f"[{SERVER6}]") if vip == VIP6 else (VIP, "198.51.100.11")
    bench.server(bench.service(f"tcp:{text}:80"), f"{server}:8080")
    out = send(bench, tcp(vip=vip)) if tagged else bench.send(tcp(vip=vip))
    assert (out.verdict, out.reflected) == ("send", True)
    assert (out.eth.src, out.eth.dst, out.eth.type) == (bench.wire.mac("back"), SERVER_MAC, 0x8100)
    assert (out.eth[Dot1Q].vlan, out.eth[Dot1Q].prio) == (7, 0)
    assert (out.ip.dst, out.ip[TCP].dport) == (server.strip("[]"), 8080)


def test_replies_leave_by_the_clients_vlan(bench: Bench) -> None:
    front, back = bench.wire.index("front"), bench.wire.index("back")
    bench.server(bench.service(), "198.51.100.11:8080")
    sent = bench.send(tcp())
    links(bench, interface(front, back, 9))
    out = bench.send(answer(sent.ip), "back")
    assert (out.verdict, out.reflected, out.eth[Dot1Q].vlan) == ("send", True, 9)
    assert (out.ip.src, out.ip[TCP].sport) == (VIP, 80)


@pytest.mark.parametrize(
    "request_", [IP(src=CLIENT, dst=VIP) / ICMP(), IPv6(src=CLIENT6, dst=VIP6) / ICMPv6EchoRequest()], ids=["v4", "v6"]
)
def test_answers_have_the_tag_that_the_question_had(bench: Bench, request_: Packet) -> None:
    bench.service()
    bench.service(f"tcp:[{VIP6}]:80")
    out = send(bench, request_, prio=5)
    assert (out.verdict, out.reflected, out.eth.dst) == ("send", True, ROUTER_MAC)
    assert (out.eth[Dot1Q].vlan, out.eth[Dot1Q].prio) == (5, 5) and bench.events() == {Event.ECHO: 1}


def test_errors_of_ours_have_it_too(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    bench.server(bench.service(f"tcp:[{VIP6}]:80"), f"[{SERVER6}]:80")
    for packet, kind in ((tcp(ttl=1), ICMP), (tcp(vip=VIP6, hlim=1), ICMPv6TimeExceeded)):
        out = send(bench, packet)
        assert (out.verdict, out.eth[Dot1Q].vlan) == ("send", 5) and kind in out.eth


@pytest.mark.parametrize("vlan", [5, 6])
@pytest.mark.parametrize("packet", [tcp(dport=81), tcp(vip="192.0.2.77"), tcp(flags="A")], ids=["port", "vip", "ack"])
def test_what_passes_is_as_it_was(bench: Bench, packet: Packet, vlan: int) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    frame = bytes(Ether(src=ROUTER_MAC, dst=bench.wire.mac("front")) / Dot1Q(vlan=vlan, prio=6, dei=1) / packet)
    out = bench.send(frame)
    assert (out.verdict, out.frame) == ("pass", frame)


def test_other_vlans_are_not_looked_at(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    assert send(bench, tcp(), vlan=6).verdict == "pass"
    links(bench)
    assert send(bench, tcp(), vlan=5).verdict == "pass" and bench.records() == []


def test_unresolved_neighbour_is_handed_over_without_a_tag(bench: Bench) -> None:
    """The program at tc sends it; a tag would be the one of the way in."""
    bench.server(bench.service(), "198.51.100.77:80", DIRECT, hop=False)
    out = send(bench, tcp())
    assert (out.verdict, out.handover, out.eth.type) == ("pass", True, 0x0800)


def test_truncated_at_every_byte(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:80")
    whole = bytes(Ether(src=ROUTER_MAC, dst=bench.wire.mac("front")) / Dot1Q(vlan=5) / tcp(data=b"0123"))
    for length in range(14, len(whole)):
        assert bench.send(whole[:length]).verdict == ("pass" if length < 38 else "drop"), length
    assert bench.records() == [] and bench.send(whole).verdict == "send"
