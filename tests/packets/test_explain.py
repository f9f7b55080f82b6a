"""explain: the decision that it names is the one that the live program then takes, and asking changes nothing."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP

from lbnode.dataplane.xdp.explain import probe
from lbnode.dataplane.xdp.explain.explainer import Arrival, rehearse, tell
from lbnode.dataplane.xdp.interfaces import Interface
from lbnode.dataplane.xdp.plane import OBJECT
from lbnode.dataplane.xdp.vlans import Vlans
from lbnode.explanation import MAX_LENGTH, Explanation, NextHop, Question
from lbnode.model import Access, ConnectionRate, ForwardingMethod, OwnTimeouts, Timeouts, Tunnel, TunnelType
from tests.packets.bench import DIRECT, FULLNAT, MASQUERADE, TUNNEL, Bench
from tests.packets.checksums import wrong_checksums
from tests.packets.traffic import tcp, udp
from tests.packets.wire import CLIENT, CLIENT6, CLIENT_ROUTER_MAC, LOCAL, SERVER6, SERVER_MAC, VIP, VIP6

pytestmark = pytest.mark.root

# All that a packet could change; the programs' working memory, which holds the last packet anyway, aside.
STATE = (
    *(
        "conns",
        "replies",
        "gauges",
        "half_open",
        "groups",
        "cursors",
        "clock",
        "affinity",
        "fragments",
        "changed",
        "changed_ends",
    ),
    *(
        "events",
        "server_stats",
        "service_stats",
        "admissions",
        "services",
        "servers",
        "slots",
        "leases",
        "config",
        "vips",
        "leased",
        "pools",
        "claims",
    ),
)


def state(bench: Bench) -> dict[str, list[tuple[bytes, bytes]]]:
    return {name: list(bench.maps[name].batches()) for name in STATE}


def ask(bench: Bench, protocol: str, source: str, target: str, *, interface: str = "front", mark: int = 0,
        length: int = 0) -> Explanation:  # fmt: skip
    """As `lbctl explain` does; whatever the answer, the live maps are byte for byte what they were."""
    question = Question.parse(protocol, source, target, interface, mark, length)
    links = [
        Interface(index, name, "veth", "", True, True, bytes.fromhex(mac.replace(":", "")), 1500, 0)
        for name, (index, mac) in bench.wire.interfaces.items()
    ]
    link = next(one for one in links if one.name == interface)
    at = Arrival(interface, "xdp" if bench.entry == "xdp" else "tcx", link.index, link.mac)
    return answer(bench, question, at, links)


def answer(bench: Bench, question: Question, at: Arrival, links: list[Interface]) -> Explanation:
    before = state(bench)
    with bench.wire.inside():
        done = rehearse(OBJECT, bench.maps, question, at)
    told = tell(bench.maps, bench.tables, question, at, done, links)
    assert state(bench) == before
    return told


def ask_tcp(bench: Bench, port: int = 40000, length: int = 0) -> Explanation:
    return ask(bench, "tcp", f"{CLIENT}:{port}", f"{VIP}:80", length=length)


@pytest.mark.parametrize("entry", ["xdp"])
@pytest.mark.parametrize(
    "scheduler", ["rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "mh", "dh", "fo", "ovf", "lblc", "lblcr"]
)
def test_it_names_the_server_that_the_next_connection_gets(bench: Bench, scheduler: str) -> None:
    service = bench.service(scheduler=scheduler)
    for last in range(11, 15):
        bench.server(service, f"198.51.100.{last}:80", weight=last % 3 + 1)
    for port in range(40000, 40005):
        bench.connect(port)
    told = ask_tcp(bench, 40005)
    assert (told.verdict, told.reason, told.scheduler) == ("to-server", "new-connection", scheduler)
    assert told.service == str(service) and told.packet == "TCP SYN" and told.connection == "new, SYN_RECV"
    assert sum(one.active for one in told.candidates) == 5
    out = bench.connect(40005)
    assert told.server == f"{out.ip.dst}:80"
    assert told.after[1].startswith(f"IPv4 {CLIENT} -> {out.ip.dst}, TTL 63")
    assert told.next_hop == NextHop("back", "", SERVER_MAC)


def test_a_tracked_connection_and_its_reply(bench: Bench) -> None:
    service = bench.service()
    bench.server(service)
    bench.server(service, "198.51.100.12:80")
    at_server = bench.establish(40000)
    told = ask_tcp(bench)
    assert (told.verdict, told.reason, told.packet) == ("to-server", "connection", "TCP ACK")
    assert told.server == f"{at_server.dst}:80" and told.connection.startswith(
        "in the table: ESTABLISHED, expires in 900 s"
    )
    assert told.candidates == ()  # nothing was scheduled
    reply = ask(bench, "tcp", told.server, f"{CLIENT}:40000", interface="back")
    assert (reply.verdict, reply.reason, reply.service) == ("to-client", "reply", str(service))
    assert reply.after[1].startswith(f"IPv4 {VIP} -> {CLIENT}, TTL 63")
    assert reply.next_hop == NextHop("front", "", CLIENT_ROUTER_MAC)


def test_full_nat_shows_both_ends(bench: Bench) -> None:
    bench.server(bench.service(), "198.51.100.11:8080", FULLNAT, toa=True)
    told = ask_tcp(bench)
    assert (told.verdict, told.reason, told.forward) == ("to-server", "new-connection", "fullnat")
    assert told.after[1].startswith(f"IPv4 {LOCAL} -> 198.51.100.11, TTL 63")
    toa, mss = f", TOA {CLIENT}:40000", ", MSS 1460"
    assert told.after[2].endswith((f"-> 8080, SYN{toa}{mss}", f"-> 8080, SYN{mss}{toa}"))
    port = bench.establish(40000)[TCP].sport
    reply = ask(bench, "tcp", "198.51.100.11:8080", f"{LOCAL}:{port}", interface="back")
    assert (reply.verdict, reply.next_hop) == ("to-client", NextHop("front", "", CLIENT_ROUTER_MAC))
    assert reply.after[1:] == (f"IPv4 {VIP} -> {CLIENT}, TTL 63, 40 bytes", "TCP port 80 -> 40000, ACK")


@pytest.mark.parametrize(("vip", "client", "real", "before"), [
    (VIP, CLIENT, "198.51.100.11:80", 1460), (f"[{VIP6}]", f"[{CLIENT6}]", f"[{SERVER6}]:80", 1440)
])  # fmt: skip
@pytest.mark.parametrize("forward", [MASQUERADE, TUNNEL])
def test_mss_clamping_shows(
    bench: Bench, vip: str, client: str, real: str, before: int, forward: ForwardingMethod
) -> None:
    service = bench.service(f"tcp:{vip}:80", mss=1300)
    bench.server(service, real, forward)
    told = ask(bench, "tcp", f"{client}:40000", f"{vip}:80")
    assert told.before[-1].endswith(f", SYN, MSS {before}") and told.after[-1].endswith(", SYN, MSS 1300")
    assert told.text.endswith(f"; its MSS of {before} becomes the service's `mss`, 1300")
    bench.service(f"tcp:{vip}:80", mss=before)
    told = ask(bench, "tcp", f"{client}:40000", f"{vip}:80")
    assert told.after[-1].endswith(f", MSS {before}") and "mss" not in told.text


@pytest.mark.parametrize("entry", ["xdp"])
def test_an_entry_whose_time_is_over_counts_for_nothing(bench: Bench) -> None:
    service = bench.service()
    bench.server(service)
    bench.establish(40000)
    bench.configure(timeouts=Timeouts(tcp_s=1))
    bench.now_ms += 5000
    bench.maps["clock"].put_index(0, struct.pack("=II", bench.now_ms, 0))  # no pass of the sweeper yet
    told = ask_tcp(bench)
    assert (told.reason, told.packet) == ("new-connection", "TCP SYN")


@pytest.mark.parametrize("entry", ["xdp"])
def test_it_tells_the_services_own_time(bench: Bench) -> None:
    service = bench.service(timeouts=OwnTimeouts(tcp_s=5000))
    bench.server(service)
    bench.establish(40000)
    bench.now_ms += 1_000_000  # more than the cluster's
    bench.maps["clock"].put_index(0, struct.pack("=II", bench.now_ms, 0))
    told = ask_tcp(bench)
    assert told.reason == "connection"
    assert told.connection == "in the table: ESTABLISHED, expires in 4000 s without packets"


def test_nothing_serves_it(bench: Bench) -> None:
    service = bench.service()
    bench.server(service)
    other_port = ask(bench, "tcp", f"{CLIENT}:40000", f"{VIP}:81")
    assert (other_port.verdict, other_port.reason, other_port.after) == ("passed", "no-service", ())
    assert "tcp:192.0.2.10:80" in other_port.text
    no_reply = ask(bench, "tcp", "198.51.100.11:80", f"{CLIENT}:9", interface="back")
    assert (no_reply.verdict, no_reply.reason) == ("passed", "not-a-vip")
    assert "is a server of tcp:192.0.2.10:80" in no_reply.notes[0]


def test_no_server_takes_it(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, weight=0)
    bench.server(service, "198.51.100.12:80", upper=1)
    bench.connect(39999)
    told = ask_tcp(bench)
    assert (told.verdict, told.reason, told.server) == ("dropped", "overloaded", "")
    assert told.answer[-1] == "ICMP port unreachable" and told.after == ()
    assert [one.why_not.split(":")[0] for one in told.candidates] == ["weight 0", "overloaded"]
    bench.server(service, "198.51.100.12:80", weight=0)
    assert ask_tcp(bench).reason == "no-server"
    bench.server(service, "198.51.100.12:80", upper=2)
    told = ask_tcp(bench, length=MAX_LENGTH)  # more than its next hop takes
    assert (told.reason, told.server, told.candidates[1].why_not) == ("too-big", "198.51.100.12:80", "")


@pytest.mark.parametrize("entry", ["xdp"])
def test_a_choice_by_chance_says_so(bench: Bench) -> None:
    service = bench.service(scheduler="twos")
    servers = [str(bench.server(service, f"198.51.100.{last}:80")) for last in (11, 12)]
    told = ask_tcp(bench)
    assert told.server in servers and "random" in told.notes[0]


@pytest.mark.parametrize("entry", ["xdp"])
def test_a_vlan_at_xdp(bench: Bench) -> None:
    bench.server(bench.service())
    lower = bench.wire.index("front")
    Vlans(bench.maps).update([Interface(4000, "front.5", "vlan", "", True, True, bytes(6), 1500, 0, (lower, 5))])
    mac = bytes.fromhex(bench.wire.mac("front").replace(":", ""))
    question = Question.parse("tcp", f"{CLIENT}:40000", f"{VIP}:80", "front.5", 0, 0)
    told = answer(bench, question, Arrival("front.5", "xdp", lower, mac, 5), [])
    assert (told.verdict, told.interface) == ("to-server", "front.5")
    assert told.before[0].endswith("VLAN 5") and "VLAN" not in told.after[0]


@pytest.mark.parametrize("entry", ["tc"])
def test_the_lease_has_ended(bench: Bench) -> None:
    service = bench.service()
    bench.server(service)
    bench.tables.set_leases({"web": [ip_address(VIP)]})
    told = ask_tcp(bench)
    assert (told.verdict, told.reason, told.service) == ("dropped", "no-lease", str(service))
    assert "VIP group web" in told.text
    bench.maps["leases"].put_index(bench.tables.leases.groups["web"], struct.pack("=Q", 1 << 63))
    assert ask_tcp(bench).verdict == "to-server"


@pytest.mark.parametrize(
    ("tunnel", "names"),
    [
        (Tunnel(), ["IPv4 198.51.100.1 -> 198.51.100.11", f"IPv4 {CLIENT} -> {VIP}", "TCP"]),
        (Tunnel(TunnelType.GRE), ["IPv4 198.51.100.1 -> 198.51.100.11", "GRE", f"IPv4 {CLIENT} -> {VIP}", "TCP"]),
        (Tunnel(TunnelType.GUE, 6080), ["IPv4 198.51.100.1", "UDP port", "GUE", f"IPv4 {CLIENT} -> {VIP}", "TCP"]),
    ],
)
@pytest.mark.parametrize("entry", ["xdp"])
def test_a_tunnel_and_what_does_not_fit_through_it(bench: Bench, tunnel: Tunnel, names: list[str]) -> None:
    service = bench.service()
    bench.server(service, forward=TUNNEL, tunnel=tunnel)
    told = ask_tcp(bench)
    assert (told.verdict, told.forward) == ("to-server", f"tunnel ({tunnel.type})")
    assert len(told.after) == len(names) + 1
    for line, name in zip(told.after[1:], names, strict=True):
        assert line.startswith(name)
    if tunnel.type is TunnelType.IPIP:
        told = ask_tcp(bench, length=MAX_LENGTH)
        assert (told.verdict, told.reason) == ("dropped", "too-big")
        assert "1500 bytes, of which 20" in told.text and told.answer[-1] == "ICMP fragmentation needed"


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_ipv6(bench: Bench, protocol: str) -> None:
    service = bench.service(f"{protocol}:[{VIP6}]:80")
    bench.server(service, f"[{SERVER6}]:8080")
    told = ask(bench, protocol, f"[{CLIENT6}]:40000", f"[{VIP6}]:80")
    assert (told.verdict, told.server, told.service) == ("to-server", f"[{SERVER6}]:8080", str(service))
    assert told.after[1].startswith(f"IPv6 {CLIENT6} -> {SERVER6}, hop limit 63")
    assert told.after[2].startswith(f"{protocol.upper()} port 40000 -> 8080")
    assert bench.send(udp(vip=VIP6, dport=80) if protocol == "udp" else tcp(vip=VIP6)).verdict != "drop"
    if protocol != "sctp":
        told = ask(bench, protocol, f"[{CLIENT6}]:40000", f"[{VIP6}]:80")
        assert told.reason == "connection"
        told = ask(bench, protocol, f"[{SERVER6}]:8080", f"[{CLIENT6}]:40000", interface="back")
        assert told.reason == "reply" and told.after[1].startswith(f"IPv6 {VIP6} -> {CLIENT6}")


def test_the_next_hop_is_not_resolved(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.77:80", hop=False)
    told = ask_tcp(bench)
    assert (told.verdict, told.server, told.next_hop) == ("to-server", "198.51.100.77:80", NextHop("", "", ""))
    assert "not resolved" in told.text


@pytest.mark.parametrize("entry", ["tc"])
def test_a_firewall_mark_and_a_persistent_client(bench: Bench) -> None:
    service = bench.service("fwmark:7", persistent_s=300)
    bench.server(service)
    bench.server(service, "198.51.100.12:80")
    told = ask(bench, "udp", f"{CLIENT}:40000", f"{VIP}:53", mark=7)
    assert (told.service, told.reason) == ("fwmark:7", "new-connection") and "a new one" in told.connection
    first = bench.send(udp(40001), mark=7).ip.dst
    told = ask(bench, "udp", f"{CLIENT}:40002", f"{VIP}:53", mark=7)
    assert told.server.startswith(first) and "persistence keeps" in told.text and "that is there" in told.connection


@pytest.mark.parametrize("entry", ["xdp"])
def test_direct_routing_and_a_deleted_server(bench: Bench) -> None:
    service = bench.service()
    server = bench.server(service, forward=DIRECT)
    told = ask_tcp(bench)
    assert told.forward == "direct" and told.after[1].startswith(f"IPv4 {CLIENT} -> {VIP}, TTL 63")
    bench.connect(40000)
    bench.remove(service, server)
    told = ask_tcp(bench)
    assert (told.verdict, told.reason, told.service) == ("dropped", "server-gone", str(service))


def test_packets_that_are_asked_about_are_whole() -> None:
    for protocol, layer in (("tcp", TCP), ("udp", UDP), ("sctp", SCTP)):
        for source, target in (("198.51.100.7:40000", f"{VIP}:80"), ("[2001:db8::7]:40000", f"[{VIP6}]:80")):
            for length in (0, 101, 1500):
                question = Question.parse(protocol, source, target, "", 0, length)
                for known in (False, True):
                    frame = probe.frame(question, bytes(6), known=known, vlan=5)
                    assert wrong_checksums(frame[18:]) == []
                    packet = Ether(frame)
                    assert packet[Dot1Q].vlan == 5 and packet[layer].sport == 40000 and packet[layer].dport == 80
                    if length and protocol != "sctp":
                        assert len(frame) - 18 == length


def test_a_service_under_a_syn_flood_answers_by_cookie(bench: Bench) -> None:
    service = bench.service(syn_proxy=1)
    bench.server(service)
    assert ask(bench, "tcp", f"{CLIENT}:40000", f"{VIP}:80").verdict == "to-server"
    bench.connect(40001)
    told = ask(bench, "tcp", f"{CLIENT}:40000", f"{VIP}:80")
    assert (told.verdict, told.reason, told.server) == ("answered", "syn-cookie", "")
    assert told.text.startswith(f"1 or more connections of tcp:{VIP}:80 are half-open")
    assert "TCP port 80 -> 40000, SYN ACK" in told.answer[-1]


def test_lists_and_rates_say_whom_they_keep_out(bench: Bench) -> None:
    """The rehearsal shares the lists, and has a copy of the buckets."""
    denied = Access(deny=frozenset({ip_network("203.0.113.5/32")}))
    service = bench.service(access=denied)
    bench.server(service)
    told = ask_tcp(bench)
    assert (told.verdict, told.reason, told.service) == ("dropped", "denied", str(service))
    assert told.text.startswith(f"{CLIENT} may open no connection to {service}")
    bench.service(access=Access(rate=ConnectionRate(1, 1, 32)))
    assert ask_tcp(bench).verdict == ask_tcp(bench).verdict == "to-server"
    bench.connect(40001)
    told = ask_tcp(bench)
    assert (told.verdict, told.reason) == ("dropped", "rate") and "`new_connections`" in told.text
