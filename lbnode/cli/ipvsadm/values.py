"""The values that ipvsadm's options take: addresses with ports, numbers, masks, marks, flags. Pure.

Each reads as ipvsadm 1.31 does, including what C's inet_aton() and strtol() take; names come from a `Host`.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from lbnode.model import GENERIC_FLAGS, SCHEDULER_FLAGS, Address, flags_of

DEFAULT_PERSISTENCE_S = 360
MAX_TIMEOUT_S = 31 * 24 * 3600
INT_MAX = 2**31 - 1


class GrammarError(Exception):
    """A complaint in ipvsadm's words, with its exit code."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OptionError(GrammarError):
    """popt's complaint about a word; ipvsadm goes on with the next line of a script, which it does after no other."""


class Refused(Exception):
    """What the kernel would say; ipvsadm's exit code for it is 255."""


class Host(Protocol):
    """What the machine knows: names of hosts and ports, and its interfaces. None: not known."""

    def address_of(self, name: str) -> str | None:
        """IPv4 address of a host name."""
        ...

    def name_of(self, address: str) -> str | None: ...

    def port_of(self, service: str, protocol: str) -> int | None: ...

    def service_of(self, port: int, protocol: str) -> str | None: ...

    def mtu_of(self, interface: str) -> int | None:
        """None: there is no such interface."""
        ...

    def is_broadcast(self, address: str) -> bool:
        """Whether an IPv4 address is the broadcast address of a network here."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: Address
    port: int | None  # None: not given


def endpoint(text: str, protocol: str, host: Host) -> Endpoint | None:
    """`192.0.2.1:80`, `192.0.2.1`, `[2001:db8::1]:80`, `2001:db8::1`, `name:http`; None if it is none of them.

    An IPv6 address takes a port only in brackets, and brackets need one.
    """
    name, colon, port = text, "", ""
    if text == "" or re.fullmatch("[0-9]+", text):
        return None
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or not port.startswith(":"):
            return None
        colon, port = ":", port[1:]
    address: Address | None = _ipv6(name)
    if address is None:
        name, colon, port = name.rpartition(":") if ":" in name else (name, "", "")
        address = _ipv4(name, host)
    if address is None:
        return None
    if not colon:
        return Endpoint(address, None)
    value = number(port, 0, 65535)
    if value is None:
        value = host.port_of(port, protocol)
    return None if value is None else Endpoint(address, value)


def _ipv6(text: str) -> IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if isinstance(address, IPv6Address) and "%" not in text else None


def _ipv4(text: str, host: Host) -> IPv4Address | None:
    try:
        return IPv4Address(socket.inet_aton(text))
    except (OSError, ValueError):
        known = host.address_of(text) if text else None
        return IPv4Address(known) if known else None


def number(text: str, low: int, high: int) -> int | None:
    """strtol(3) to the base 10: blanks before it and a sign are fine, anything after it is not."""
    if not re.fullmatch(r"[ \t\n\v\f\r]*[+-]?[0-9]+", text) or len(text) > 30:
        return None
    value = int(text)
    return value if low <= value <= high else None


def checked(text: str, low: int, high: int, what: str) -> int:
    value = number(text, low, high)
    if value is None:
        raise GrammarError(f"illegal {what} specified")
    return value


def fwmark(text: str) -> int:
    value = number(text, 1, 2**32 - 1)
    if value is None:
        raise GrammarError(f"invalid fwmark value `{text}' specified")
    return value


def timeout(text: str, low: int) -> int:
    """Seconds; 31 days at most."""
    value = number(text, low, MAX_TIMEOUT_S)
    if value is None:
        raise GrammarError(f"invalid timeout value `{text}' specified")
    return value


def netmask(text: str, host: Host) -> int:
    """The 32 bits of an IPv4 mask."""
    mask = _ipv4(text, host)
    if mask is None:
        raise GrammarError("illegal virtual server persistent mask specified")
    return int(mask)


def netmask6(text: str) -> int:
    """Prefix length, read by atoi(3): what does not begin with a number is 0."""
    match = re.match(r"\s*[+-]?[0-9]+", text)
    length = int(match[0]) if match else 0
    if not 1 <= length <= 128:
        raise GrammarError("illegal ipv6 netmask specified")
    return length


def multicast(text: str) -> Address:
    family = 6 if ":" in text else 4
    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != family or not address.is_multicast:
        raise GrammarError(f"invalid IPv{family} mcast-group `{text}'")
    return address


def scheduler_flags(text: str, scheduler: str) -> tuple[str, ...]:
    """Names as the model has them, in the order of their bits: flag-1 of sh is sh-fallback."""
    names = flags_of(scheduler)
    found = set()
    for flag in filter(None, text.split(",")):
        if flag in GENERIC_FLAGS:
            found.add(names[GENERIC_FLAGS.index(flag)])
        elif flag in names:
            found.add(flag)
        elif any(flag in flags for flags in SCHEDULER_FLAGS.values()):
            raise GrammarError(f"incompatible scheduler flag `{flag}'")
        else:
            raise GrammarError(f"invalid scheduler flag `{flag}'")
    return tuple(name for name in names if name in found)
