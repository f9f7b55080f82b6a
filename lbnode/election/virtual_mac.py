"""The MAC address of a virtual router (RFC 9568 section 7.3), for groups with `virtual_mac`. Pure.

The Active has the group's addresses on an interface with that MAC address above the real one (Linux: macvlan), which
goes with them. At a takeover no neighbour has to learn anything, only the switches where the MAC address is now.
"""

from __future__ import annotations

import struct

from lbnode.election.endpoint import Outgoing
from lbnode.election.packet import PROTOCOL, TTL, checksum

_PREFIX = {4: bytes.fromhex("00005e0001"), 6: bytes.fromhex("00005e0002")}
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_IPV4 = struct.Struct("!BBHHHBBH")
_IPV6 = struct.Struct("!IHBB")
_DONT_FRAGMENT = 0x4000
_INTERNETWORK_CONTROL = 0xC0  # traffic class


def mac_of(vrid: int, version: int) -> bytes:
    """00-00-5E-00-01-{VRID}, for IPv6 00-00-5E-00-02-{VRID}."""
    return _PREFIX[version] + bytes([vrid])


def name_of(mac: bytes, below: int) -> str:
    """Of the interface with a virtual router's MAC address above the one with index `below`."""
    return f"vrrp{6 if mac[:5] == _PREFIX[6] else 4}-{mac[5]}-{below}"


def is_ours(name: str, mac: bytes) -> bool:
    """Whether an election made this macvlan. keepalived's have other names."""
    below = name.rpartition("-")[2]
    return len(mac) == 6 and mac[:5] in _PREFIX.values() and below.isdecimal() and name == name_of(mac, int(below))


def frame(outgoing: Outgoing, vrid: int) -> bytes:
    """The Ethernet frame, from the virtual router's MAC address, with an advertisement by multicast."""
    source, destination, payload = outgoing.source, outgoing.destination, outgoing.payload
    if source.version == 4:
        to = b"\x01\x00\x5e" + (int(destination) & 0x7FFFFF).to_bytes(3, "big")  # RFC 1112 section 6.4
        fields = (0x45, _INTERNETWORK_CONTROL, 20 + len(payload), 0, _DONT_FRAGMENT, TTL, PROTOCOL)
        addresses = source.packed + destination.packed
        header = _IPV4.pack(*fields, checksum(_IPV4.pack(*fields, 0) + addresses))
    else:
        to = b"\x33\x33" + destination.packed[-4:]  # RFC 2464 section 7
        header = _IPV6.pack(6 << 28 | _INTERNETWORK_CONTROL << 20, len(payload), PROTOCOL, TTL)
        addresses = source.packed + destination.packed
    return to + mac_of(vrid, source.version) + _ETHERTYPE[source.version] + header + addresses + payload
