"""What the kernel said about a connection, in words; and which of it is this machine's own fault."""

from __future__ import annotations

import errno
import os

# connect(2), socket(2): these tell about this machine, not about the server.
_LOCAL_FAULTS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN})

_CONNECT = {
    errno.ECONNREFUSED: "connect refused",
    errno.ECONNRESET: "connect: reset by the server",
    errno.EHOSTUNREACH: "connect: host unreachable (no answer to ARP or neighbour discovery, or an ICMP error)",
    errno.ENETUNREACH: "connect: no route to the server's network",
    errno.EADDRNOTAVAIL: "connect: no usable source address for the server's network",
    errno.EPERM: "connect: not permitted by a firewall rule of this machine",
    errno.EACCES: "connect: prohibited by a route or firewall rule",
    errno.ETIMEDOUT: "connect: no answer to SYN",
}


# What recv(2) tells about datagrams sent before: ICMP errors that came back (ip(7), raw(7)).
_DATAGRAM = {
    errno.ECONNREFUSED: "port unreachable",
    errno.EHOSTUNREACH: "host unreachable (no answer to ARP or neighbour discovery, or an ICMP error)",
    errno.ENETUNREACH: "no route to the server's network",
    errno.EADDRNOTAVAIL: "no usable source address for the server's network",
    errno.EPERM: "not permitted by a firewall rule of this machine",
    errno.EACCES: "prohibited by a route or firewall rule",
    errno.ENOPROTOOPT: "protocol unreachable",
}


class ProbeFailed(Exception):
    """The server failed the probe; the message is the Result's reason."""


class ProbeImpossible(Exception):
    """This machine could not probe; nothing is known about the server. The message says what to do."""


def raise_if_local(number: int) -> None:
    """ProbeImpossible if the error number tells about this machine instead of about the server."""
    if number in (errno.EMFILE, errno.ENFILE):
        raise ProbeImpossible(f"{os.strerror(number)} here: raise the limit (LimitNOFILE=, ulimit -n)")
    if number in _LOCAL_FAULTS:
        raise ProbeImpossible(f"{os.strerror(number)} here: free memory or lower the number of checks")


def connect_reason(number: int) -> str:
    """Why connect(2) failed with this error number. ProbeImpossible if it is not the server's fault."""
    raise_if_local(number)
    return _CONNECT.get(number) or f"connect: {os.strerror(number).lower()}"


def datagram_reason(number: int) -> str:
    """What became of a datagram, by error number. ProbeImpossible if it is not the server's fault."""
    raise_if_local(number)
    return _DATAGRAM.get(number) or os.strerror(number).lower()


def timeout_reason(timeout_s: float, phase: str) -> str:
    """`phase` continues the sentence: "connecting", "waiting for the answer"."""
    return f"timeout after {timeout_s:g} s {phase}"
