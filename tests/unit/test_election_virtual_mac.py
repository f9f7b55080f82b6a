"""The MAC address of a virtual router, and advertisements from it: judged by scapy."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lbnode.election.endpoint import Outgoing
from lbnode.election.packet import GROUP_IPV4, GROUP_IPV6, Advert, encode, open_ipv4, parse
from lbnode.election.virtual_mac import frame, is_ours, mac_of, name_of

scapy = pytest.importorskip("scapy.all")


@pytest.mark.parametrize(("vrid", "version", "mac"), [(1, 4, "00005e000101"), (255, 6, "00005e0002ff")])
def test_rfc9568_section_7_3(vrid: int, version: int, mac: str) -> None:
    assert mac_of(vrid, version).hex() == mac


def test_an_interface_is_known_again_by_name_and_mac() -> None:
    for version in (4, 6):
        for vrid in (1, 51, 255):
            mac = mac_of(vrid, version)
            name = name_of(mac, 12345)
            assert len(name) <= 15 and is_ours(name, mac)
            assert not is_ours(name, mac_of(vrid % 255 + 1, version))
            assert not is_ours(name, mac_of(vrid, 10 - version))
            assert not is_ours(name, b"\x02" + mac[1:])
    for theirs in ("vrrp.51", "vrrp4-51-", "vrrp4-51-x", "front"):
        assert not is_ours(theirs, mac_of(51, 4))


def test_an_advertisement_by_multicast_comes_from_the_virtual_mac() -> None:
    for source, group in (("192.0.2.1", GROUP_IPV4), ("fe80::1", GROUP_IPV6)):
        mine, vip = ip_address(source), ip_address("192.0.2.10" if "." in source else "fe80::10")
        payload = encode(Advert(51, 200, 10, (vip,), mine), group)
        made = frame(Outgoing(mine, group, payload), 51)
        packet = scapy.Ether(made)
        family = 4 if "." in source else 6
        assert packet.src == f"00:00:5e:00:0{family // 3}:33"
        assert packet.dst == ("01:00:5e:00:00:12" if family == 4 else "33:33:00:00:00:12")
        ip = packet[scapy.IP] if family == 4 else packet[scapy.IPv6]
        assert (ip.src, ip.dst) == (source, str(group))
        again = type(ip)(bytes(ip))
        if family == 4:
            assert (ip.ttl, ip.proto, ip.tos) == (255, 112, 0xC0)
            del again.chksum
            assert bytes(again) == bytes(ip), "the header's checksum is right"
            assert parse(open_ipv4(made[14:]), 51)[0].addresses == (vip,)
        else:
            assert (ip.hlim, ip.nh, ip.tc, ip.plen) == (255, 112, 0xC0, len(payload))
            assert bytes(ip.payload) == payload
