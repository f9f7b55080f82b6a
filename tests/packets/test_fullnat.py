"""Full NAT: the server talks to a local address of the gateway, the client to the VIP, and none to the other."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment
from scapy.layers.sctp import SCTP, SCTPChunkInit, SCTPChunkInitAck
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.records import MergeResult, unpack_records
from tests.packets.bench import FULLNAT, MASQUERADE, Bench
from tests.packets.fullnat import FAMILIES, FIRST_PORT, PORTS, SERVER, ends, full, sides
from tests.packets.traffic import answer, client_of, fragment6, ip, segment, tcp, udp
from tests.packets.wire import CLIENT_ROUTER_MAC, LOCAL, LOCAL6, SERVER6, SERVER_MAC, VIP, VIP6

pytestmark = pytest.mark.root


@FAMILIES
@pytest.mark.parametrize("data", [b"", b"x", b"seven b" * 100])
def test_tcp_both_directions(bench: Bench, vip: str, data: bytes) -> None:
    server, local = ends(vip)
    full(bench, vip)
    out = bench.send(tcp(40000, "S", vip=vip, data=data))
    assert (out.verdict, out.eth.src, out.eth.dst) == ("send", bench.wire.mac("back"), SERVER_MAC)
    source, target, local_port, port = sides(out.ip)
    assert (source, target, port) == (local, server, 8080) and FIRST_PORT <= local_port < FIRST_PORT + PORTS
    assert (out.ip[TCP].seq, bytes(out.ip[TCP].payload)) == (1000, data)
    assert (out.ip.hlim if ":" in vip else out.ip.ttl) == 63

    back = bench.send(answer(out.ip, data=data), "back")
    assert (back.verdict, back.eth.src, back.eth.dst) == ("send", bench.wire.mac("front"), CLIENT_ROUTER_MAC)
    assert sides(back.ip) == (vip, client_of(vip), 80, 40000)
    assert (back.ip.hlim if ":" in vip else back.ip.ttl) == 63
    assert bytes(back.ip[TCP].payload) == data
    again = bench.send(tcp(40000, "A", vip=vip))
    assert sides(again.ip) == sides(out.ip)
    assert bench.record().state is State.ESTABLISHED
    assert (str(bench.record().outward.target), bench.record().outward.target_port) == (local, local_port)


@FAMILIES
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1400])
def test_udp_of_every_parity(bench: Bench, vip: str, size: int) -> None:
    server, local = ends(vip)
    full(bench, vip, "udp", 53)
    out = bench.send(udp(1234, vip=vip, data=b"x" * size))
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip[UDP].dport) == ("send", local, server, 8080)
    back = bench.send(answer(out.ip, data=b"y" * size), "back")
    assert sides(back.ip) == (vip, client_of(vip), 53, 1234)


def test_udp_without_checksum_stays_without(bench: Bench) -> None:
    full(bench, protocol="udp", port=53)
    out = bench.send(IP(src=client_of(VIP), dst=VIP) / UDP(sport=1, dport=53, chksum=0) / b"data")
    assert (out.ip.src, out.ip[UDP].chksum) == (LOCAL, 0)


@FAMILIES
def test_sctp(bench: Bench, vip: str) -> None:
    server, local = ends(vip)
    full(bench, vip, "sctp", 9899)
    out = bench.send(ip(client_of(vip), vip) / SCTP(sport=5000, dport=9899) / SCTPChunkInit())
    assert (out.ip.src, out.ip.dst, out.ip[SCTP].dport) == (local, server, 8080)
    reply = ip(server, local) / SCTP(sport=8080, dport=out.ip[SCTP].sport) / SCTPChunkInitAck()
    assert sides(bench.send(reply, "back").ip) == (vip, client_of(vip), 9899, 5000)


def test_the_server_needs_no_route_to_the_client(bench: Bench) -> None:
    """Of what it sees, no byte of the IP and TCP header is the client's address."""
    full(bench)
    out = bench.send(tcp(client="172.16.0.9"))
    assert ip_address("172.16.0.9").packed not in out.frame


@FAMILIES
def test_next_hop_from_the_kernels_routes(bench: Bench, vip: str) -> None:
    full(bench, vip, hop=False)
    out = bench.send(tcp(vip=vip))
    assert (out.verdict, out.eth.dst, out.ip.src) == ("send", SERVER_MAC, ends(vip)[1])


def test_a_server_that_does_not_resolve(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, "198.51.100.77:8080", FULLNAT, hop=False)
    out = bench.send(tcp())
    assert out.handover if bench.entry == "xdp" else out.verdict == "send"
    assert bench.events() == {Event.NO_NEIGHBOUR: 1}


def test_segments_of_no_connection_are_not_scheduled(bench: Bench) -> None:
    """sh would lead a lost connection to its server again, but not by the same local port."""
    service = bench.service("tcp:192.0.2.10:80", "sh")
    bench.server(service, f"{SERVER}:8080", FULLNAT)
    assert bench.send(tcp(flags="A")).verdict == "pass"
    assert bench.events() == {Event.NO_CONNECTION: 1} and bench.records() == []


def test_masqueraded_connections_outlive_the_change_to_full_nat_and_back(bench: Bench) -> None:
    service = bench.service()
    bench.server(service, f"{SERVER}:8080", MASQUERADE)
    before = bench.establish(40000)
    bench.server(service, f"{SERVER}:8080", FULLNAT)
    assert sides(bench.send(tcp(40000, "A")).ip) == sides(before)
    local = bench.establish(40001)
    assert (local.src, before.src) == (LOCAL, client_of(VIP))
    bench.server(service, f"{SERVER}:8080", MASQUERADE)
    assert sides(bench.send(tcp(40001, "A")).ip) == sides(local)
    assert sides(bench.send(answer(local, "A"), "back").ip) == (VIP, client_of(VIP), 80, 40001)


# --- ICMP errors, fragments -----------------------------------------------------------------------------------------


def test_error_about_what_the_server_got(bench: Bench) -> None:
    full(bench)
    sent = bench.send(tcp(data=b"payload")).ip
    error = IP(src="198.51.100.200", dst=LOCAL, ttl=9) / ICMP(type=3, code=4, nexthopmtu=1400) / bytes(sent)
    out = bench.send(error, "back")
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.ttl) == ("send", VIP, client_of(VIP), 8)
    inner = IP(bytes(out.ip[ICMP].payload))
    assert sides(inner) == (client_of(VIP), VIP, 40000, 80)
    assert inner[TCP].chksum == IP(bytes(tcp(data=b"payload")))[TCP].chksum
    assert bench.events() == {Event.ICMP_TRANSLATED: 1}


def test_error_about_what_the_client_got(bench: Bench) -> None:
    full(bench)
    sent = bench.send(tcp()).ip
    reply = answer(sent, data=b"answer")
    seen = bench.send(reply, "back").ip
    error = IP(src="203.0.113.77", dst=VIP, ttl=9) / ICMP(type=3, code=1) / bytes(seen)
    out = bench.send(error)
    assert (out.verdict, out.ip.src, out.ip.dst, out.ip.ttl) == ("send", LOCAL, SERVER, 8)
    inner = IP(bytes(out.ip[ICMP].payload))
    assert sides(inner) == (SERVER, LOCAL, 8080, sent[TCP].sport)
    assert inner[TCP].chksum == IP(bytes(reply))[TCP].chksum


@pytest.mark.parametrize("kind", [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded()])
def test_errors_of_ipv6(bench: Bench, kind: Packet) -> None:
    full(bench, VIP6)
    sent = bench.send(tcp(vip=VIP6)).ip
    reply = answer(sent, data=b"answer")
    seen = bench.send(reply, "back").ip
    out = bench.send(ip("2001:db8:b::99", LOCAL6, hlim=9) / kind / bytes(sent), "back").ip
    assert (out.src, out.dst, out.hlim) == (VIP6, client_of(VIP6), 8)
    assert sides(IPv6(bytes(out.payload)[8:])) == (client_of(VIP6), VIP6, 40000, 80)
    out = bench.send(ip("2001:db8:c::99", VIP6, hlim=9) / kind / bytes(seen)).ip
    assert (out.src, out.dst, out.hlim) == (LOCAL6, SERVER6, 8)
    assert bytes(out.payload)[8:] == bytes(reply)[:7] + b"\x3f" + bytes(reply)[8:]  # its hop limit when it was seen


def test_time_exceeded_is_told_in_the_name_that_the_sender_knows(bench: Bench) -> None:
    full(bench)
    sent = bench.send(tcp()).ip
    for packet, interface, own in ((tcp(flags="A", ttl=1), "front", VIP), (answer(sent, ttl=1), "back", LOCAL)):
        out = bench.send(packet, interface).ip
        assert (out.src, out.dst, out[ICMP].type) == (own, packet.src, 11)


def test_a_reply_that_is_too_big_for_the_client(bench: Bench) -> None:
    bench.wire.net.run("gw", "ip", "route", "replace", "203.0.113.0/24", "via", "192.0.2.254", "mtu", "lock", "1000")
    try:
        full(bench)
        sent = bench.send(tcp()).ip
        out = bench.send(_large(sent), "back").ip
        assert (out.src, out.dst, out[ICMP].type, out[ICMP].code) == (LOCAL, SERVER, 3, 4)
        assert out[ICMP].nexthopmtu == 1000
    finally:
        bench.wire.net.run("gw", "ip", "route", "replace", "203.0.113.0/24", "via", "192.0.2.254")


def _large(sent: Packet) -> Packet:
    packet = answer(sent, "A", data=b"x" * 1200)
    packet.flags = "DF"
    return packet


@FAMILIES
def test_fragments_follow(bench: Bench, vip: str) -> None:
    full(bench, vip, "udp", 53)
    server, local = ends(vip)
    data = bytes(range(250)) * 4
    packet = udp(40000, vip=vip, data=data)
    pieces = fragment6(packet, 400) if ":" in vip else fragment(IP(bytes(packet)), 400)
    assert len(pieces) == 3
    outs = [bench.send(piece, check="ip") for piece in pieces]
    assert {(out.verdict, out.ip.src, out.ip.dst) for out in outs} == {("send", local, server)}
    whole = b"".join(bytes(out.ip[IPv6ExtHdrFragment].payload if ":" in vip else out.ip.payload) for out in outs)
    rebuilt = bytes(ip(local, server, **({"nh": 17} if ":" in vip else {"proto": 17})) / Raw(whole))
    sent = (IPv6 if ":" in vip else IP)(rebuilt)
    assert sent[UDP].dport == 8080 and bytes(sent[UDP].payload) == data
    asked = sent[UDP].chksum
    del sent[UDP].chksum
    assert (IPv6 if ":" in vip else IP)(bytes(sent))[UDP].chksum == asked
    reply = answer(sent, data=data)
    pieces = fragment6(reply, 400) if ":" in vip else fragment(IP(bytes(reply)), 400)
    outs = [bench.send(piece, "back", check="ip") for piece in pieces]
    assert {(out.verdict, out.ip.src, out.ip.dst) for out in outs} == {("send", vip, client_of(vip))}


# --- records --------------------------------------------------------------------------------------------------------


def test_connections_go_on_by_the_same_local_port(bench: Bench, peer: Bench) -> None:
    full(bench, toa=True), full(peer, toa=True)
    before = {port: bench.establish(port) for port in range(40000, 40100)}
    assert set(peer.merge(bench.export())) == {MergeResult.TAKEN}
    for port, earlier in before.items():
        assert sides(peer.send(tcp(port, "PA", data=b"more")).ip) == sides(earlier)
        assert sides(peer.send(answer(earlier, "A"), "back").ip) == (VIP, client_of(VIP), 80, port)
    for number in range(300):  # new ones keep off the ports that came
        peer.send(segment(("203.0.113.9", 20000 + number), (VIP, 80), "S", peer.wire.mac("front")))
    ways = [record.outward for record in peer.records()]
    assert len(set(ways)) == len(ways) > 350


def test_two_connections_with_one_way_back(bench: Bench, peer: Bench) -> None:
    """The peer's was opened while neither heard the other: whichever was used last has it."""
    full(bench), full(peer)
    bench.establish(40000)
    (record,) = unpack_records(bench.export())
    stranger = record.pack()[:32] + (41000).to_bytes(2, "big") + record.pack()[34:]
    peer.merge(stranger)
    peer.advance(5)
    assert peer.merge(bench.export()) == [MergeResult.TAKEN]
    assert [one.inward.source_port for one in peer.records()] == [40000]
    peer.advance(5)
    old = bytearray(stranger)
    old[80:84] = (60_000).to_bytes(4, "little")  # idle_ms
    assert peer.merge(bytes(old)) == [MergeResult.OLDER]
    assert [one.inward.source_port for one in peer.records()] == [40000]


@pytest.mark.parametrize("at", ["port", "family"])
def test_forged_ways_back(bench: Bench, peer: Bench, at: str) -> None:
    full(bench), full(peer)
    bench.establish()
    data = bytearray(bench.export())
    if at == "port":
        data[74:76] = b"\0\0"
    else:
        data[56:72] = ip_address(LOCAL6).packed
    assert peer.merge(bytes(data)) == [MergeResult.INVALID] and peer.records() == []
