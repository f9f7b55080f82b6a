"""SCTP (RFC 9260): ports, the CRC32c that a changed port changes, states."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, fragment
from scapy.layers.sctp import (
    SCTP,
    SCTPChunkAbort,
    SCTPChunkCookieAck,
    SCTPChunkCookieEcho,
    SCTPChunkData,
    SCTPChunkInit,
    SCTPChunkInitAck,
    SCTPChunkShutdown,
    SCTPChunkShutdownAck,
    SCTPChunkShutdownComplete,
)
from scapy.packet import Packet

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import ServiceId
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, Bench, Machine
from tests.packets.traffic import client_of, ether, fragment6, ip
from tests.packets.wire import CLIENT, SERVER6, VIP, VIP6, Wire

pytestmark = pytest.mark.root
SERVERS = {VIP: "198.51.100.11", VIP6: SERVER6}


def service(bench: Bench, vip: str = VIP, port: int = 5000, forward: str = MASQUERADE) -> ServiceId:
    text, server = ((f"[{one}]" if ":" in one else one) for one in (vip, SERVERS[vip]))
    service_id = bench.service(f"sctp:{text}:80")
    bench.server(service_id, f"{server}:{port}", forward)
    return service_id


def sctp(chunk: Packet, vip: str = VIP, port: int = 40000, **fields: Any) -> Packet:
    head = ip(client_of(vip), vip, **fields)
    return type(head)(bytes(head / SCTP(sport=port, dport=80, tag=77) / chunk))


def reply(packet: Packet, chunk: Packet) -> Packet:
    ports = {"sport": packet[SCTP].dport, "dport": packet[SCTP].sport}
    head = ip(packet.dst, packet.src)
    return type(head)(bytes(head / SCTP(**ports, tag=78) / chunk))


@pytest.mark.parametrize("vip", [VIP, VIP6])
@pytest.mark.parametrize("size", [1, 2, 3, 64, 100, 1000, 1400])
def test_masquerade_mends_the_crc(bench: Bench, vip: str, size: int) -> None:
    """The bench looks at the CRC of every packet that is sent."""
    service(bench, vip)
    out = bench.send(sctp(SCTPChunkInit(), vip))
    assert (out.verdict, out.ip.dst, out.ip[SCTP].dport) == ("send", SERVERS[vip], 5000)
    back = bench.send(reply(out.ip, SCTPChunkInitAck()), "back")
    assert (back.verdict, back.ip.src, back.ip[SCTP].sport) == ("send", vip, 80)
    data = bytes(n % 251 for n in range(size))
    out = bench.send(sctp(SCTPChunkData(data=data), vip))
    assert (out.verdict, bytes(out.ip[SCTPChunkData].data)) == ("send", data)
    assert bench.send(reply(out.ip, SCTPChunkData(data=data)), "back").verdict == "send"


@pytest.mark.parametrize("vip", [VIP, VIP6])
@pytest.mark.parametrize("forward", [DIRECT, TUNNEL])
def test_other_methods(bench: Bench, vip: str, forward: str) -> None:
    service(bench, vip, 80, forward)
    packet = sctp(SCTPChunkInit(), vip)
    out = bench.send(packet)
    inner = out.ip.payload if forward is TUNNEL else out.ip
    assert out.verdict == "send" and bytes(inner.payload) == bytes(packet.payload)


def test_an_association_opens_and_closes(bench: Bench) -> None:
    service(bench)
    assert bench.send(sctp(SCTPChunkData(data=b"x"))).verdict == "pass", "an association begins with INIT"
    assert bench.events() == {Event.NO_CONNECTION: 1}
    states = []
    packet = bench.send(sctp(SCTPChunkInit())).ip
    states.append(bench.record().state.name)
    for inward, chunk in (
        (False, SCTPChunkInitAck()),
        (True, SCTPChunkCookieEcho()),
        (False, SCTPChunkCookieAck()),
        (True, SCTPChunkData(data=b"x")),
        (True, SCTPChunkShutdown()),
        (False, SCTPChunkShutdownAck()),
        (True, SCTPChunkShutdownComplete()),
    ):
        out = bench.send(sctp(chunk)) if inward else bench.send(reply(packet, chunk), "back")
        assert out.verdict == "send"
        states.append(bench.record().state.name)
    assert states == ["SYN_RECV", "SYN_RECV", *["ESTABLISHED"] * 3, "CLOSE_WAIT", "TIME_WAIT", "CLOSE"]
    assert bench.gauges() == (0, 1) and bench.advance(11) == 1


def test_abort_closes(bench: Bench) -> None:
    service(bench)
    bench.send(sctp(SCTPChunkInit()))
    bench.send(sctp(SCTPChunkCookieEcho()))
    bench.send(sctp(SCTPChunkAbort()))
    assert bench.record().state.name == "CLOSE"


def test_error_about_what_the_server_got(bench: Bench) -> None:
    service(bench)
    original = sctp(SCTPChunkInit())
    got = bench.send(original).ip
    out = bench.send(IP(src="198.51.100.11", dst=CLIENT) / ICMP(type=3, code=2) / bytes(got)[:28], "back")
    inner = bytes(out.ip[ICMP].payload)
    assert (out.verdict, out.ip.src, inner[12:20], inner[20:28]) == (
        "send", VIP, bytes(original)[12:20], bytes(original)[20:28]
    )  # fmt: skip


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_too_short_is_malformed(bench: Bench, vip: str) -> None:
    service(bench, vip)
    head = ip(client_of(vip), vip)
    if ":" in vip:
        head.nh = 132
    else:
        head.proto = 132
    assert bench.send(head / bytes(15)).verdict == "drop" and bench.events() == {Event.DROP_L4_HEADER: 1}


def test_connections_go_to_a_peer(bench: Bench, peer: Bench) -> None:
    for node in (bench, peer):
        service(node)
    bench.send(sctp(SCTPChunkInit()))
    bench.send(sctp(SCTPChunkCookieEcho()))
    peer.merge(bench.export())
    assert [(one.inward.protocol, one.state.name) for one in peer.records()] == [("sctp", "ESTABLISHED")]
    assert peer.send(sctp(SCTPChunkData(data=b"x"))).verdict == "send"


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_a_first_fragment_with_another_port_is_dropped(bench: Bench, vip: str) -> None:
    """Its CRC covers what is not there. With the same port nothing in it changes."""
    service(bench, vip)
    packet = sctp(SCTPChunkInit() / SCTPChunkData(data=bytes(200)), vip)
    first, *_ = fragment6(packet, 104) if vip == VIP6 else fragment(packet, 104)
    assert bench.send(first).verdict == "drop" and bench.events() == {Event.DROP_ERROR: 1}


GSO_BY_FRAGS = 0xFFFF  # in place of a segment's size


def bundle(vip: str, mac: str) -> tuple[bytes, int]:
    """A frame as Linux makes it where no wire follows: of several packets, its CRC left out until it is cut. And where
    that is."""
    packet = sctp(SCTPChunkData(data=bytes(2000)), vip)
    frame = bytearray(ether(packet, target=mac))
    at = len(frame) - len(bytes(packet[SCTP])) + 8
    frame[at : at + 4] = bytes(4)
    return bytes(frame), at


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_a_bundle_passes_without_its_crc(machine: Machine, wire: Wire, vip: str) -> None:
    bench = Bench(machine, wire, "tc")
    service(bench, vip)
    bench.send(sctp(SCTPChunkInit(), vip))
    frame, at = bundle(vip, wire.mac("front"))
    out = bench.send(frame, check="ip", segment=GSO_BY_FRAGS)
    assert (out.verdict, out.ip.dst, out.ip[SCTP].dport) == ("send", SERVERS[vip], 5000)
    assert out.frame[at : at + 4] == bytes(4)


def test_a_bundle_has_no_way_into_a_tunnel(machine: Machine, wire: Wire) -> None:
    bench = Bench(machine, wire, "tc")
    service(bench, port=80, forward=TUNNEL)
    bench.send(sctp(SCTPChunkInit()))
    assert bench.send(bundle(VIP, wire.mac("front"))[0], segment=GSO_BY_FRAGS).verdict == "drop"
    assert bench.events() == {Event.DROP_BUNDLE: 1}
