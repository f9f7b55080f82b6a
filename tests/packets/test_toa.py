"""TOA, the TCP option by which a server behind full NAT learns who the client is."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, fragment
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event
from tests.packets.bench import MASQUERADE, Bench, Out
from tests.packets.fullnat import FAMILIES, SERVER, ends, full
from tests.packets.judge_fullnat import stripped
from tests.packets.traffic import answer, client_of, ether, fragment6, ip, with_checksum
from tests.packets.wire import LOCAL, VIP, VIP6

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


# --- what clients say for it ----------------------------------------------------------------------------------------

FORGED = b"\xfe\x08\x30\x39" + ip_address("10.0.0.1").packed
FORGED6 = b"\xfe\x14\x30\x39" + ip_address("2001:db8::bad").packed
STAMPS = b"\1\1\x08\x0a" + bytes(range(8))
SACK = b"\1\1\x05\x0a" + bytes(range(250, 255)) + b"\xfe\x08\1"  # its block has bytes that look like TOA
SYN_OPTIONS = b"\2\4\5\xb4\4\2\x08\x0a\xfe\x08" + bytes(6) + b"\1\3\3\7"  # Linux's
NOPS = b"\1" * 40
TOLD_OR_NOT = pytest.mark.parametrize("toa", [True, False], ids=["told", "not told"])


def raw(vip: str, options: bytes, flags: int = 2, data: bytes = b"") -> Packet:
    """A segment with these very bytes for options."""
    head = struct.pack("!HHIIBBHHH", 40000, 80, 1000, 0, 80 + len(options) * 4, flags, 64240, 0, 0)
    return with_checksum(client_of(vip), vip, head + options + data)


def options_of(out: Out) -> bytes:
    tcp = out.ip[TCP]
    return bytes(tcp)[20 : tcp.dataofs * 4]


def own(bench: Bench, vip: str) -> bytes:
    """The option that the gateway puts in."""
    address = ip_address(client_of(vip)).packed
    return bytes([254, len(address) + 4]) + (40000).to_bytes(2, "big") + address


@FAMILIES
@TOLD_OR_NOT
@pytest.mark.parametrize(
    ("options", "left"),
    [
        (FORGED, NOPS[:8]),
        (FORGED6, NOPS[:20]),
        (STAMPS + FORGED, STAMPS + NOPS[:8]),
        (FORGED + STAMPS, NOPS[:8] + STAMPS),
        (STAMPS + SACK, STAMPS + SACK),
        (SACK + FORGED, SACK + NOPS[:8]),
        (STAMPS + SACK + FORGED, STAMPS + SACK + NOPS[:8]),
        (SYN_OPTIONS, SYN_OPTIONS),
        (SYN_OPTIONS[:16] + FORGED, SYN_OPTIONS[:16] + NOPS[:8]),
        (STAMPS + b"\1\1\x05\x0e" + FORGED, STAMPS + NOPS[:12]),  # a length beyond the header
        (b"\1\1\x08\x0a" + FORGED[:4], NOPS[:8]),
        (b"\2\4\5\xb4" + FORGED + FORGED, b"\2\4\5\xb4" + NOPS[:16]),
        (b"\xfe\2" + FORGED + b"\1\1", NOPS[:12]),
        (b"\2\4\5\xb4\0" + FORGED + b"\0\0\0", b"\2\4\5\xb4" + NOPS[:12]),  # behind the end of the list
        (b"\xfe\x08\x30\x39", NOPS[:4]),  # which the gateway's own, behind it, would complete
        (b"\x22\x14\1\1", NOPS[:4]),  # or be swallowed by
        (b"\x22\1" + FORGED + b"\1\1", NOPS[:12]),
    ],
)
def test_a_forged_one_goes_no_further(bench: Bench, vip: str, toa: bool, options: bytes, left: bytes) -> None:
    full(bench, vip, toa=toa)
    mine = own(bench, vip) if toa else b""
    both = {left + mine, mine + left} if len(left + mine) <= 40 else {left}
    first = bench.send(raw(vip, options))
    assert options_of(first) in both
    assert bench.send(answer(first.ip), "back").verdict == "send"
    assert options_of(bench.send(raw(vip, options, 16))) in both
    data = bench.send(raw(vip, options, 24, b"data"))
    assert options_of(data) in both | {left} and bytes(data.ip[TCP].payload) == b"data"
    bench.send(answer(first.ip, "A"), "back")
    assert options_of(bench.send(raw(vip, options, 16))) == left, "also when the server has taken the connection"


@FAMILIES
def test_a_forged_one_in_a_fragment(bench: Bench, vip: str) -> None:
    full(bench, vip)
    whole = raw(vip, STAMPS + FORGED, data=bytes(200))
    pieces = fragment6(whole, 80) if ":" in vip else fragment(IP(bytes(whole)), 80)
    out = bench.send(pieces[0], check="ip")
    payload = bytes(out.ip.payload)[8 if ":" in vip else 0 :]
    assert (out.verdict, out.ip.src) == ("send", ends(vip)[1]) and payload[20:40] == STAMPS + NOPS[:8]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [FORGED, FORGED6, STAMPS, SACK, SYN_OPTIONS, b"\0", b"\1", b"\xfe", b"\xfe\x08", b"\2\4\5\xb4", b"\x22\x09"]
        )
        | st.binary(max_size=9)
    ).map(lambda parts: b"".join(parts)[:40]),
    st.booleans(),
    st.booleans(),
)
def test_whatever_stands_there(bench: Bench, options: bytes, toa: bool, six: bool) -> None:
    """The judge's own way through the options; checksums are looked at by Bench.send."""
    options += bytes(-len(options) % 4)
    vip = VIP6 if six else VIP
    bench.advance(1000)
    full(bench, vip, toa=toa)
    out = options_of(bench.send(raw(vip, options)))
    mine, left = own(bench, vip), stripped(options)
    assert out == left or (toa and out in (mine + left, left + mine))
    assert out != left or not toa or len(options) + len(mine) > 40


def test_masquerade_and_direct_leave_options_alone(bench: Bench) -> None:
    """Their servers see the client itself, and so know whom to believe."""
    service = bench.service()
    bench.server(service, f"{SERVER}:8080", MASQUERADE)
    assert options_of(bench.send(raw(VIP, FORGED))) == FORGED
