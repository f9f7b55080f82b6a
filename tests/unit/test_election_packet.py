"""VRRPv3 on the wire: reference vectors, each receive check, and any bytes at all."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.election.packet import (
    Advert,
    ChecksumForm,
    Reason,
    Rejected,
    checksum,
    encode,
    gratuitous_arp,
    parse_ipv4,
    vrid_of,
)

OURS, THEIRS, VIP = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("192.0.2.10")
ADVERT = Advert(51, 200, 10, (VIP,), THEIRS)


def ip_packet(
    message: bytes,
    source: IPv4Address = THEIRS,
    *,
    ttl: int = 255,
    proto: int = 112,
    fragment: int = 0,
    options: int = 0,
) -> bytes:
    header_len = 20 + options
    header = struct.pack(
        "!BBHHHBBH", 0x40 | header_len // 4, 0xC0, header_len + len(message), 1, fragment, ttl, proto, 0
    )
    return header + source.packed + IPv4Address("224.0.0.18").packed + bytes(options) + message


PACKET = ip_packet(encode(ADVERT))


def test_the_message_equals_the_one_captured_beside_keepalived() -> None:
    advert = Advert(51, 200, 1, (IPv4Address("10.9.0.100"),), IPv4Address("10.9.0.1"))
    assert encode(advert).hex(" ") == "31 33 c8 01 00 01 11 c4 0a 09 00 64"


def test_the_plain_form_sums_the_message_alone() -> None:
    message = encode(Advert(51, 200, 1, (VIP,), THEIRS, ChecksumForm.PLAIN))
    assert checksum(message) == 0
    assert checksum(encode(Advert(51, 200, 1, (VIP,), THEIRS))) != 0


adverts = st.builds(
    Advert,
    vrid=st.integers(1, 255),
    priority=st.integers(0, 255),
    interval_cs=st.integers(1, 4095),
    addresses=st.lists(st.ip_addresses(v=4), min_size=1, max_size=20).map(tuple),
    source=st.ip_addresses(v=4).filter(lambda address: address != OURS),
    form=st.sampled_from(ChecksumForm),
)


@given(adverts, st.sampled_from([0, 4, 40]))
def test_every_advertisement_is_read_back_in_the_form_it_was_sent(advert: Advert, options: int) -> None:
    packet = ip_packet(encode(advert), advert.source, options=options)
    assert parse_ipv4(packet, advert.vrid, OURS) == advert
    assert vrid_of(packet) == advert.vrid


@given(st.integers(0, 2**16 - 1))
def test_the_reserved_bits_and_trailing_ethernet_padding_are_ignored(reserved: int) -> None:
    message = bytearray(encode(ADVERT))
    message[4] |= reserved & 0xF0
    message[6:8] = b"\0\0"
    message[6:8] = struct.pack("!H", checksum(bytes(message)))
    padded = ip_packet(bytes(message)) + bytes(18)
    assert parse_ipv4(padded, 51, OURS).interval_cs == ADVERT.interval_cs


def message_with(offset: int, value: int) -> bytes:
    """A message with one byte changed and a checksum that is right again."""
    message = bytearray(encode(ADVERT))
    message[offset] = value
    message[6:8] = b"\0\0"
    message[6:8] = struct.pack("!H", checksum(bytes(message)))
    return bytes(message)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (PACKET[:27], Reason.LENGTH),
        (PACKET[:-1], Reason.LENGTH),
        (b"\x65" + PACKET[1:], Reason.LENGTH),
        (b"\x4f" + PACKET[1:], Reason.LENGTH),
        (ip_packet(encode(ADVERT), fragment=0x2000), Reason.FRAGMENT),
        (ip_packet(encode(ADVERT), fragment=1), Reason.FRAGMENT),
        (ip_packet(encode(ADVERT), proto=17), Reason.PROTOCOL),
        (ip_packet(encode(ADVERT), ttl=254), Reason.TTL),
        (ip_packet(message_with(0, 0x21)), Reason.VERSION),
        (ip_packet(message_with(0, 0x32)), Reason.VERSION),
        (ip_packet(message_with(3, 0)), Reason.COUNT),
        (ip_packet(message_with(3, 2)), Reason.COUNT),
        (ip_packet(encode(ADVERT)[:6] + b"\xff\xff" + encode(ADVERT)[8:]), Reason.CHECKSUM),
        (ip_packet(message_with(1, 52)), Reason.VRID),
        (ip_packet(message_with(5, 0)), Reason.INTERVAL),
        (ip_packet(encode(Advert(51, 200, 10, (VIP,), OURS)), OURS), Reason.OWN_ADDRESS),
    ],
)
def test_each_check_rejects_with_its_reason(packet: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        parse_ipv4(packet, 51, OURS)
    assert caught.value.reason is reason


def test_dont_fragment_is_no_fragment() -> None:
    assert parse_ipv4(ip_packet(encode(ADVERT), fragment=0x4000), 51, OURS) == ADVERT


def test_a_version_2_peer_is_told_what_to_do() -> None:
    with pytest.raises(Rejected, match="set the peer to VRRP version 3"):
        parse_ipv4(ip_packet(message_with(0, 0x21)), 51, OURS)


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_any_bytes_are_rejected_or_read_but_never_crash(data: bytes) -> None:
    vrid_of(data)
    with contextlib.suppress(Rejected):
        parse_ipv4(data, 51, OURS)


def test_gratuitous_arp_is_a_broadcast_request_for_the_address_itself() -> None:
    scapy = pytest.importorskip("scapy.layers.l2")
    frame = scapy.Ether(gratuitous_arp(bytes.fromhex("020000000001"), VIP))
    arp = frame[scapy.ARP]
    assert (frame.dst, frame.src, arp.op) == ("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", 1)
    assert (arp.psrc, arp.pdst, arp.hwsrc) == (str(VIP), str(VIP), "02:00:00:00:00:01")
