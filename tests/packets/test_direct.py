"""Direct routing (only the Ethernet addresses change, and the TTL) and IP-in-IP tunnels."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP

from lbnode.dataplane.xdp.layout import Event
from tests.packets.bench import DIRECT, TUNNEL, Bench
from tests.packets.traffic import tcp, udp
from tests.packets.wire import CLIENT, SERVER_MAC, VIP

pytestmark = pytest.mark.root


@pytest.mark.parametrize("hop", [True, False], ids=["cached", "routes"])
def test_direct_changes_the_macs_alone(bench: Bench, hop: bool) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT, hop=hop)
    packet = tcp(40000, "S", ttl=33, id=4, data=b"early")
    out = bench.send(packet)
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    expected = packet.copy()
    expected.ttl = 32
    assert bytes(out.ip) == bytes(expected)


def test_direct_back_through_the_same_interface(bench: Bench) -> None:
    """One-armed: XDP sends with XDP_TX."""
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    out = bench.send(tcp(), "back")
    assert (out.verdict, out.reflected, out.eth.dst) == ("send", bench.entry == "xdp", SERVER_MAC)


def test_unresolved_neighbour_is_handed_over(bench: Bench) -> None:
    """XDP leaves metadata for the tc program behind it; tc lets the kernel resolve."""
    service = bench.service()
    bench.server(service, "198.51.100.77:80", DIRECT, hop=False)
    out = bench.send(tcp())
    assert (out.verdict, out.handover) == (("pass", True) if bench.entry == "xdp" else ("send", False))
    assert out.ip.dst == VIP and bench.events() == {Event.NO_NEIGHBOUR: 1}


@pytest.mark.parametrize("hop", [True, False], ids=["cached", "routes"])
@pytest.mark.parametrize(
    "packet", [tcp(ttl=20, tos=0xB8, id=513, flags="S"), udp(dport=80, data=b"odd")], ids=["tcp", "udp"]
)
def test_tunnel(bench: Bench, packet: IP, hop: bool) -> None:
    service = bench.service(f"{'tcp' if TCP in packet else 'udp'}:{VIP}:80")
    bench.server(service, "198.51.100.11:80", TUNNEL, hop=hop)
    out = bench.send(packet)
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    assert out.ip.src == (
        "198.51.100.1" if hop else CLIENT
    )  # no route known to the control plane: no own source either
    assert (out.ip.dst, out.ip.proto, out.ip.ttl, out.ip.tos) == ("198.51.100.11", 4, 64, packet.tos)
    assert out.ip.len == len(packet) + 20 == len(out.frame) - 14
    assert out.ip.flags == packet.flags
    inner = packet.copy()
    inner.ttl -= 1
    assert bytes(out.ip.payload) == bytes(inner)


def test_tunnel_takes_dont_fragment_from_inside(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", TUNNEL)
    for flags in ("DF", 0):
        sent = IP(src=CLIENT, dst=VIP, flags=flags) / TCP(sport=5, dport=80, flags="S")
        assert bench.send(sent).ip.flags == flags


@pytest.mark.parametrize("hop", [True, False], ids=["cached", "routes"])
def test_tunnel_too_big(bench: Bench, hop: bool) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", TUNNEL, hop=hop)
    bench.establish()
    fits = bench.send(_sized(1480))
    assert (fits.verdict, fits.ip.len) == ("send", 1500)
    told = bench.send(_sized(1481))
    assert (told.verdict, told.ip.src, told.ip.dst, told.ip.proto) == ("send", VIP, CLIENT, 1)
    icmp = told.ip[ICMP]
    assert (icmp.type, icmp.code, icmp.nexthopmtu) == (3, 4, 1480)
    quoted = IP(bytes(icmp.payload))
    assert (quoted.src, quoted.dst, quoted.len) == (CLIENT, VIP, 1481)
    assert bytes(quoted.payload)[:4] == (40000).to_bytes(2, "big") + (80).to_bytes(2, "big")
    assert (told.eth.src, told.eth.dst) == (bench.wire.mac("front"), "02:00:00:00:00:99")
    assert bench.events()[Event.DROP_TOO_BIG] == 1 and bench.events()[Event.ICMP_SENT] == 1


def test_too_big_that_may_be_fragmented_is_dropped(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.11:80", TUNNEL)
    assert bench.send(_sized(1481, df=False, flags="S")).verdict == "drop"
    assert bench.events() == {Event.DROP_UNFRAGMENTED: 1}


def test_icmp_errors_are_limited(bench: Bench) -> None:
    bench.configure(icmp_rate=3)
    bench.advance(0)
    service = bench.service()
    bench.server(service, "198.51.100.11:80", TUNNEL)
    bench.establish()
    verdicts = [bench.send(_sized(1490)).verdict for _ in range(5)]
    assert verdicts == ["send"] * 3 + ["drop"] * 2
    assert bench.event(Event.DROP_TOO_BIG) == 5 and bench.event(Event.ICMP_SENT) == 3


def _sized(length: int, *, df: bool = True, flags: str = "A") -> IP:
    return (
        IP(src=CLIENT, dst=VIP, flags="DF" if df else 0)
        / TCP(sport=40000, dport=80, flags=flags)
        / (b"x" * (length - 40))
    )
