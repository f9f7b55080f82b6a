"""The words of ipvsadm(8) and how popt(3) splits a command line into them. Pure.

popt's rules: options may be bundled (`-Ln`) and values glued (`-rADDR`, `--weight=5`); no abbreviations; `-p` takes
the next word unless it begins with a dash; `--` ends the options; other words are kept for the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

# Each option once: long name -> letter. Inside, an option is called by its long name.
_LETTERS = {
    "add-service": "A", "edit-service": "E", "delete-service": "D", "clear": "C", "list": "L", "zero": "Z",
    "add-server": "a", "edit-server": "e", "delete-server": "d", "help": "h", "version": "v", "restore": "R",
    "save": "S", "tcp-service": "t", "udp-service": "u", "fwmark-service": "f", "scheduler": "s", "persistent": "p",
    "netmask": "M", "real-server": "r", "masquerading": "m", "ipip": "i", "gatewaying": "g", "weight": "w",
    "u-threshold": "x", "l-threshold": "y", "numeric": "n", "connection": "c", "exact": "X", "ipv6": "6", "ops": "o",
    "sched-flags": "b",
}  # fmt: skip
SHORT: Mapping[str, str] = MappingProxyType({letter: name for name, letter in _LETTERS.items()} | {"l": "list"})
LONG = frozenset(_LETTERS) | {
    "set", "start-daemon", "stop-daemon", "sctp-service", "mcast-interface", "syncid", "timeout", "daemon", "stats",
    "rate", "thresholds", "persistent-conn", "nosort", "sort", "pe", "mcast-group", "mcast-port", "mcast-ttl",
    "sync-maxlen", "tun-info", "tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum",
    "full", "fullnat",  # lbadm's own: `-S --full`, full NAT, which ip_vs has not
}  # fmt: skip
WITH_VALUE = frozenset({
    "tcp-service", "udp-service", "sctp-service", "fwmark-service", "scheduler", "netmask", "real-server", "weight",
    "u-threshold", "l-threshold", "start-daemon", "stop-daemon", "mcast-interface", "syncid", "pe", "sched-flags",
    "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen", "tun-type", "tun-port",
})  # fmt: skip
OPTIONAL_VALUE = "persistent"

# The command words, and what ipvsadm calls each command in its complaints.
COMMANDS: Mapping[str, str] = MappingProxyType({
    "add-service": "add-service", "edit-service": "edit-service", "delete-service": "delete-service",
    "clear": "flush", "list": "list", "add-server": "add-server", "delete-server": "delete-server",
    "edit-server": "edit-server", "set": "set", "start-daemon": "start-daemon", "stop-daemon": "stop-daemon",
    "restore": "restore", "save": "save", "zero": "zero", "help": "help", "version": "version",
})  # fmt: skip

UNKNOWN, MISSING, UNWANTED = "unknown option", "missing argument", "option does not take an argument"


class WordError(Exception):
    """popt's complaint about one word."""


class Words:
    """Iterate over (option, value or None); afterwards `rest` holds the words that are no options.

    `word`: the word read last, which complaints name, whole (`-nq: unknown option`).
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._next = 0
        self.word = ""
        self.rest: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        while self._next < len(self._argv):
            word = self._take()
            if word == "--":
                self.rest += self._argv[self._next :]
                return
            if word.startswith("--"):
                yield self._long(word[2:])
            elif word.startswith("-") and word != "-":
                yield from self._letters(word[1:])
            else:
                self.rest.append(word)

    def _take(self) -> str:
        self.word = self._argv[self._next]
        self._next += 1
        return self.word

    def _long(self, text: str) -> tuple[str, str | None]:
        name, equals, glued = text.partition("=")
        if name not in LONG:
            raise WordError(UNKNOWN)
        if name in WITH_VALUE or name == OPTIONAL_VALUE:
            return name, glued if equals else self._value(name)
        if equals:
            raise WordError(UNWANTED)
        return name, None

    def _letters(self, letters: str) -> Iterator[tuple[str, str | None]]:
        for position, letter in enumerate(letters, 1):
            name = SHORT.get(letter)
            if name is None:
                raise WordError(UNKNOWN)
            if name in WITH_VALUE or name == OPTIONAL_VALUE:
                glued = letters[position:]
                yield name, glued.removeprefix("=") if glued else self._value(name)
                return
            if letters[position:].startswith("="):
                raise WordError(UNWANTED)
            yield name, None

    def _value(self, name: str) -> str | None:
        there = self._next < len(self._argv)
        if name == OPTIONAL_VALUE:
            return self._take() if there and not self._argv[self._next].startswith("-") else None
        if not there:
            raise WordError(MISSING)
        return self._take()
