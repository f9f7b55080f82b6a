"""Connections that began with a SYN cookie: what either end says is put in the words of the other."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from lbnode.dataplane.xdp.layout import Event, State
from tests.packets.bench import FULLNAT, Bench
from tests.packets.syn_proxy import (
    IPV4,
    ISN,
    PROXIED,
    SCALE,
    SERVER_ISN,
    Kind,
    Opening,
    every_kind,
)
from tests.packets.traffic import ip, with_checksum
from tests.packets.wire import VIP

pytestmark = pytest.mark.root


@every_kind
@pytest.mark.parametrize(
    ("client", "server", "window_in", "window_out"),
    [
        ([], [("WScale", 9)], 300, 300),  # the client cannot scale, so neither side does
        ([("WScale", 3)], [], 2400, 0),  # the server cannot: the client's windows are written out
        ([("WScale", 3)], [("WScale", 14)], 300, 4800),
        ([("WScale", 3)], [("WScale", 2)], 300, 1),
    ],
)
def test_windows_are_scaled_as_both_sides_understand_them(
    bench: Bench, kind: Kind, client: list[Any], server: list[Any], window_in: int, window_out: int
) -> None:
    opening = Opening(bench, kind)
    opening.open(client, server)
    to_server = opening.from_client("A", ISN + 1, opening.cookie + 1, window=300).ip[TCP]
    to_client = opening.from_server("A", SERVER_ISN + 1, ISN + 1, window=300).ip[TCP]
    assert (to_server.window, to_client.window) == (window_in, window_out)


@every_kind
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_edges_of_sack_are_translated(bench: Bench, kind: Kind, before: int) -> None:
    opening = Opening(bench, kind)
    opening.open()
    edges = [opening.cookie + at & 0xFFFFFFFF for at in (100, 200, 1000, 0x7FFFFFFF)]
    options = [("NOP", None)] * before + [("SAck", tuple(edges))]
    out = opening.from_client("A", ISN + 1, opening.cookie + 1, options=options).ip[TCP]
    assert dict(out.options)["SAck"] == tuple((edge - opening.cookie + SERVER_ISN) & 0xFFFFFFFF for edge in edges)
    back = opening.from_server("A", SERVER_ISN + 1, ISN + 1, options=[("SAck", (ISN, ISN + 1))]).ip[TCP]
    assert dict(back.options)["SAck"] == (ISN, ISN + 1)  # of the client's own numbers: untouched


@every_kind
def test_the_servers_answer_may_come_again(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    opening.open()
    probe = opening.from_server("SA", SERVER_ISN, ISN + 1, window=65000).ip[TCP]
    assert (str(probe.flags), probe.seq, bytes(probe.payload)) == ("A", opening.cookie, b"\0")
    assert bench.record().state is State.ESTABLISHED
    out = opening.from_client("S", 12345)  # a stray SYN does not end an open connection
    assert out.verdict == "send" and bench.record().state is State.ESTABLISHED


@every_kind
@pytest.mark.parametrize("length", [8, 40])
def test_an_icmp_error_quotes_the_number_that_its_target_used(bench: Bench, kind: Kind, length: int) -> None:
    """Else it is thrown away (RFC 5927 4.1), and with it path MTU discovery. `length`: of the quoted TCP part."""
    opening = Opening(bench, kind)
    opening.open()
    head = ip(opening.vip, opening.client)
    seen = (
        head / TCP(sport=80, dport=40000, flags="A", seq=opening.cookie + 1 & 0xFFFFFFFF, ack=ISN + 1) / Raw(bytes(20))
    )
    quote = bytes(seen)[: len(head) + length]
    error = ICMP(type=3, code=4, nexthopmtu=1400) if kind.family == 4 else ICMPv6PacketTooBig(mtu=1400)
    out = bench.send(ip(opening.client, opening.vip) / error / quote)
    inner = (IP if kind.family == 4 else IPv6)(bytes(out.ip.payload)[8:])
    assert out.verdict == "send" and (inner.src, inner.dst) == (opening.server, opening.seen[0])
    assert struct.unpack("!HHI", bytes(inner.payload)[:8]) == (8080, opening.seen[1], SERVER_ISN + 1)


@every_kind
def test_the_gateways_own_error_quotes_what_the_server_wrote(bench: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    opening.open()
    bench.configure(icmp_rate=1000)
    bench.advance(0)
    peer, port = opening.seen
    head = ip(opening.server, peer, **({"flags": "DF"} if kind.family == 4 else {}))
    large = head / TCP(sport=8080, dport=port, flags="A", seq=SERVER_ISN + 1, ack=ISN + 1) / Raw(bytes(1600))
    out = bench.send(large, "back")
    assert out.verdict == "send" and bench.event(Event.DROP_TOO_BIG) == 1
    assert out.ip.dst == opening.server and bytes(large)[: len(head) + 8] in out.frame


@every_kind
def test_a_backup_goes_on_with_it(bench: Bench, peer: Bench, kind: Kind) -> None:
    opening = Opening(bench, kind)
    opening.open([("MSS", 1460), ("WScale", 3)], [("WScale", 9)])
    away = Opening(peer, kind)
    away.cookie = opening.cookie
    peer.merge(bench.export())
    assert peer.record().flags & PROXIED
    tcp = away.from_client("PA", ISN + 1, opening.cookie + 1, data=b"more").ip[TCP]
    assert tcp.ack == SERVER_ISN + 1
    tcp = away.from_server("A", SERVER_ISN + 1, ISN + 5, window=700).ip[TCP]
    assert (tcp.seq, tcp.window) == (opening.cookie + 1, 700 << 9 >> SCALE)


u32 = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("kind", [IPV4, Kind(4, FULLNAT)], ids=str)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    st.sampled_from(["A", "PA", "FA", "SA", "S", "R", "RA", "AU", "PAUEC"]),
    *(u32, u32, st.integers(0, 65535)),
    st.binary(max_size=40).map(lambda data: data + bytes(-len(data) % 4)),
    st.binary(max_size=8),
)
def test_any_segment_of_an_open_connection_is_translated(
    bench: Bench,
    kind: Kind,
    from_client: bool,
    flags: str,
    seq: int,
    ack: int,
    window: int,
    options: bytes,
    data: bytes,
) -> None:
    """Whatever it says otherwise, and every checksum that leaves is right (Bench.send)."""
    bench.remove(Opening(bench, kind).service)
    bench.advance(1000)
    opening = Opening(bench, kind)
    opening.open()  # the server's scale is 9, the client's 7
    delta = opening.cookie - SERVER_ISN
    peer, port = opening.seen
    ends = (40000, 80) if from_client else (8080, port)
    addresses = (opening.client, VIP) if from_client else (opening.server, peer)
    bits = int(TCP(flags=flags).flags)
    head = struct.pack("!HHIIBBHHH", *ends, seq, ack, 80 + len(options) * 4, bits, window, 0, 0)
    packet = with_checksum(*addresses, head + options + data)
    out = bench.send(packet, "front" if from_client else "back")
    assert out.verdict == "send"
    tcp = bytes(out.ip)[20:]
    seq_out, ack_out, offset, _, window_out = struct.unpack("!IIBBH", tcp[4:16])
    if from_client:
        assert seq_out == seq and ack_out == (ack - delta & 0xFFFFFFFF if bits & 16 else ack)
        assert window_out == window and tcp[20 + len(options) :] == data
    elif bits & 22 == 18:  # SYN-ACK: the probe
        assert (seq_out, ack_out, window_out) == (seq + delta & 0xFFFFFFFF, ack, window >> SCALE)
        assert tcp[32:] == b"\0"
    else:
        assert (seq_out, ack_out, window_out) == (seq + delta & 0xFFFFFFFF, ack, (window << 9) >> SCALE)
        assert tcp[20:] == options + data and offset == 80 + len(options) * 4
