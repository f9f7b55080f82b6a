"""A generic netlink socket that speaks to ip_vs. Each socket stays in the network namespace it was made in.

The kernel carries requests out while they are sent, so their answers wait when send() returns: any number of requests
is two system calls, needs no event loop, leaves no acknowledgement behind and cannot get between two others.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from lbnode.dataplane.ipvs.codec import FAMILY_NAME, VERSION, Command
from lbnode.dataplane.ipvs.genl import (
    ACK,
    CONTROL_FAMILY,
    CONTROL_VERSION,
    DUMP,
    GET_FAMILY,
    Reply,
    family_id,
    family_request,
    message,
    replies,
)

_NETLINK_GENERIC = 16
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10  # linux/netlink.h: acknowledgements without a copy of the request
_READ = 1 << 16  # the kernel fills at most 32 KiB of a dump at a time
_PATIENCE = struct.pack("@ll", 2, 0)  # struct timeval
# Requests at a time: should the kernel refuse all of them, its answers (about 1 KiB of memory each) have to fit into
# the socket's buffer, which is 208 KiB by default.
BATCH = 32


class GenericNetlink:
    """Not for use by several threads at once. Errors are OSError with the kernel's errno.

    family: ip_vs's message type, if another socket's `connect` has found it already.
    """

    def __init__(self, family: int = 0) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, _NETLINK_GENERIC)
        self._socket.bind((0, 0))
        # Not settimeout(), which costs a poll() before each read.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._first = self._last = 0  # sequence numbers of the requests whose answers are awaited
        self.family = family

    def close(self) -> None:
        self._socket.close()

    def connect(self) -> None:
        """Look ip_vs up, which loads its module if need be (may take long). ENOENT: this kernel has none."""
        self._send(CONTROL_FAMILY, GET_FAMILY, CONTROL_VERSION, 0, family_request(FAMILY_NAME))
        for reply in self._answer():
            _check(reply)
            self.family = family_id(reply.body)
            return

    def do(self, command: Command, body: bytes = b"") -> None:
        """Change something and read the acknowledgement."""
        (code,) = self.do_all([(command, body)])
        if code:
            raise OSError(code, os.strerror(code))

    def do_all(self, requests: Sequence[tuple[Command, bytes]]) -> list[int]:
        """Change several things, at most BATCH, in this order; returns each one's errno, 0 if it was done.

        One that fails does not keep the next from being done.
        """
        codes = [0] * len(requests)
        if not requests:
            return codes
        self._number(len(requests))
        # An acknowledgement of the last alone: the kernel answers to what fails anyway (netlink_rcv_skb()), and each
        # answer takes a system call to read.
        self._socket.send(
            b"".join(
                message(self.family, command, VERSION, ACK if at == self._last else 0, at, body)
                for at, (command, body) in enumerate(requests, self._first)
            )
        )
        for reply in self._answer():
            codes[reply.sequence - self._first] = reply.errno or 0
            if reply.sequence == self._last:
                break
        return codes

    def get(self, command: Command, body: bytes = b"") -> bytes:
        """Ask for one object; without an acknowledgement, so that its answer is all there is to read."""
        self._send(self.family, command, VERSION, 0, body)
        for reply in self._answer():
            _check(reply)
            return reply.body
        raise AssertionError

    def dump(self, command: Command, body: bytes = b"") -> Iterator[list[bytes]]:
        """Ask for all objects; yields what each read brings (up to 32 KiB). Read it to the end, and begin no other
        request on this socket before."""
        self._send(self.family, command, VERSION, DUMP, body)
        while True:
            found, done = [], False
            for reply in self._read():
                _check(reply)
                done = done or reply.done
                if reply.errno is None:
                    found.append(reply.body)
            if found:
                yield found
            if done:
                return

    def _send(self, family: int, command: int, version: int, flags: int, body: bytes) -> None:
        self._number(1)
        self._socket.send(message(family, command, version, flags, self._last, body))

    def _number(self, count: int) -> None:
        """Take the sequence numbers of the next requests."""
        self._first = self._last + 1 if self._last + count <= 0xFFFFFFFF else 1
        self._last = self._first + count - 1

    def _read(self) -> list[Reply]:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel did not answer a netlink request") from None
        # Of another sequence: the rest of a dump that was given up.
        return [reply for reply in replies(data) if self._first <= reply.sequence <= self._last]

    def _answer(self) -> Iterator[Reply]:
        while True:
            yield from self._read()


def _check(reply: Reply) -> None:
    if reply.errno:
        raise OSError(reply.errno, os.strerror(reply.errno))
