"""The VRRP raw socket of one interface."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

from lbnode.election.packet import GROUP_IPV4, PROTOCOL, TTL
from lbnode.election.placement import Link

_IP_PKTINFO = 8  # linux/in.h; Python's socket module names it from 3.12 on
_TOS_INTERNETWORK_CONTROL = 0xC0
_BATCH = 512  # packets per drain: a flood must not keep the timers waiting for ever


class VrrpSocket:
    """Sends and receives VRRP messages of every virtual router on one interface. Needs CAP_NET_RAW."""

    def __init__(self, link: Link) -> None:
        self.link = link
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_INET, flags, PROTOCOL)
        try:
            option = self._socket.setsockopt
            option(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode() + b"\0")
            membership = GROUP_IPV4.packed + bytes(4) + struct.pack("=i", link.index)
            option(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            option(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
            option(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            option(socket.IPPROTO_IP, socket.IP_TOS, _TOS_INTERNETWORK_CONTROL)
            option(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: bytes, source: IPv4Address) -> None:
        """Send from `source` (the checksum covers it; the kernel's own choice may be a floating address)."""
        info = struct.pack("=i4s4s", self.link.index, source.packed, bytes(4))
        self._socket.sendmsg([message], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, (str(GROUP_IPV4), 0))

    def receive(self) -> list[bytes]:
        """All packets that wait (with their IPv4 headers), up to a batch."""
        packets: list[bytes] = []
        while len(packets) < _BATCH:
            try:
                packets.append(self._socket.recv(65535))
            except OSError:  # nothing more; or a pending error (interface down, gone), which this has cleared
                break
        return packets
