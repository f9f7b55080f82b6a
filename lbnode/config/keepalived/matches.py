"""What a virtual_server matches: an address and port, a firewall mark, or a virtual_server_group of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network

from lbnode.config.keepalived.arguments import address, only, whole
from lbnode.config.keepalived.ledger import NoEqual
from lbnode.config.keepalived.tree import Directive
from lbnode.model import Address

MAX_RANGE = 65536  # addresses
MAX_MARK = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Match:
    """Address and port, or a firewall mark. `family` 4 or 6, None: not said (a mark's follows from its servers)."""

    address: Address | None = None
    port: int = 0
    fwmark: int = 0
    family: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    directive: Directive
    matches: Sequence[tuple[Directive, Match]]


def match_of(directive: Directive, words: Sequence[str]) -> Iterator[Match]:
    """`192.0.2.1 80`, `192.0.2.1-9 80`, `192.0.2.8/29 80`, `fwmark 7 [inet6]`. NoEqual."""
    if words and words[0] == "fwmark":
        arguments = only(Directive(("fwmark", *words[1:]), directive.place), 1, 2)
        if len(arguments) > 1 and arguments[1] not in ("inet", "inet6"):
            raise NoEqual(f"{arguments[1]!r} is neither inet nor inet6")
        family = None if len(arguments) == 1 else 6 if arguments[1] == "inet6" else 4
        yield Match(fwmark=whole(arguments[0], 1, MAX_MARK), family=family)
        return
    arguments = only(Directive((directive.name, *words), directive.place), 1, 2)
    port = whole(arguments[1], 0, 65535) if len(arguments) > 1 else 0
    for found in _addresses(arguments[0]):
        yield Match(found, port, family=found.version)


def _addresses(word: str) -> Iterator[Address]:
    if "-" in word:
        first, last = _ends(word)
        kind = type(first)
    elif "/" in word:
        try:
            network = ip_network(word)
        except ValueError as error:
            raise NoEqual(f"{word!r} is not a range of addresses: {error}") from None
        kind, first, last = type(network.network_address), network.network_address, network.broadcast_address
    else:
        yield address(word)
        return
    if int(last) - int(first) >= MAX_RANGE:
        raise NoEqual(f"{word!r}: more than {MAX_RANGE} addresses", "use a firewall mark")
    for value in range(int(first), int(last) + 1):
        yield kind(value)


def _ends(word: str) -> tuple[Address, Address]:
    """`192.0.2.1-9`, `192.0.2.1-192.0.3.9`, `2001:db8::1-f`: a short end replaces the last number."""
    start, _, end = word.partition("-")
    first = address(start)
    try:
        last = ip_address(end)
    except ValueError:
        ipv4 = isinstance(first, IPv4Address)
        try:
            number = int(end, 10 if ipv4 else 16)
        except ValueError:
            number = -1
        if not 0 <= number <= (0xFF if ipv4 else 0xFFFF) or not end.isalnum():
            raise NoEqual(f"{end!r} is not the end of a range of addresses") from None
        last = type(first)((int(first) & ~(0xFF if ipv4 else 0xFFFF)) | number)
    if last.version != first.version or int(last) < int(first):
        raise NoEqual(f"{word!r}: the end of the range is not behind its beginning")
    return first, last


def matches_of(directive: Directive, groups: Mapping[str, Group], used: set[str]) -> list[tuple[Directive, Match]]:
    """Of a virtual_server, with the directive that says so; `used` learns of the group. NoEqual."""
    words = directive.arguments
    if words and words[0] == "group":
        if len(words) != 2:
            raise NoEqual("the name of one group is missing here")
        if words[1] not in groups:
            raise NoEqual(f"there is no virtual_server_group {words[1]}")
        used.add(words[1])
        return list(groups[words[1]].matches)
    matches = [(directive, match) for match in match_of(directive, words)]
    if len(matches) > 1:
        raise NoEqual("a range of addresses stands in a virtual_server_group only")
    return matches
