"""TOA, the TCP option by which a server behind full NAT learns who the client is."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event
from tests.packets.bench import (
    LOCAL,
    VIP,
    Bench,
    answer,
    client_of,
    ether,
    ip,
)
from tests.packets.fullnat import FAMILIES, full

pytestmark = pytest.mark.root


def told(packet: Packet) -> tuple[str, int] | None:
    """Address and port in the TOA option, taken apart by hand."""
    header = bytes(packet[TCP])[20 : packet[TCP].dataofs * 4]
    while header:
        if header[0] in (0, 1):
            header = header[1:]
            continue
        if header[0] == 254:
            value = header[2 : header[1]]
            assert header[1] in (8, 20)
            return str(ip_address(value[2:])), int.from_bytes(value[:2], "big")
        header = header[header[1] :]
    return None


def syn(vip: str = VIP, flags: str = "S", data: bytes = b"", options: object = None) -> Packet:
    if options is None:
        options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    return ip(client_of(vip), vip) / TCP(sport=40000, dport=80, flags=flags, seq=1000, options=options) / Raw(data)


@FAMILIES
def test_toa_in_the_opening(bench: Bench, vip: str) -> None:
    full(bench, vip, toa=True)
    client = (client_of(vip), 40000)
    first = bench.send(syn(vip))
    assert told(first.ip) == client
    for name in ("MSS", "SAckOK", "Timestamp", "WScale"):
        assert name in dict(first.ip[TCP].options)
    assert told(bench.send(syn(vip)).ip) == client, "sent again"
    bench.send(answer(first.ip), "back")
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (2, 1))]
    for _ in range(2):
        third = bench.send(syn(vip, "A", options=stamps))
        assert told(third.ip) == client and dict(third.ip[TCP].options)["Timestamp"] == (2, 1)
        assert len(third.frame) == 14 + len(third.ip)
    bench.send(answer(first.ip, "A"), "back")
    assert told(bench.send(syn(vip, "A", options=stamps)).ip) is None, "the server has taken the connection"
    assert bench.events() == {}


@FAMILIES
def test_toa_off(bench: Bench, vip: str) -> None:
    full(bench, vip)
    assert told(bench.send(syn(vip)).ip) is None


@FAMILIES
@pytest.mark.parametrize("size", [1, 2, 101, 1400])
def test_toa_with_data(bench: Bench, vip: str, size: int) -> None:
    """In frames; in a socket buffer it cannot be put before the data."""
    full(bench, vip, toa=True)
    first = bench.send(syn(vip))
    bench.send(answer(first.ip), "back")
    data = bytes(range(256)) * 6
    out = bench.send(syn(vip, "PA", data[:size]))
    assert bytes(out.ip[TCP].payload) == data[:size]
    assert (told(out.ip) is not None) == (bench.entry == "xdp")
    assert bench.events() == ({} if bench.entry == "xdp" else {Event.TOA_LEFT_OUT: 1})


@FAMILIES
def test_toa_without_room_for_it(bench: Bench, vip: str) -> None:
    full(bench, vip, toa=True)
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    room = 40 - 20 - (20 if ":" in vip else 8)
    out = bench.send(syn(vip, options=options + [("NOP", None)] * room))
    assert told(out.ip) is not None and out.ip[TCP].dataofs == 15
    crowded = bench.send(syn(vip, options=options + [("NOP", None)] * (room + 4)))
    assert (told(crowded.ip), crowded.verdict) == (None, "send")
    assert bench.events() == {Event.TOA_LEFT_OUT: 1}


def test_toa_does_not_make_a_segment_larger_than_the_mtu(bench: Bench) -> None:
    bench.hops.mtu = 100
    full(bench, toa=True)
    for size in (40, 52, 53, 60):
        out = bench.send(syn(options=[], data=b"x" * size))
        assert len(out.ip) <= 100
        if bench.entry == "xdp":
            assert (told(out.ip) is not None) == (20 + 20 + size + 8 <= 100)


def test_padding_of_short_frames_is_no_data(bench: Bench) -> None:
    """Ethernet frames have at least 60 bytes: an ACK of 40 is followed by 6 of no meaning."""
    full(bench, toa=True)
    frame = ether(syn(options=[]), target=bench.wire.mac("front"))
    out = bench.send(frame + b"\x55" * 6)
    assert told(out.ip) == (client_of(VIP), 40000) and out.ip.len == 48
    if bench.entry == "tc":
        assert len(out.frame) == 14 + 48


def test_resets_and_answers_carry_no_toa(bench: Bench) -> None:
    full(bench, toa=True)
    first = bench.send(syn())
    assert told(bench.send(answer(first.ip), "back").ip) is None
    assert told(bench.send(syn(flags="R", options=[])).ip) is None


def test_an_odd_ip_header_goes_without_where_headers_have_to_move(bench: Bench) -> None:
    full(bench, toa=True)
    out = bench.send(IP(src=client_of(VIP), dst=VIP, options=b"\x01" * 4) / TCP(sport=40000, dport=80, flags="S"))
    assert (out.verdict, out.ip.src) == ("send", LOCAL)
    assert (told(out.ip) is None) == (bench.entry == "xdp")
