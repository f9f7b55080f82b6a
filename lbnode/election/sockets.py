"""The VRRP raw sockets of one interface, one for each family. They need CAP_NET_RAW."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address

from lbnode.election.endpoint import Outgoing
from lbnode.election.packet import GROUP_IPV4, GROUP_IPV6, PROTOCOL, TTL, Datagram, Rejected, open_ipv4
from lbnode.election.placement import Link

_IP_PKTINFO = 8  # linux/in.h; Python's socket module names it from 3.12 on
_TRAFFIC_CLASS_INTERNETWORK_CONTROL = 0xC0
_BATCH = 512  # packets per drain: a flood must not keep the timers waiting for ever
_FLAGS = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


class VrrpSocket:
    """Sends and receives VRRP messages of one family, of every virtual router on one interface.

    The checksum over IPv6 is ours, not the kernel's: a wrong one shall be counted.
    """

    def __init__(self, link: Link, version: int) -> None:
        self.link, self.version = link, version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, _FLAGS, PROTOCOL)
        try:
            option = self._socket.setsockopt
            option(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode() + b"\0")
            option(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)
            if version == 4:
                membership = GROUP_IPV4.packed + bytes(4) + struct.pack("=i", link.index)
                option(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
                option(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
                option(socket.IPPROTO_IP, socket.IP_TTL, TTL)
                option(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
                option(socket.IPPROTO_IP, socket.IP_TOS, _TRAFFIC_CLASS_INTERNETWORK_CONTROL)
            else:
                membership = GROUP_IPV6.packed + struct.pack("=i", link.index)
                option(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
                option(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, TTL)
                option(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, TTL)
                option(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
                option(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _TRAFFIC_CLASS_INTERNETWORK_CONTROL)
                option(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
                option(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, outgoing: Outgoing) -> None:
        """Send from its source (the checksum covers it; the kernel's own choice may be a floating address)."""
        source = outgoing.source.packed
        if self.version == 4:
            info = (socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i4s4s", self.link.index, source, bytes(4)))
            self._socket.sendmsg([outgoing.payload], [info], 0, (str(outgoing.destination), 0))
        else:
            info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source + struct.pack("=I", self.link.index))
            to = (str(outgoing.destination), 0, 0, self.link.index)
            self._socket.sendmsg([outgoing.payload], [info], 0, to)

    def receive(self) -> Iterator[Datagram | Rejected]:
        """All packets that wait, up to a batch; Rejected for one with a bad IP header."""
        for _ in range(_BATCH):
            try:
                packet, ancillary, _, sender = self._socket.recvmsg(65535, 256)
            except OSError:  # nothing more; or a pending error (interface down, gone), which this has cleared
                return
            if self.version == 4:
                try:
                    yield open_ipv4(packet)
                except Rejected as error:
                    yield error
            else:
                yield _open_ipv6(packet, ancillary, sender[0])


def _open_ipv6(payload: bytes, ancillary: list[tuple[int, int, bytes]], sender: str) -> Datagram:
    """The kernel has taken the IPv6 header off and put together fragments; it tells of the header what was asked."""
    hop_limit, destination = -1, GROUP_IPV6
    for _, kind, data in ancillary:
        if kind == socket.IPV6_HOPLIMIT:
            (hop_limit,) = struct.unpack("=i", data)
        elif kind == socket.IPV6_PKTINFO:
            destination = IPv6Address(data[:16])
    source = IPv6Address(sender.partition("%")[0])
    return Datagram(source, destination, hop_limit, payload)
