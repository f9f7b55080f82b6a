"""A tc program on an interface by the clsact qdisc and a cls_bpf filter: what kernels before 6.6 have instead of tcx.

rtnetlink(7) by hand, because it must work inside a running event loop and be over when the call returns: five requests,
each answered at once. The filter stays attached whoever dies. It is found again by its priority, its handle and its
name, which says whose it is. Numbers: include/uapi/linux/rtnetlink.h, pkt_sched.h and pkt_cls.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from lbnode.dataplane.xdp import syscall
from lbnode.errors import DataPlaneError

PRIORITY = 1000  # filters in front of it have a smaller number; those that name none come after it
HANDLE = 0x6C62  # "lb"; at one priority several cls_bpf filters may stand

_ETH_P_ALL = 3
INGRESS = 0xFFFFFFF2  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
EGRESS = 0xFFFFFFF3
_QDISC_PARENT, _QDISC_HANDLE = 0xFFFFFFF1, 0xFFFF0000  # TC_H_CLSACT
_ACT_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT: the program's result is the verdict
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_TCMSG = struct.Struct("=BxxxiIII")  # struct tcmsg: family, ifindex, handle, parent, info
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_NESTED = 0x8000
_RECEIVE = 1 << 16
_TIMEOUT_S = 5.0


class _Type(IntEnum):
    ERROR = 2  # NLMSG_ERROR; errno 0 acknowledges
    DONE = 3
    NEWQDISC = 36
    DELQDISC = 37
    NEWTFILTER = 44
    DELTFILTER = 45
    GETTFILTER = 46


class _Flag(IntEnum):
    REQUEST = 0x1
    ACK = 0x4
    DUMP = 0x300
    EXCL = 0x200
    CREATE = 0x400


class _Attribute(IntEnum):
    KIND = 1  # TCA_KIND
    OPTIONS = 2  # TCA_OPTIONS, with those of cls_bpf in it:
    BPF_FD = 6
    BPF_NAME = 7
    BPF_FLAGS = 8
    BPF_ID = 11


@dataclass(slots=True)
class Filter:
    """Our filter on one interface, in the network namespace of the calling thread. Contract: links.Link."""

    ifindex: int
    name: str
    prog_id: int
    parent: int  # INGRESS or EGRESS

    def swap(self, prog_fd: int) -> None:
        """Replace the program atomically: cls_bpf exchanges the filter of this handle under RCU."""
        _put(self.ifindex, self.parent, self.name, prog_fd, 0)
        self.prog_id = syscall.prog_info(prog_fd).id

    def detach(self) -> None:
        """Remove the filter, and the qdisc if nobody else has filters there."""
        try:
            _request(_Type.DELTFILTER, 0, _filter(self.ifindex, self.parent), _string(_Attribute.KIND, "bpf"))
            if not any(_filters(self.ifindex, parent) for parent in (INGRESS, EGRESS)):
                _request(_Type.DELQDISC, 0, _qdisc(self.ifindex), _string(_Attribute.KIND, "clsact"))
        except DataPlaneError as error:
            # ENODEV: the interface is gone, and the filter with it; EINVAL, ENOENT: somebody removed qdisc or filter
            if error.errno not in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
                raise

    def close(self) -> None:
        """The filter needs no descriptor."""


def attach(prog_fd: int, ifindex: int, directory: Path, parent: int) -> Filter:
    """Put the program on the interface, at INGRESS or EGRESS. `directory`: of the data plane that it belongs to."""
    name = _name(directory)
    try:
        _request(_Type.NEWQDISC, _Flag.CREATE | _Flag.EXCL, _qdisc(ifindex), _string(_Attribute.KIND, "clsact"))
    except DataPlaneError as error:
        if error.errno != errno.EEXIST:  # clsact, or the older ingress qdisc: both take our filter
            raise
    _put(ifindex, parent, name, prog_fd, _Flag.EXCL)
    return Filter(ifindex, name, syscall.prog_info(prog_fd).id, parent)


def adopt(directory: Path) -> list[Filter]:
    """The filters of this data plane in the current network namespace."""
    found = []
    for ifindex, _ in socket.if_nameindex():
        for parent in (INGRESS, EGRESS):
            for options in _filters(ifindex, parent):
                # As bytes: other kinds of filter have anything under this number.
                if options.get(_Attribute.BPF_NAME, b"").rstrip(b"\0") == _name(directory).encode():
                    (prog_id,) = struct.unpack("=I", options[_Attribute.BPF_ID])
                    found.append(Filter(ifindex, _name(directory), prog_id, parent))
    return found


def _name(directory: Path) -> str:
    return f"lbnode:{directory}"[:255]  # CLS_BPF_NAME_LEN, with the final zero


def _put(ifindex: int, parent: int, name: str, prog_fd: int, flags: int) -> None:
    options = (
        _number(_Attribute.BPF_FD, prog_fd)
        + _string(_Attribute.BPF_NAME, name)
        + _number(_Attribute.BPF_FLAGS, _ACT_DIRECT)
    )
    attributes = _string(_Attribute.KIND, "bpf") + _attribute(_Attribute.OPTIONS | _NESTED, options)
    _request(_Type.NEWTFILTER, _Flag.CREATE | flags, _filter(ifindex, parent), attributes)


def _filters(ifindex: int, parent: int) -> list[Mapping[int, bytes]]:
    """Options of all filters at one hook of an interface; none if it has no such qdisc."""
    found = []
    for body in _request(_Type.GETTFILTER, _Flag.DUMP, _TCMSG.pack(0, ifindex, 0, parent, 0), b""):
        handle = _TCMSG.unpack_from(body)[2]
        attributes = _attributes(body[_TCMSG.size :])
        if handle:  # the dump also names the priority, as a filter without a handle
            found.append(_attributes(attributes.get(_Attribute.OPTIONS, b"")))
    return found


# --- messages ------------------------------------------------------------------------------------------------------


def _qdisc(ifindex: int) -> bytes:
    return _TCMSG.pack(0, ifindex, _QDISC_HANDLE, _QDISC_PARENT, 0)


def _filter(ifindex: int, parent: int) -> bytes:
    return _TCMSG.pack(0, ifindex, HANDLE, parent, PRIORITY << 16 | socket.htons(_ETH_P_ALL))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _string(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _attributes(data: bytes) -> Mapping[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind & ~_NESTED] = data[_ATTRIBUTE.size : length]
        data = data[max(length + -length % 4, _ATTRIBUTE.size) :]
    return found


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message of a datagram."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[max(length + -length % 4, _HEADER.size) :]


def _request(kind: _Type, flags: int, head: bytes, attributes: bytes) -> list[bytes]:
    """Send one request and return the bodies of its answers. DataPlaneError with the kernel's errno."""
    flags |= _Flag.REQUEST | (0 if flags & _Flag.DUMP == _Flag.DUMP else _Flag.ACK)
    length = _HEADER.size + len(head) + len(attributes)
    found: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.send(_HEADER.pack(length, kind, flags, 1, 0) + head + attributes)
        while True:
            for answer, body in _messages(sock.recv(_RECEIVE)):
                if answer == _Type.DONE:
                    return found
                if answer != _Type.ERROR:
                    found.append(body)
                elif code := -struct.unpack_from("=i", body)[0]:
                    raise DataPlaneError(f"rtnetlink {kind.name}: {os.strerror(code)}", code)
                else:
                    return found
