"""The grammar of ipvsadm(8): argument list -> Command. Pure.

Covers the commands and options of everyday work; words, order and wording of complaints are those of ipvsadm 1.31.
What this does not know yet is refused by name, never ignored.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from lbnode.model import L4Protocol, ServerId, ServiceId

DEFAULT_PERSISTENCE_S = 360  # ipvsadm(8) -p
MAX_TIMEOUT_S = 31 * 24 * 3600

FORWARD = {"-g": "direct", "-m": "masquerade", "-i": "tunnel"}
COMMANDS = {
    "-A": "add-service", "-E": "edit-service", "-D": "delete-service", "-C": "flush",
    "-a": "add-server", "-e": "edit-server", "-d": "delete-server", "-L": "list", "-l": "list", "-Z": "zero",
    "-S": "save",
}  # fmt: skip
LONG = {
    "--add-service": "-A", "--edit-service": "-E", "--delete-service": "-D", "--clear": "-C", "--add-server": "-a",
    "--edit-server": "-e", "--delete-server": "-d", "--list": "-L", "--zero": "-Z", "--save": "-S",
    "--tcp-service": "-t", "--udp-service": "-u", "--fwmark-service": "-f", "--real-server": "-r",
    "--scheduler": "-s", "--persistent": "-p", "--netmask": "-M", "--gatewaying": "-g", "--masquerading": "-m",
    "--ipip": "-i", "--weight": "-w", "--u-threshold": "-x", "--l-threshold": "-y", "--numeric": "-n",
    "--connection": "-c", "--ops": "-o", "--ipv6": "-6", "--sched-flags": "-b", "--stats": "--stats",
    "--rate": "--rate", "--exact": "--exact", "--sctp-service": "--sctp-service", "--thresholds": "--thresholds",
    "--sort": "--sort", "--nosort": "--nosort", "--version": "-v", "--help": "-h",
}  # fmt: skip
WITH_VALUE = frozenset({"-t", "-u", "-f", "--sctp-service", "-r", "-s", "-M", "-w", "-x", "-y", "-b"})

# What ipvsadm calls an option in its complaints, and which commands take it ("list" rows are views of the table).
_SERVICE_COMMANDS = ("add-service", "edit-service")
_SERVER_COMMANDS = ("add-server", "edit-server")
LEGAL: Mapping[str, tuple[str, ...]] = {
    "service-address": (
        "add-service", "edit-service", "delete-service", "add-server", "edit-server", "delete-server", "list", "zero",
    ),
    "scheduler": _SERVICE_COMMANDS,
    "sched-flags": _SERVICE_COMMANDS,
    "persistent": _SERVICE_COMMANDS,
    "netmask": _SERVICE_COMMANDS,
    "ops": _SERVICE_COMMANDS,
    "real-server": (*_SERVER_COMMANDS, "delete-server"),
    "forwarding-method": _SERVER_COMMANDS,
    "weight": _SERVER_COMMANDS,
    "u-threshold": _SERVER_COMMANDS,
    "l-threshold": _SERVER_COMMANDS,
    "numeric": ("list", "save"),
    "connection": ("list",),
    "stats": ("list",),
    "rate": ("list",),
    "exact": ("list",),
    "thresholds": ("list",),
    "sort": ("list",),
    "nosort": ("list",),
}  # fmt: skip
NEEDED: Mapping[str, tuple[str, ...]] = {
    "add-service": ("service-address",),
    "edit-service": ("service-address",),
    "delete-service": ("service-address",),
    "add-server": ("service-address", "real-server"),
    "edit-server": ("service-address", "real-server"),
    "delete-server": ("service-address", "real-server"),
}


class GrammarError(Exception):
    """A complaint in ipvsadm's words, with its exit code."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Command:
    """One ipvsadm call. None = not given; `options` holds ipvsadm's names of the options that were given."""

    name: str
    service: ServiceId | None = None
    server: ServerId | None = None
    scheduler: str | None = None
    sched_flags: tuple[str, ...] = ()
    persistent_s: int = 0
    netmask: int | None = None
    one_packet: bool = False
    forward: str | None = None
    weight: int | None = None
    upper_threshold: int = 0
    lower_threshold: int = 0
    options: frozenset[str] = field(default_factory=frozenset)


def parse(argv: Sequence[str]) -> Command:
    """GrammarError in ipvsadm's words for anything that ipvsadm would refuse."""
    command = Command("")
    seen: set[str] = set()
    real_server = ""
    ipv6 = False
    for option, value in _options(argv):
        if option in COMMANDS:
            if command.name:
                raise GrammarError("multiple commands specified")
            command = replace(command, name=COMMANDS[option])
            continue
        if option in ("-v", "-h"):
            return Command({"-v": "version", "-h": "help"}[option])
        if option == "-6":
            ipv6 = True
            continue
        name = _NAMES.get(option)
        if name is None:
            raise GrammarError(f"{option}: lbadm does not know this option yet")
        if name in seen:
            raise GrammarError(f"multiple '{name}' options specified")
        seen.add(name)
        if option == "-r":
            real_server = value
        else:
            command = _SETTERS[option](command, option, value)
    if not command.name:
        if seen:
            raise GrammarError("No command specified, use -h to see help", 2)
        command = replace(command, name="list")
    command = replace(command, options=frozenset(seen))
    _check_legal(command)
    if command.service is not None and command.service.fwmark and ipv6:
        command = replace(command, service=replace(command.service, inet6=True))
    _check_port(command)
    if real_server:
        command = replace(command, server=_server(command, real_server))
    return command


def _check_legal(command: Command) -> None:
    for needed in NEEDED.get(command.name, ()):
        if needed not in command.options:
            raise GrammarError(f"You need to supply the '{needed}' option for the '{command.name}' command")
    for option in sorted(command.options):
        if command.name not in LEGAL[option]:
            raise GrammarError(f"Illegal '{option}' option with the '{command.name}' command")
    views = command.options & {"connection", "stats", "rate", "thresholds"}
    if "connection" in views and "service-address" in command.options:
        raise GrammarError("The option 'service-address' conflicts with the 'connection' option in the 'list' command")
    if len(views) > 1:
        raise GrammarError("options conflicts in the list command")


def _check_port(command: Command) -> None:
    service = command.service
    if command.name in _SERVICE_COMMANDS and service is not None and not service.fwmark:
        if not service.port and not command.persistent_s:
            raise GrammarError("Zero port specified for non-persistent service")
        if command.one_packet and service.protocol is not L4Protocol.UDP:
            raise GrammarError("One-Packet Scheduling is only for UDP virtual services")


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) as popt splits them: `-Ln`, `-t192.0.2.1:80`, `--scheduler=rr`, `-p [seconds]`."""
    words = list(argv)
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            long, equals, value = word.partition("=")
            option = LONG.get(long)
            if option is None:
                raise GrammarError(f"{long}: unknown option", 255)
            if option in WITH_VALUE and not equals:
                value = _value(option, words)
            elif option == "-p" and not equals:
                value = _optional(words)
            yield option, value
        elif word.startswith("-") and len(word) > 1:
            yield from _short(word[1:], words)
        else:
            raise GrammarError(f"unexpected argument {word}")


def _short(letters: str, words: list[str]) -> Iterator[tuple[str, str]]:
    for position, letter in enumerate(letters):
        option, rest = f"-{letter}", letters[position + 1 :]
        if option in WITH_VALUE:
            yield option, rest.removeprefix("=") or _value(option, words)
            return
        if option == "-p":
            yield option, rest or _optional(words)
            return
        if option not in COMMANDS and option not in LONG.values():
            raise GrammarError(f"{option}: unknown option", 255)
        yield option, ""


def _value(option: str, words: list[str]) -> str:
    if not words:
        raise GrammarError(f"{option}: missing argument", 255)
    return words.pop(0)


def _optional(words: list[str]) -> str:
    return words.pop(0) if words and not words[0].startswith("-") else ""


# --- values --------------------------------------------------------------------------------------------------


def _service(command: Command, option: str, value: str) -> Command:
    if option == "-f":
        if not value.isdecimal() or not 0 < int(value) < 2**32:
            raise GrammarError(f"invalid fwmark value `{value}' specified")
        return replace(command, service=ServiceId(None, None, 0, fwmark=int(value)))
    protocol = {"-t": L4Protocol.TCP, "-u": L4Protocol.UDP, "--sctp-service": L4Protocol.SCTP}[option]
    try:
        address, port = _endpoint(value, str(protocol))
    except ValueError as error:
        raise GrammarError("illegal virtual server address[:port] specified") from error
    service = ServiceId.of(str(protocol), address, port)
    return replace(command, service=service)


def _server(command: Command, value: str) -> ServerId:
    """A real server without a port has the service's; direct and tunnel servers always have (ipvsadm(8) -r)."""
    assert command.service is not None
    try:
        address, port = _endpoint(value, str(command.service.protocol or L4Protocol.TCP))
        parsed = ip_address(address)
    except ValueError as error:
        raise GrammarError("illegal real server address[:port] specified") from error
    own_port = command.name == "delete-server" or command.forward == "masquerade"
    return ServerId(parsed, port if port and own_port else command.service.port)


def _endpoint(text: str, protocol: str) -> tuple[str, int]:
    """`192.0.2.1:80`, `192.0.2.1`, `[2001:db8::1]:80`, `2001:db8::1`; names are looked up. ValueError."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        number = int(port) if port.isdecimal() else socket.getservbyname(port, protocol) if port else 0
        address = str(ip_address(host)) if _is_address(host) else socket.gethostbyname(host)
    except OSError as error:
        raise ValueError(str(error)) from error
    if number > 65535:
        raise ValueError(f"port {number}")
    return address, number


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _number(value: str, low: int, high: int, complaint: str) -> int:
    """As C's strtol with base 0 takes it: signs, 0x and leading zeros (octal)."""
    digits = value.strip().removeprefix("+")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1:].isdecimal()
    try:
        number = int(digits, 8 if octal else 0)
    except ValueError as error:
        raise GrammarError(complaint) from error
    if not low <= number <= high:
        raise GrammarError(complaint)
    return number


def _persistent(command: Command, _: str, value: str) -> Command:
    if not value:
        return replace(command, persistent_s=DEFAULT_PERSISTENCE_S)
    complaint = f"invalid timeout value `{value}' specified"
    if not value.isdecimal():
        raise GrammarError(complaint)
    return replace(command, persistent_s=_number(value, 1, MAX_TIMEOUT_S, complaint))


def _netmask(command: Command, _: str, value: str) -> Command:
    if value.isdecimal():
        return replace(command, netmask=_number(value, 1, 128, "illegal ipv6 netmask specified"))
    try:
        bits = int(ip_address(value))
    except ValueError as error:
        raise GrammarError("illegal virtual server persistent mask specified") from error
    length = bits.bit_count()
    if bits != (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF:
        raise GrammarError("illegal virtual server persistent mask specified")
    return replace(command, netmask=length)


def _flags(command: Command, _: str, value: str) -> Command:
    return replace(command, sched_flags=tuple(filter(None, value.split(","))))


def _weight(command: Command, _: str, value: str) -> Command:
    return replace(command, weight=_number(value, 0, 2**31 - 1, "illegal weight specified"))


def _threshold(command: Command, option: str, value: str) -> Command:
    which = {"-x": "u_threshold", "-y": "l_threshold"}[option]
    number = _number(value, 0, 2**32 - 1, f"illegal {which} specified")
    return replace(command, upper_threshold=number) if option == "-x" else replace(command, lower_threshold=number)


def _nothing(command: Command, _option: str, _value: str) -> Command:
    return command


_NAMES: Mapping[str, str] = {
    "-t": "service-address", "-u": "service-address", "-f": "service-address", "--sctp-service": "service-address",
    "-r": "real-server", "-s": "scheduler", "-b": "sched-flags", "-p": "persistent", "-M": "netmask", "-o": "ops",
    "-g": "forwarding-method", "-m": "forwarding-method", "-i": "forwarding-method", "-w": "weight",
    "-x": "u-threshold", "-y": "l-threshold", "-n": "numeric", "-c": "connection", "--stats": "stats",
    "--rate": "rate", "--exact": "exact", "--thresholds": "thresholds", "--sort": "sort", "--nosort": "nosort",
}  # fmt: skip
_SETTERS: Mapping[str, Callable[[Command, str, str], Command]] = {
    "-t": _service, "-u": _service, "-f": _service, "--sctp-service": _service,
    "-s": lambda command, _, value: replace(command, scheduler=value),
    "-b": _flags, "-p": _persistent, "-M": _netmask, "-w": _weight, "-x": _threshold, "-y": _threshold,
    "-o": lambda command, _option, _value: replace(command, one_packet=True),
    "-g": lambda command, option, _: replace(command, forward=FORWARD[option]),
    "-m": lambda command, option, _: replace(command, forward=FORWARD[option]),
    "-i": lambda command, option, _: replace(command, forward=FORWARD[option]),
    "-n": _nothing, "-c": _nothing, "--stats": _nothing, "--rate": _nothing, "--exact": _nothing,
    "--thresholds": _nothing, "--sort": _nothing, "--nosort": _nothing,
}  # fmt: skip
