"""What `lbctl capture` gets of packets: both ends of each, its verdict, and only those that were asked for."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from lbnode.capture import CaptureRequest
from lbnode.dataplane.xdp.capture.capturer import CONSTANTS
from lbnode.dataplane.xdp.capture.codec import CaptureRecord, Figures, pack
from lbnode.dataplane.xdp.interfaces import Interface
from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.libbpf import RingBuffer
from lbnode.dataplane.xdp.vlans import Vlans
from lbnode.model import ServiceId
from tests.packets.bench import Bench, Machine
from tests.packets.traffic import answer, ether, ip, tcp, udp
from tests.packets.wire import CLIENT, VIP, VIP6, Wire

pytestmark = pytest.mark.root
WEB = ServiceId.parse(f"tcp:{VIP}:80")
DNS = ServiceId.parse(f"udp:{VIP}:53")


@pytest.fixture(scope="module")
def taking() -> Iterator[Machine]:
    machine = Machine(constants=CONSTANTS, captured=1 << 20)
    yield machine
    machine.close()


@pytest.fixture
def ring(taking: Machine) -> Iterator[RingBuffer]:
    ring = RingBuffer(taking.maps["captured"].fd)
    ring.take()
    yield ring
    ring.close()


@pytest.fixture
def bench(taking: Machine, wire: Wire, entry: str) -> Bench:
    bench = Bench(taking, wire, entry)
    bench.server(bench.service(str(WEB)))
    bench.service(str(DNS))
    wanted(bench)
    return bench


def wanted(bench: Bench, request: CaptureRequest | None = None, seconds: float = 60.0, **fields: Any) -> None:
    """`fields`: of CaptureRequest."""
    request = request or replace(CaptureRequest(snap=2048), **fields)
    index = bench.tables.services[request.service].entry.index if request.service else 0
    until = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 1e9)
    bench.maps["capture"].put_index(0, pack(request, index, until))


def figures(bench: Bench) -> Figures:
    return Figures.unpack(bench.maps["capture"].get_index(0))


def taken(ring: RingBuffer) -> list[CaptureRecord]:
    return [CaptureRecord.unpack(one) for one in ring.take()]


def test_both_ends_of_a_packet_to_a_server_and_of_its_reply(bench: Bench, ring: RingBuffer) -> None:
    for packet, interface, far, verdict in (
        (tcp(flags="S", data=b"x" * 700), "front", "back", "to-server"),
        (answer(bench.connect(41000).ip), "back", "front", "to-client"),
    ):
        ring.take()
        frame = ether(packet, target=bench.wire.mac(interface))
        out = bench.send(frame, interface)
        came, left = taken(ring)
        assert (came.frame, came.leaves, came.ifindex) == (frame, False, bench.wire.index(interface))
        assert (left.frame, left.leaves, left.ifindex) == (out.frame, True, bench.wire.index(far))
        assert came.verdict == left.verdict == verdict and came.time_ns == left.time_ns
        assert {came.server, left.server} == {one.index for one in bench.tables.services[WEB].servers.values()}


def test_what_is_dropped_has_its_reason_and_the_answer_to_its_sender(bench: Bench, ring: RingBuffer) -> None:
    bench.send(udp())
    came, left = taken(ring)
    assert (came.verdict, came.event) == ("dropped", Event.DROP_NO_SERVER)
    assert left.leaves and ICMP in Ether(left.frame) and left.ifindex == came.ifindex
    bench.send(tcp(flags="A", ttl=1, port=40777))  # no connection of it: the stack answers
    (passed,) = taken(ring)
    assert (passed.verdict, passed.event) == ("passed", Event.NO_CONNECTION)


def test_pings_are_answered_and_the_rest_is_passed(bench: Bench, ring: RingBuffer) -> None:
    bench.send(ip(CLIENT, VIP) / ICMP() / Raw(b"ping"))
    came, left = taken(ring)
    assert came.verdict == "answered" and Ether(left.frame)[ICMP].type == 0
    bench.send(bytes(Ether(dst=bench.wire.mac("front")) / ARP(pdst=VIP) / Raw(bytes(18))))
    assert [one.verdict for one in taken(ring)] == ["passed"]


def test_only_so_many_bytes(bench: Bench, ring: RingBuffer) -> None:
    wanted(bench, snap=60)
    frame = ether(tcp(flags="S", data=b"x" * 700), target=bench.wire.mac("front"))
    bench.send(frame)
    came, left = taken(ring)
    assert came.frame == frame[:60] and came.length == left.length == len(frame) and len(left.frame) == 60


def test_a_vlan_tag_is_there_as_it_came(taking: Machine, wire: Wire, ring: RingBuffer) -> None:
    bench = Bench(taking, wire, "xdp")  # at tcx the kernel has taken the tag off
    bench.server(bench.service(str(WEB)))
    wanted(bench)
    front = bench.wire.index("front")
    Vlans(bench.maps).update([Interface(4000, "vlan5", "vlan", "", True, True, bytes(6), 1500, 0, (front, 5))])
    frame = bytes(Ether(dst=bench.wire.mac("front")) / Dot1Q(vlan=5, prio=3) / tcp(flags="S"))
    bench.send(frame)
    came, left = taken(ring)
    assert (came.frame, came.length, came.ifindex) == (frame, len(frame), front)
    assert Dot1Q not in Ether(left.frame) and left.ifindex == bench.wire.index("back")


SERVER = ip_address("198.51.100.11")
TO_SERVER, NO_SERVER, PING, OTHER, V6 = range(5)  # what is sent below


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [TO_SERVER, NO_SERVER, PING, OTHER, V6]),
        ({"service": WEB}, [TO_SERVER]),
        ({"service": DNS}, [NO_SERVER]),
        ({"server": (SERVER, 0)}, [TO_SERVER]),
        ({"server": (SERVER, 80)}, [TO_SERVER]),
        ({"server": (SERVER, 81)}, []),
        ({"client": ip_network("203.0.113.0/29")}, [TO_SERVER, NO_SERVER, PING]),
        ({"client": ip_network("172.16.0.0/24")}, [OTHER]),
        ({"client": ip_network("2001:db8:c::/64")}, [V6]),
        ({"protocol": "tcp"}, [TO_SERVER, V6]),
        ({"protocol": "icmp"}, [PING]),
        ({"port": 53, "protocol": "udp"}, [NO_SERVER, OTHER]),
        ({"port": 40000, "protocol": "tcp"}, [TO_SERVER, V6]),
        ({"verdicts": frozenset({"dropped", "answered"})}, [NO_SERVER, PING]),
        ({"verdicts": frozenset({"passed"})}, [OTHER, V6]),
        ({"reason": "no-server"}, [NO_SERVER]),
        ({"reason": "ttl"}, []),
        ({"service": DNS, "verdicts": frozenset({"to-server"})}, []),
    ],
)
def test_only_what_was_asked_for(bench: Bench, ring: RingBuffer, fields: dict[str, Any], expected: list[int]) -> None:
    packets = [
        tcp(flags="S"),
        udp(),
        ip(CLIENT, VIP) / ICMP() / Raw(b"ping"),
        udp(client="172.16.0.9", vip="192.0.2.77"),
        tcp(flags="S", vip=VIP6),
    ]
    frames = [ether(packet, target=bench.wire.mac("front")) for packet in packets]
    wanted(bench, **fields)
    for frame in frames:
        bench.send(frame)
    assert [frames.index(one.frame) for one in taken(ring) if not one.leaves] == expected


def test_the_limits_end_it(bench: Bench, ring: RingBuffer) -> None:
    wanted(bench, count=3)
    for port in range(5):
        bench.send(tcp(41000 + port, "S"))
    assert len(taken(ring)) == 6 and figures(bench).over == 0
    wanted(bench, rate=2)
    for port in range(100):  # within two seconds, or the machine is too slow to say
        bench.send(tcp(42000 + port, "S"))
    found = figures(bench)
    assert len(taken(ring)) == 2 * found.taken and found.over + found.taken == 100 and found.over > 0
    wanted(bench, seconds=0)
    bench.send(tcp(43000, "S"))
    assert taken(ring) == []


def test_what_finds_no_room_is_counted(bench: Bench, ring: RingBuffer) -> None:
    wanted(bench, rate=10_000, count=100_000)
    frame = ether(tcp(flags="S", data=b"x" * 1400), target=bench.wire.mac("front"))
    sent = 500  # each twice: more than the ring holds
    for _ in range(sent):
        bench.send(frame, check="none")
    found = figures(bench)
    assert found.taken == sent and found.lost > 0 and len(taken(ring)) == 2 * sent - found.lost


def test_an_ordinary_program_takes_nothing(machine: Machine, wire: Wire) -> None:
    bench = Bench(machine, wire, "xdp")
    wanted(bench)
    bench.server(bench.service(str(WEB)))
    bench.connect()
    assert figures(bench) == Figures(0, 0, 0)
    state = bench.maps["capture_state"].get_index(0)
    assert struct.unpack_from("=II", state) == (0, 0)
