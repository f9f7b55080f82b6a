"""What the arguments of a directive are: numbers, addresses, switches. Each raises NoEqual with the reason. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address

from lbnode.config.keepalived.ledger import NoEqual
from lbnode.config.keepalived.tree import Directive
from lbnode.model import Address

_BOOL = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


def only(directive: Directive, low: int, high: int | None = None) -> tuple[str, ...]:
    """The arguments, `low` to `high` of them (default: exactly `low`)."""
    arguments = directive.arguments
    if len(arguments) < low:
        raise NoEqual("its value is missing")
    if len(arguments) > (low if high is None else high):
        extra = " ".join(arguments[low if high is None else high :])
        raise NoEqual(f"{extra!r} is too much in this line", "one directive in each line")
    return arguments


def text(directive: Directive) -> str:
    return only(directive, 1)[0]


def number(directive: Directive, low: int, high: int) -> int:
    """Whole, decimal."""
    return whole(text(directive), low, high)


def whole(word: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", word):
        raise NoEqual(f"{word!r} is not a whole number")
    value = int(word)
    if not low <= value <= high:
        raise NoEqual(f"{value} is not within {low} to {high}")
    return value


def seconds(directive: Directive, low: float, high: float) -> float:
    """TIMER of keepalived.conf(5): with a fraction down to microseconds."""
    word = text(directive)
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{0,12})?|\.[0-9]{1,12}", word):
        raise NoEqual(f"{word!r} is not a number of seconds")
    value = float(word)
    if not low <= value <= high:
        raise NoEqual(f"{value:g} s is not within {low:g} s to {high:g} s")
    return value


def switch(directive: Directive) -> bool:
    """Present without argument means yes."""
    words = only(directive, 0, 1)
    if not words:
        return True
    if words[0].lower() not in _BOOL:
        raise NoEqual(f"{words[0]!r} is neither yes nor no")
    return _BOOL[words[0].lower()]


def address(word: str) -> Address:
    try:
        if "%" in word:
            raise ValueError
        return ip_address(word)
    except ValueError:
        raise NoEqual(f"{word!r} is not an IP address") from None


def tidy(value: float) -> int | float:
    """For documents: 6.0 is written 6."""
    return int(value) if value == int(value) else value
