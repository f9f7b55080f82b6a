"""VRRPv3 on the wire: reference vectors, each receive check, and any bytes at all."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.election.packet import (
    GROUP_IPV6,
    Advert,
    ChecksumForm,
    Datagram,
    Reason,
    Rejected,
    checksum,
    encode,
    open_ipv4,
    parse,
    parse_ipv4,
    vrid_of,
)
from lbnode.model import Address

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


def test_rfc_9568_5_2_8_the_plain_form_sums_the_message_alone() -> None:
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
def test_every_ipv4_advertisement_is_read_back_in_the_form_it_was_sent(advert: Advert, options: int) -> None:
    packet = ip_packet(encode(advert), advert.source, options=options)
    assert parse_ipv4(packet, advert.vrid, OURS) == advert
    assert vrid_of(open_ipv4(packet).payload) == advert.vrid


@given(st.integers(0, 2**16 - 1))
def test_rfc_9568_5_2_6_the_reserved_bits_and_trailing_ethernet_padding_are_ignored(reserved: int) -> None:
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
        (ip_packet(message_with(0, 0x41)), Reason.VERSION),
        (ip_packet(message_with(0, 0x21)), Reason.COUNT),
        (ip_packet(message_with(0, 0x32)), Reason.VERSION),
        (ip_packet(message_with(3, 0)), Reason.COUNT),
        (ip_packet(message_with(3, 2)), Reason.COUNT),
        (ip_packet(encode(ADVERT)[:6] + b"\xff\xff" + encode(ADVERT)[8:]), Reason.CHECKSUM),
        (ip_packet(message_with(1, 52)), Reason.VRID),
        (ip_packet(message_with(5, 0)), Reason.INTERVAL),
        (ip_packet(encode(Advert(51, 200, 10, (VIP,), OURS)), OURS), Reason.OWN_ADDRESS),
    ],
)
def test_rfc_9568_7_1_each_check_rejects_ipv4_with_its_reason(packet: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        parse_ipv4(packet, 51, OURS)
    assert caught.value.reason is reason


def test_dont_fragment_is_no_fragment() -> None:
    assert parse_ipv4(ip_packet(encode(ADVERT), fragment=0x4000), 51, OURS) == ADVERT


@settings(max_examples=500)
@given(st.binary(max_size=80))
def test_any_bytes_are_rejected_or_read_but_never_crash(data: bytes) -> None:
    vrid_of(data)
    with contextlib.suppress(Rejected):
        parse_ipv4(data, 51, OURS)


# --- IPv6 and version 2 ----------------------------------------------------------------------------------------

OURS6, THEIRS6, VIP6 = ip_address("fe80::1"), ip_address("fe80::2"), ip_address("fe80::10")
ADVERT6 = Advert(51, 200, 10, (VIP6, ip_address("2001:db8::10")), THEIRS6)


def datagram6(payload: bytes, *, hop_limit: int = 255, destination: Address = GROUP_IPV6) -> Datagram:
    return Datagram(THEIRS6, destination, hop_limit, payload)


def with_byte6(offset: int, value: int) -> Datagram:
    """A byte of the message changed, the checksum right again."""
    message = bytearray(encode(ADVERT6))
    message[offset] = value
    message[6:8] = b"\0\0"
    pseudo = THEIRS6.packed + GROUP_IPV6.packed + struct.pack("!II", len(message), 112)
    message[6:8] = struct.pack("!H", checksum(pseudo + bytes(message)))
    return datagram6(bytes(message))


adverts6 = st.builds(
    Advert,
    vrid=st.integers(1, 255),
    priority=st.integers(0, 255),
    interval_cs=st.integers(1, 4095),
    addresses=st.lists(st.ip_addresses(v=6), min_size=1, max_size=20).map(tuple),
    source=st.just(THEIRS6),
)


@given(adverts6, st.sampled_from([b"", bytes(range(28))]))
def test_every_ipv6_advertisement_is_read_back_with_its_trailer(advert: Advert, trailer: bytes) -> None:
    assert parse(datagram6(encode(advert, None, trailer)), advert.vrid) == (advert, trailer)


@given(adverts, st.binary(min_size=28, max_size=28))
def test_an_ipv4_checksum_does_not_cover_the_trailer(advert: Advert, trailer: bytes) -> None:
    packet = ip_packet(encode(advert) + trailer, advert.source)
    assert parse(open_ipv4(packet), advert.vrid) == (advert, trailer)


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (datagram6(encode(ADVERT6)[:7]), Reason.LENGTH),
        (datagram6(encode(ADVERT6), hop_limit=254), Reason.TTL),
        (datagram6(encode(ADVERT6), hop_limit=-1), Reason.TTL),
        (with_byte6(0, 0x21), Reason.VERSION),
        (with_byte6(0, 0x32), Reason.VERSION),
        (with_byte6(3, 0), Reason.COUNT),
        (with_byte6(3, 1), Reason.COUNT),
        (datagram6(encode(ADVERT6, None, bytes(27))), Reason.COUNT),
        (datagram6(encode(ADVERT6), destination=OURS6), Reason.CHECKSUM),
        (with_byte6(1, 52), Reason.VRID),
        (with_byte6(5, 0), Reason.INTERVAL),
    ],
)
def test_rfc_9568_7_1_each_check_rejects_ipv6_with_its_reason(datagram: Datagram, reason: Reason) -> None:
    with pytest.raises(Rejected) as caught:
        parse(datagram, 51)
    assert caught.value.reason is reason


def test_rfc_3768_5_3_version_2_is_read_back_and_a_password_is_refused() -> None:
    old = Advert(51, 100, 300, (VIP,), THEIRS, ChecksumForm.PLAIN, version=2)
    packet = bytearray(ip_packet(encode(old)))
    assert parse(open_ipv4(bytes(packet)), 51) == (old, b"")
    packet[24] = 1  # authentication type: simple text
    packet[26:28] = b"\0\0"
    packet[26:28] = struct.pack("!H", checksum(bytes(packet[20:])))
    with pytest.raises(Rejected) as caught:
        parse(open_ipv4(bytes(packet)), 51)
    assert caught.value.reason is Reason.AUTHENTICATION_TYPE


def test_scapy_agrees_with_our_checksums() -> None:
    scapy = pytest.importorskip("scapy.all")
    vrrp = pytest.importorskip("scapy.layers.vrrp")
    four = scapy.IP(src=str(THEIRS), dst="224.0.0.18", ttl=255) / vrrp.VRRPv3(
        vrid=51, priority=200, adv=10, addrlist=[str(VIP)]
    )
    assert bytes(four)[20:] == encode(ADVERT)
    old = scapy.IP(src=str(THEIRS), dst="224.0.0.18") / vrrp.VRRP(vrid=51, priority=100, adv=3, addrlist=[str(VIP)])
    assert bytes(old)[20:] == encode(Advert(51, 100, 300, (VIP,), THEIRS, version=2))
