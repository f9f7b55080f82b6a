"""Gratuitous ARP and neighbour advertisements: judged by scapy, and any bytes at all."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.election.neighbour import announcement, answered, probe

scapy = pytest.importorskip("scapy.all")
MAC = bytes.fromhex("020000000001")
VIP, VIP6 = ip_address("192.0.2.10"), ip_address("2001:db8::12:3456")
OURS, OURS6 = ip_address("192.0.2.1"), ip_address("fe80::1")


def test_gratuitous_arp_is_a_broadcast_request_for_the_address_itself() -> None:
    frame = scapy.Ether(announcement(MAC, VIP))
    arp = frame[scapy.ARP]
    assert (frame.dst, frame.src, arp.op) == ("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01", 1)
    assert (arp.psrc, arp.pdst, arp.hwsrc) == (str(VIP), str(VIP), "02:00:00:00:00:01")


def recomputed(frame: bytes) -> bytes:
    """The frame with scapy's own ICMPv6 checksum."""
    packet = scapy.Ether(frame)
    del packet[scapy.IPv6].payload.cksum
    return bytes(packet)


def test_rfc_9568_6_4_2_the_unsolicited_na_has_r_and_o_set_and_s_clear() -> None:
    frame = announcement(MAC, VIP6)
    packet = scapy.Ether(frame)
    na = packet[scapy.ICMPv6ND_NA]
    assert (packet.dst, packet[scapy.IPv6].dst, packet[scapy.IPv6].hlim) == ("33:33:00:00:00:01", "ff02::1", 255)
    assert (na.R, na.S, na.O, na.tgt, na.lladdr) == (1, 0, 1, str(VIP6), "02:00:00:00:00:01")
    assert recomputed(frame) == frame


def test_a_probe_asks_the_solicited_node_group() -> None:
    frame = probe(MAC, OURS6, VIP6)
    packet = scapy.Ether(frame)
    assert (packet.dst, packet[scapy.IPv6].dst) == ("33:33:ff:12:34:56", "ff02::1:ff12:3456")
    assert (packet[scapy.ICMPv6ND_NS].tgt, packet[scapy.IPv6].src) == (str(VIP6), "fe80::1")
    assert recomputed(frame) == frame
    arp = scapy.Ether(probe(MAC, OURS, VIP))[scapy.ARP]
    assert (arp.psrc, arp.pdst) == (str(OURS), str(VIP))


def test_announcements_and_answers_tell_who_has_an_address() -> None:
    assert answered(announcement(MAC, VIP)) == (VIP, MAC)
    assert answered(announcement(MAC, VIP6)) == (VIP6, MAC)
    assert answered(probe(MAC, OURS6, VIP6)) is None
    forged = bytearray(announcement(MAC, VIP6))
    forged[70] ^= 1
    assert answered(bytes(forged)) is None  # checksum


@settings(max_examples=300)
@given(st.binary(max_size=120), st.sampled_from([announcement(MAC, VIP), announcement(MAC, VIP6)]))
def test_any_bytes_are_read_or_ignored_but_never_crash(data: bytes, frame: bytes) -> None:
    answered(data)
    answered(frame[:14] + data)
    answered(frame[:60] + data)
