"""The little of rtnetlink(7) that the election needs: list links and addresses, add and delete an address, be told.

All but being told waits for the kernel's lock of links (RTNL), which somebody else may hold for 60 ms and more.

Written against the message layouts of linux/netlink.h, if_addr.h and if_link.h: an address is added in well under a
millisecond and the driver's start stays fast, which a general library with its schema of every message does not give.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from ipaddress import ip_address

from lbnode.election.interfaces import Told
from lbnode.election.placement import InterfaceAddress, Link
from lbnode.errors import DataPlaneError
from lbnode.model import Address

_NLMSG = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFINFO = struct.Struct("=BxHiII")  # family, device type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTATTR = struct.Struct("=HH")  # length, type

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 5, 18
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_MACVLAN_MODE = 1, 2, 1
_IFLA_AF_SPEC, _IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 26, 8, 1
# Not private: frames from this MAC address, those of another Active, would not reach the interface below, where the
# election listens.
_MACVLAN_MODE_BRIDGE = 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_PROTO = 1, 2, 6, 11
_IFA_F_SECONDARY, _IFA_F_NODAD, _IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x01, 0x02, 0x08, 0x40
# Valid for ever, preferred never: the kernel chooses it as source of no connection of its own.
_DEPRECATED = struct.pack("=IIII", 0, 0xFFFFFFFF, 0, 0)
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100

# IFA_PROTO of our addresses (Linux 5.18): tells them from those an operator set, also after both processes died.
OUR_MARK = 112
CHANGES_PER_CALL = 64
MONITOR_BUFFER = 4 << 20  # bytes: a thousand addresses that go at once are a thousand messages of about 1 KB
_SO_RCVBUFFORCE = 33  # beyond net.core.rmem_max; asm-generic/socket.h


def _attribute(kind: int, value: bytes) -> bytes:
    length = _RTATTR.size + len(value)
    return _RTATTR.pack(length, kind) + value + bytes(-length % 4)


def _attributes(payload: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _RTATTR.size <= len(payload):
        length, kind = _RTATTR.unpack_from(payload, offset)
        if length < _RTATTR.size:
            break
        found[kind & 0x3FFF] = payload[offset + _RTATTR.size : offset + length]
        offset += (length + 3) & ~3
    return found


def interface_of(address: Address) -> str | None:
    """The name of the interface that has the address. DataPlaneError."""
    with closing(Rtnetlink()) as netlink:
        names = {index: link.name for index, link in netlink.links().items()}
        return next((names.get(item.index) for item in netlink.addresses() if item.address == address), None)


class Rtnetlink:
    """One request socket. Not for use by several threads at once. Errors are DataPlaneError with errno."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(2.0)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def listing(self) -> list[Told]:
        """All interfaces and addresses, in the kernel's order (an interface's primary address first)."""
        links = self._dump(_RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))
        addresses = self._dump(_RTM_GETADDR, _IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        found = (_told(kind, payload) for messages in (links, addresses) for kind, payload in messages)
        return [told for told in found if told is not None and told.there]

    def links(self) -> dict[int, Link]:
        """Interfaces by index."""
        return {told.item.index: told.item for told in self.listing() if isinstance(told.item, Link)}

    def addresses(self) -> list[InterfaceAddress]:
        """Addresses of all interfaces. See `told_by`."""
        return [told.item for told in self.listing() if isinstance(told.item, InterfaceAddress)]

    def add_macvlan(self, below: int, name: str, mac: bytes) -> int:
        """Make an interface, down as yet, with another MAC address above the one with index `below`; one of that name
        that is there already is success. Returns its index."""
        data = _attribute(_IFLA_MACVLAN_MODE, struct.pack("=I", _MACVLAN_MODE_BRIDGE))
        info = _attribute(_IFLA_INFO_KIND, b"macvlan") + _attribute(_IFLA_INFO_DATA, data)
        body = _IFINFO.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_LINK, struct.pack("=I", below))
        body += _attribute(_IFLA_IFNAME, name.encode() + b"\0") + _attribute(_IFLA_ADDRESS, mac)
        body += _attribute(_IFLA_LINKINFO, info)
        self._do(_RTM_NEWLINK, _CREATE | _EXCL, body, errno.EEXIST)
        return socket.if_nametoindex(name)

    def give_no_address(self, index: int) -> None:
        """Have IPv6 make no link-local address for the interface (RFC 4862 section 5.3). Without IPv6 it does not."""
        mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, struct.pack("=B", _IN6_ADDR_GEN_MODE_NONE))
        body = _IFINFO.pack(0, 0, index, 0, 0) + _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode))
        self._do(_RTM_NEWLINK, 0, body, errno.EAFNOSUPPORT)

    def set_up(self, index: int) -> None:
        self._do(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, _IFF_UP, _IFF_UP))

    def set_down(self, index: int) -> None:
        self._do(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, _IFF_UP))

    def delete_link(self, index: int) -> None:
        """One that is gone already is success."""
        self._do(_RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0), errno.ENODEV)

    def _do(self, kind: int, flags: int, body: bytes, tolerated: int = 0) -> None:
        self._sequence += 1
        (code,) = self._acknowledgements(_message(kind, flags | _ACK, self._sequence, body), self._sequence, 1)
        if code not in (0, tolerated):
            raise DataPlaneError(os.strerror(code), code)

    def add_addresses(self, wanted: Sequence[InterfaceAddress]) -> list[str]:
        """Add marked addresses; one that is there already is success. Returns a problem for each, "" = added."""
        return self._change(_RTM_NEWADDR, _CREATE | _EXCL, "add", wanted, (errno.EEXIST,))

    def delete_addresses(self, unwanted: Sequence[InterfaceAddress]) -> list[str]:
        """Delete addresses; one that is gone already is success. Returns a problem for each, "" = deleted."""
        return self._change(_RTM_DELADDR, 0, "delete", unwanted, (errno.EADDRNOTAVAIL, errno.ENODEV))

    def _change(
        self, kind: int, flags: int, what: str, entries: Sequence[InterfaceAddress], tolerated: Collection[int]
    ) -> list[str]:
        """One system call for up to CHANGES_PER_CALL of them: with a thousand addresses that counts."""
        problems: list[str] = []
        for start in range(0, len(entries), CHANGES_PER_CALL):
            part = entries[start : start + CHANGES_PER_CALL]
            first = self._sequence + 1
            self._sequence += len(part)
            request = b"".join(
                _message(kind, flags | _ACK, first + number, _address_body(entry, new=kind == _RTM_NEWADDR))
                for number, entry in enumerate(part)
            )
            codes = self._acknowledgements(request, first, len(part))
            for entry, code in zip(part, codes, strict=True):
                wrong = code != 0 and code not in tolerated
                problems.append(f"{what} {entry.address}/{entry.prefix_len}: {os.strerror(code)}" if wrong else "")
        return problems

    def _acknowledgements(self, request: bytes, first: int, count: int) -> list[int]:
        """errno of each message of the request, which are numbered from `first`; 0 = done."""
        codes: dict[int, int] = {}
        try:
            self._socket.send(request)
            while len(codes) < count:
                for answer, sequence, payload in _messages(self._socket.recv(1 << 18)):
                    if answer == _NLMSG_ERROR and first <= sequence < first + count:
                        codes[sequence] = -struct.unpack_from("=i", payload)[0]
        except OSError as error:
            return [codes.get(first + number, error.errno or errno.EIO) for number in range(count)]
        return [codes[first + number] for number in range(count)]

    def _dump(self, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (type, payload) of each answer."""
        self._sequence += 1
        try:
            self._socket.send(_message(kind, _DUMP, self._sequence, body))
            while True:
                for answer, sequence, payload in _messages(self._socket.recv(1 << 18)):
                    if sequence != self._sequence:  # of an earlier request that timed out
                        continue
                    if answer == _NLMSG_DONE:
                        return
                    if answer == _NLMSG_ERROR:
                        code = -struct.unpack_from("=i", payload)[0]
                        raise DataPlaneError(os.strerror(code), code)
                    yield answer, payload
        except OSError as error:
            raise DataPlaneError(f"netlink: {error}", error.errno) from None


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """All our bodies are multiples of 4 bytes, so messages may follow each other."""
    return _NLMSG.pack(_NLMSG.size + len(body), kind, flags | _REQUEST, sequence, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence, payload) of each message in a datagram."""
    offset = 0
    while offset + _NLMSG.size <= len(data):
        length, kind, _, sequence, _ = _NLMSG.unpack_from(data, offset)
        yield kind, sequence, data[offset + _NLMSG.size : offset + length]
        offset += (length + 3) & ~3


def _address_body(entry: InterfaceAddress, *, new: bool) -> bytes:
    address = entry.address
    family, flags = (socket.AF_INET, 0) if address.version == 4 else (socket.AF_INET6, _IFA_F_NODAD)
    body = _IFADDR.pack(family, entry.prefix_len, flags, 0, entry.index) + _attribute(_IFA_LOCAL, address.packed)
    if not new:
        return body
    body += _attribute(_IFA_ADDRESS, address.packed) + _attribute(_IFA_PROTO, bytes([OUR_MARK]))
    return body + (_attribute(_IFA_CACHEINFO, _DEPRECATED) if address.version == 6 else b"")


def open_monitor() -> socket.socket:
    """A non-blocking socket that tells of each link and address that changes, see `told_by`. It may overflow
    (ENOBUFS)."""
    monitor = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    monitor.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, MONITOR_BUFFER)
    monitor.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return monitor


def told_by(data: bytes) -> list[Told]:
    """What a datagram of the monitor tells.

    An address of others' that IPv6 has not found to be unique yet (RFC 4862 section 5.4) counts as one that is not
    there: nothing may be sent from it.
    """
    found = (_told(kind, payload) for kind, _, payload in _messages(data))
    return [told for told in found if told is not None]


def _told(kind: int, payload: bytes) -> Told | None:
    if kind in (_RTM_NEWLINK, _RTM_DELLINK):
        return _told_link(payload, there=kind == _RTM_NEWLINK)
    return _told_address(payload, there=kind == _RTM_NEWADDR) if kind in (_RTM_NEWADDR, _RTM_DELADDR) else None


def _told_link(payload: bytes, *, there: bool) -> Told | None:
    family, _, index, flags, _ = _IFINFO.unpack_from(payload)
    attributes = _attributes(payload[_IFINFO.size :])
    if family != socket.AF_UNSPEC or _IFLA_IFNAME not in attributes:  # of a bridge's port, or a radio's event
        return None
    name = attributes[_IFLA_IFNAME].rstrip(b"\0").decode()
    up = flags & _IFF_UP != 0
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    kind = info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
    mac = attributes.get(_IFLA_ADDRESS, bytes(6))
    return Told(Link(index, name, mac, up and flags & _IFF_RUNNING != 0, kind, up), there)


def _told_address(payload: bytes, *, there: bool) -> Told | None:
    family, prefix_len, flags, _, index = _IFADDR.unpack_from(payload)
    attributes = _attributes(payload[_IFADDR.size :])
    local = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if family not in (socket.AF_INET, socket.AF_INET6) or not local:
        return None
    ours = attributes.get(_IFA_PROTO, b"\0")[0] == OUR_MARK
    usable = ours or not flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED)
    secondary = family == socket.AF_INET and flags & _IFA_F_SECONDARY != 0  # for IPv6 the bit means "temporary"
    return Told(InterfaceAddress(index, ip_address(local), prefix_len, ours), there and usable, secondary)
