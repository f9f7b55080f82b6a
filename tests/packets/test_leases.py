"""Addresses under a lease: served while it runs, dark from its end on, whoever has died. Time is the kernel's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.counts import unpack_event
from lbnode.dataplane.xdp.layout import LEASE_OF_TARGET, LEASES_MAX, Event, Server
from lbnode.dataplane.xdp.leases import Leases
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.plane import OBJECT
from lbnode.election.lease import LeaseMap
from lbnode.errors import DataPlaneError
from lbnode.model import ForwardingMethod
from tests.packets.bench import DIRECT, Bench, Machine
from tests.packets.traffic import answer, ether, tcp
from tests.packets.wire import CLIENT, VIP, Wire

pytestmark = pytest.mark.root
LEASE_DROPS = (Event.DROP_NO_LEASE, Event.DROP_SOLICITATION, Event.DROP_CLAIM)
VIP6 = "2001:db8::10"
CLIENT6 = "2001:db8:1::5"
OTHER = "192.0.2.77"
BROADCAST, MULTICAST = "ff:ff:ff:ff:ff:ff", "33:33:ff:00:00:10"
FRONT = {"front": frozenset(map(ip_address, (VIP, VIP6)))}
HOUR = 3600 * 10**9


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Guarded:
    """A bench whose VIP has a lease."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.bench.tables.leases.__init__(bench.maps)  # type: ignore[misc]  # the bench wiped the maps
        self.lease = bench.tables.set_leases(FRONT)["front"]
        self._map = LeaseMap(bench.tables.leases.map_fd)

    def serve(self) -> None:
        self._map.set(self.lease, now() + HOUR)

    def darken(self) -> None:
        self._map.set(self.lease, 0)

    def verdict(self, packet: Packet, to: str = "") -> str:
        frame = ether(packet, target=to or self.bench.wire.mac("front"))
        return self.bench.send(frame, check="none").verdict

    def drops(self) -> dict[Event, int]:
        return {event: count for event, count in self.bench.events().items() if event in LEASE_DROPS}


@pytest.fixture
def guarded(bench: Bench) -> Guarded:
    return Guarded(bench)


def arp(target: str, sender: str = CLIENT, operation: int = 1) -> Packet:
    return ARP(op=operation, hwsrc="02:00:00:00:00:99", psrc=sender, pdst=target)


SOLICITATION = IPv6(src="fe80::5", dst="ff02::1:ff00:10", hlim=255) / ICMPv6ND_NS(tgt=VIP6)
QUESTIONS = {
    "who has": (arp(VIP), BROADCAST),
    "who has, asked of this node alone": (arp(VIP), ""),
    "is it free (RFC 5227)": (arp(VIP, "0.0.0.0"), BROADCAST),
    "neighbour solicitation": (SOLICITATION, MULTICAST),
    "neighbour solicitation, asked of this node alone": (SOLICITATION, ""),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_who_asks_for_the_address_gets_no_answer_without_lease(guarded: Guarded, question: str) -> None:
    packet, to = QUESTIONS[question]
    assert guarded.verdict(packet, to) == "drop"
    assert guarded.drops() == {Event.DROP_SOLICITATION: 1}
    guarded.serve()
    assert guarded.verdict(packet, to) == "pass"  # the network stack answers
    guarded.darken()
    assert guarded.verdict(packet, to) == "drop"


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(arp(OTHER), id="another address"),
        pytest.param(arp(VIP, VIP), id="announcement of the node that serves now"),
        pytest.param(arp(CLIENT, VIP, operation=2), id="its answer"),
        pytest.param(IPv6(src="fe80::5", dst=CLIENT6) / ICMPv6ND_NS(tgt=CLIENT6), id="another IPv6 address"),
        pytest.param(IPv6(src=VIP6, dst="ff02::1") / ICMPv6ND_NA(tgt=VIP6), id="IPv6 announcement"),
        pytest.param(IP(src=CLIENT, dst=OTHER) / ICMP(), id="packet to another address"),
        pytest.param(IPv6(src=CLIENT6, dst=CLIENT6) / ICMPv6EchoRequest(), id="IPv6 packet to another address"),
    ],
)
@pytest.mark.parametrize("to", [BROADCAST, ""])
def test_what_is_not_about_the_address_passes_without_lease(guarded: Guarded, packet: Packet, to: str) -> None:
    assert guarded.verdict(packet, to) == "pass"
    assert guarded.drops() == {}


def test_a_question_that_is_cut_short_is_no_question(guarded: Guarded) -> None:
    for packet, shortest in ((arp(VIP), 15), (SOLICITATION, 14 + 40)):  # BPF_PROG_TEST_RUN takes no shorter ones
        frame = ether(packet, target=BROADCAST)
        for length in range(shortest, len(frame)):
            assert guarded.bench.send(frame[:length], check="none").verdict == "pass", length
    assert guarded.drops() == {}


@pytest.mark.parametrize("method", list(ForwardingMethod)[:3])
def test_connections_are_served_only_under_the_lease(guarded: Guarded, method: ForwardingMethod) -> None:
    bench = guarded.bench
    bench.server(bench.service(), "198.51.100.11:80", method)
    assert guarded.verdict(tcp()) == "drop"
    assert bench.records() == [] and guarded.drops() == {Event.DROP_NO_LEASE: 1}
    guarded.serve()
    bench.establish()
    packets = bench.counters(next(iter(bench.tables.services))).packets_in
    guarded.darken()
    for packet in (tcp(flags="A"), tcp(flags="A", data=b"more"), tcp(40001, "S"), tcp(40002, "A")):
        assert guarded.verdict(packet) == "drop"
    assert bench.counters(next(iter(bench.tables.services))).packets_in == packets
    assert guarded.drops() == {Event.DROP_NO_LEASE: 5}
    guarded.serve()
    assert bench.send(tcp(flags="A", data=b"more")).verdict == "send"


def test_what_a_server_answers_still_reaches_the_client(guarded: Guarded) -> None:
    """It was asked while the lease ran; the address in front of it is the one that the client asked."""
    bench = guarded.bench
    bench.server(bench.service(), "198.51.100.11:8080")
    guarded.serve()
    sent = bench.connect().ip
    guarded.darken()
    assert bench.send(answer(sent), "back").ip.src == VIP


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(IP(src=CLIENT, dst=VIP) / ICMP(), id="echo"),
        pytest.param(IP(src=CLIENT, dst=VIP, proto=47) / b"x", id="another protocol"),
        pytest.param(IP(src=CLIENT, dst=VIP, frag=100) / (b"x" * 8), id="fragment"),
        pytest.param(IP(src=CLIENT, dst=VIP, chksum=1) / ICMP(), id="malformed"),
        pytest.param(tcp(dport=22), id="no service there"),
        pytest.param(IPv6(src=CLIENT6, dst=VIP6) / ICMPv6EchoRequest(), id="IPv6"),
    ],
)
def test_nothing_to_the_address_reaches_this_node_without_lease(guarded: Guarded, packet: Packet) -> None:
    guarded.bench.service()
    assert guarded.verdict(packet) == "drop"
    assert guarded.drops() == {Event.DROP_NO_LEASE: 1}
    guarded.serve()
    guarded.verdict(packet)
    assert guarded.drops() == {Event.DROP_NO_LEASE: 1}


def test_a_lease_ends_by_itself_and_to_the_nanosecond(guarded: Guarded) -> None:
    """Nobody touches anything. A tick of the kernel takes 1 to 10 ms: whatever part of it has passed, no packet that
    comes after the end is served, and each one before."""
    bench = guarded.bench
    bench.server(bench.service(), "198.51.100.11:80", DIRECT)
    guarded.serve()
    bench.establish()
    mac = bench.wire.mac("front")
    question, segment = ether(arp(VIP), target=BROADCAST), ether(tcp(flags="A"), target=mac)
    for _ in range(20):
        end = now() + 3_000_000
        guarded._map.set(guarded.lease, end)
        before = 0
        while before < end:
            before = now()
            verdicts = [bench.send(frame, check="none").verdict for frame in (question, segment)]
            if now() < end:
                assert verdicts == ["pass", "send"]
        assert verdicts == ["drop", "drop"]


def test_addresses_of_no_group_need_no_lease(bench: Bench) -> None:
    guarded = Guarded(bench)
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    server = bench.tables.services[service].servers.copy().popitem()[1].index
    assert guarded.verdict(tcp()) == "drop"
    assert bench.tables.set_leases({}) == {}
    assert guarded.verdict(tcp()) == "send"
    assert Server.unpack(bench.maps["servers"].get_index(server)).lease == 0  # type: ignore[union-attr]
    bench.tables.set_leases(FRONT)
    assert guarded.verdict(tcp(flags="A")) == "drop"  # ... and of the connection, too


def test_a_server_behind_a_firewall_mark_asks_for_the_packets_address(guarded: Guarded) -> None:
    bench = guarded.bench
    assert bench.tables.leases.of(None) == LEASE_OF_TARGET
    service = bench.service()
    bench.server(service, "198.51.100.11:80", DIRECT)
    guarded.serve()
    bench.establish()
    index = bench.tables.services[service].servers.copy().popitem()[1].index
    entry = Server.unpack(bench.maps["servers"].get_index(index))
    assert entry is not None and entry.lease == guarded.lease
    bench.maps["servers"].put_index(index, _with_lease(entry, LEASE_OF_TARGET))
    assert bench.send(tcp(flags="A")).verdict == "send"
    guarded.darken()
    assert guarded.verdict(tcp(flags="A")) == "drop"


def _with_lease(server: Server, lease: int) -> bytes:
    return Server(**{**{name: getattr(server, name) for name in server.__slots__}, "lease": lease}).pack()


def test_groups_have_leases_of_their_own(guarded: Guarded) -> None:
    bench, other = guarded.bench, ip_address(OTHER)
    leases = bench.tables.set_leases({**FRONT, "other": {other}})
    assert leases["front"] == guarded.lease != leases["other"]
    guarded.serve()
    assert (guarded.verdict(arp(VIP)), guarded.verdict(arp(OTHER))) == ("pass", "drop")
    guarded.darken()
    guarded._map.set(leases["other"], now() + HOUR)
    assert (guarded.verdict(arp(VIP)), guarded.verdict(arp(OTHER))) == ("drop", "pass")


def test_a_restarted_daemon_finds_the_same_lease_and_a_new_group_begins_dark(guarded: Guarded) -> None:
    guarded.serve()
    maps = guarded.bench.maps
    again = Leases(maps)
    assert again.set_groups({"a": {ip_address(OTHER)}, **FRONT}) == {ip_address(OTHER)}
    assert again.groups["front"] == guarded.lease
    status = {one.group: one.remaining_s for one in again.status()}
    assert status["a"] is None and 3599 < (status["front"] or 0) <= 3600
    assert again.set_groups({"a": {ip_address(OTHER)}}) == FRONT["front"]
    assert guarded.verdict(arp(VIP)) == "pass"


def test_more_groups_than_leases_are_refused_by_number(guarded: Guarded) -> None:
    groups = {f"g{number}": frozenset({ip_address(number)}) for number in range(1, LEASES_MAX + 1)}
    with pytest.raises(DataPlaneError, match="leases for 1023 VIP groups"):
        guarded.bench.tables.set_leases(groups)
    assert guarded.verdict(arp(VIP)) == "drop"


@pytest.mark.parametrize(
    ("packet", "claims"),
    [
        pytest.param(arp(OTHER, VIP), True, id="asks in its name"),
        pytest.param(arp(VIP, VIP), True, id="announces it"),
        pytest.param(arp(CLIENT, VIP, operation=2), True, id="answers for it"),
        pytest.param(IPv6(src=VIP6, dst="ff02::1:ff00:5") / ICMPv6ND_NS(tgt=CLIENT6), True, id="asks, IPv6"),
        pytest.param(IPv6(src="fe80::1", dst=CLIENT6) / ICMPv6ND_NA(tgt=VIP6), True, id="answers, IPv6"),
        pytest.param(arp(VIP, OTHER), False, id="asks for it"),
        pytest.param(IPv6(src="fe80::1", dst="ff02::1:ff00:10") / ICMPv6ND_NS(tgt=VIP6), False, id="asks for it, IPv6"),
        pytest.param(IPv6(src="fe80::1", dst=CLIENT6) / ICMPv6ND_NA(tgt="fe80::1"), False, id="another answer, IPv6"),
        pytest.param(IP(src=VIP, dst=CLIENT) / ICMP(), False, id="packet from it"),
        pytest.param(IPv6(src=VIP6, dst=CLIENT6) / ICMPv6EchoRequest(), False, id="packet from it, IPv6"),
    ],
)
def test_the_network_stack_does_not_speak_in_the_name_of_the_address(
    machine: Machine, wire: Wire, packet: Packet, claims: bool
) -> None:
    guarded = Guarded(Bench(machine, wire, "tc"))

    def verdict() -> int:
        with wire.inside():
            context = bytes(36) + wire.index("front").to_bytes(4, "little") * 2
            return syscall.prog_test_run(machine.programs["tc_lease_out"], ether(packet), context=context).retval

    assert verdict() == (2 if claims else 0xFFFFFFFF)
    assert guarded.drops() == ({Event.DROP_CLAIM: 1} if claims else {})
    guarded.serve()
    assert verdict() == 0xFFFFFFFF


# --- the leases alone, before a data plane that knows none -----------------------------------------------------------


@pytest.fixture(scope="module")
def guard() -> Iterator[LoadedObject]:
    loaded = LoadedObject(OBJECT.with_name("lease.bpf.o"), pins=lambda name: None)
    yield loaded
    loaded.close()


def test_the_guard_of_an_ipvs_node_decides_as_the_balancer_does(
    guard: LoadedObject, wire: Wire, machine: Machine
) -> None:
    maps = {name: Map(fd) for name, fd in guard.maps.items()}
    leases = Leases(maps)
    leases.set_groups({})
    lease = LeaseMap(leases.map_fd)
    packets = [*QUESTIONS.values(), (tcp(), ""), (tcp(flags="A"), ""), (IPv6(dst=VIP6), ""), (tcp(vip=OTHER), "")]

    def verdicts() -> list[str]:
        names = {0xFFFFFFFF: "pass", 2: "drop"}
        with wire.inside():
            context = bytes(36) + wire.index("front").to_bytes(4, "little") * 2
            frames = [ether(packet, target=to or wire.mac("front")) for packet, to in packets]
            return [names[syscall.prog_test_run(guard.programs["tc_lease"], f, context=context).retval] for f in frames]

    assert set(verdicts()) == {"pass"}
    index = leases.set_groups(FRONT) and leases.groups["front"]
    assert verdicts() == ["drop"] * 8 + ["pass"]
    lease.set(index, now() + HOUR)
    assert set(verdicts()) == {"pass"}
    lease.set(index, 0)
    assert verdicts() == ["drop"] * 8 + ["pass"]
    counted = (Event.DROP_SOLICITATION, Event.DROP_NO_LEASE)
    assert [unpack_event(maps["events"].get_index(event)) for event in counted] == [10, 6]
