"""lbadm: ipvsadm's commands and output, acting on the cluster's configuration and reading the local data plane.

What ipvsadm 1.31 does otherwise, and why, is listed in the README (lbadm and ipvsadm).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from lbnode.cli import ipvsadm_listing as listing
from lbnode.cli.client import ApiError, Client, segment
from lbnode.cli.ipvsadm_grammar import TRY_HELP, USAGE, Command, parse
from lbnode.cli.ipvsadm_host import SystemHost
from lbnode.cli.ipvsadm_table import Refused, Table, rows
from lbnode.cli.ipvsadm_values import GrammarError, Host

# How long a change may take to reach the local data plane before lbadm says so.
PROGRAMMED_WITHIN_S = 5.0
REFUSED = 255  # ipvsadm's exit code when the kernel says no
LISTED_NOTHING = 1  # ... when the one service to list is not there

VERSION = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)"
HELP = """lbadm takes the commands of ipvsadm(8). SERVICE is one of
  -t|-u|--sctp-service ADDRESS[:PORT]    -f MARK [-6]

  lbadm -A|-E SERVICE [-s scheduler] [-b flags] [-p [seconds]] [-M netmask] [-o]    add or change a service
  lbadm -D SERVICE                          remove a service             lbadm -C   remove all
  lbadm -a|-e SERVICE -r ADDRESS[:PORT] [-g|-m|-i] [-w weight] [-x upper] [-y lower]  add or change a server
        [--tun-type ipip|gue|gre] [--tun-port port] [--tun-nocsum|--tun-csum|--tun-remcsum]
  lbadm -d SERVICE -r ADDRESS[:PORT]        remove a server
  lbadm [-L|-l] [SERVICE | -c | --timeout | --daemon] [-n] [--stats | --rate | --thresholds | --persistent-conn |
        --tun-info] [-X|--exact] [--nosort]
  lbadm -S [-n] [--full]                    print commands that make this table again; --full: thresholds, timeouts
                                            and daemons too
  lbadm -R                                  do the commands on standard input, all of them or none
  lbadm -Z [SERVICE]                        zero counters
  lbadm --set tcp tcpfin udp                connection timeouts in seconds; 0 keeps one
  lbadm --start-daemon master|backup [--mcast-interface name] [--syncid id] [--sync-maxlen bytes]
        [--mcast-group address] [--mcast-port port] [--mcast-ttl ttl]
  lbadm --stop-daemon master|backup         IPVS only, as --start-daemon

Changes go to the cluster's configuration: every gateway follows. Listings show this gateway's data plane.
"""


def main(argv: Sequence[str] | None = None) -> int:
    return run(sys.argv[1:] if argv is None else argv, Client(), SystemHost())


def save() -> int:
    """ipvsadm-save(8)."""
    if any(word.startswith("-") and word != "-n" for word in sys.argv[1:]):
        print("ipvsadm-save: Script to save the IPVS table to stdout.", file=sys.stderr)
        print("   With the -n option, prints out the table in numeric format.", file=sys.stderr)
        return 1
    return main(["-S", "-n"] if "-n" in sys.argv[1:] else ["-S"])


def restore() -> int:
    """ipvsadm-restore(8): the table becomes what standard input says; lines that begin with # are comments."""
    lines = ["-C\n", *("\n" if line.startswith("#") else line for line in sys.stdin)]
    return _reporting(lambda: _restore(lines, Client(), SystemHost(), first=0))


def run(argv: Sequence[str], client: Client, host: Host) -> int:
    """One ipvsadm call, its output on stdout and its complaints on stderr; returns the exit code."""
    return _reporting(lambda: _run(parse(argv, host), client, host))


def _reporting(act: Any) -> int:
    try:
        return int(act())
    except GrammarError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    except ApiError as error:
        print(f"lbadm: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


def _run(command: Command, client: Client, host: Host) -> int:
    match command.name:
        case "help":
            print(HELP, end="")
        case "version":
            print(VERSION)
        case "list":
            return _list(command, client, host)
        case "save":
            _print(_save(command, Table(client.get("/api/v1/document")["document"], host), _services(client), host))
        case "zero":
            _zero(command, client)
        case "restore":
            return _restore(sys.stdin, client, host)
        case _:
            _change([command], client, host)
    return 0


# --- listing -------------------------------------------------------------------------------------------------


def _list(command: Command, client: Client, host: Host) -> int:
    if "connection" in command.options:
        persistence = "persistent-conn" in command.options
        items = client.lines("/api/v1/connections")
        _print(listing.connections(items, _namer(command, host), persistence=persistence))
        return 0
    if command.options & {"timeout", "daemon"}:
        table, services = Table(client.get("/api/v1/document")["document"], host), []
    else:
        table, services = Table({}, host), _services(client)
    try:
        _print(_listed(command, table, services, host))
    except Refused as error:
        print(error, file=sys.stderr)
        return LISTED_NOTHING
    return 0


def _listed(command: Command, table: Table, services: Sequence[Any], host: Host) -> list[str]:
    """Everything but connections. Refused: the service that was asked for is not there."""
    if "timeout" in command.options:
        return [listing.timeouts(table.timeouts)]
    if "daemon" in command.options:
        return list(listing.daemons(table.daemons, host.mtu_of))
    one = command.service is not None
    if one:
        services = [service for service in services if service["id"] == str(command.service)]
        if not services:
            raise Refused("No such service")
    view, namer, options = listing.view_of(command.options), _namer(command, host), command.options
    in_order, exact = "nosort" not in options, "exact" in options
    return list(listing.table(services, view, namer, exact=exact, full=not one, in_order=in_order))


def _save(command: Command, table: Table, services: Sequence[Any], host: Host) -> Iterator[str]:
    full = "full" in command.options
    yield from listing.saved(services, _namer(command, host), full=full)
    if full:
        yield from listing.saved_settings(table.timeouts, table.daemons)


def _services(client: Client) -> list[Any]:
    return list(client.get("/api/v1/services")["services"])


def _namer(command: Command, host: Host) -> listing.Namer:
    return listing.numeric if "numeric" in command.options else partial(_named, host)


def _named(host: Host, address: str, port: int, protocol: str) -> str:
    """Host and service names where the system knows them, as ipvsadm shows without -n."""
    name = host.name_of(address) or address
    service = host.service_of(port, protocol) if protocol else None
    return f"[{name}]:{service or port}" if ":" in address else f"{name}:{service or port}"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


# --- changing ------------------------------------------------------------------------------------------------


def _zero(command: Command, client: Client) -> None:
    name = None if command.service is None else str(command.service)
    if name is not None and all(service["id"] != name for service in _services(client)):
        raise Refused("No such service")
    client.call("POST", "/api/v1/zero", {"service": name})


def _restore(lines: Iterable[str], client: Client, host: Host, first: int = 1) -> int:
    """All lines or none: the first that is wrong is named, and nothing has changed. `first`: number of the first."""
    commands: list[tuple[int, Command]] = []
    for number, line in enumerate(lines, first):
        words = line.split()
        if words and words[0] == "ipvsadm":
            del words[0]
        if not words:
            continue
        try:
            command = parse(words, host)
            if command.name == "restore":
                raise GrammarError(TRY_HELP, USAGE)
        except GrammarError as error:
            raise GrammarError(_at(number, error), error.exit_code) from error
        commands.append((number, command))
    _change([command for _, command in commands], client, host, [number for number, _ in commands])
    return 0


def _at(number: int, error: Exception) -> str:
    return f"line {number}: {error}\nNothing was changed."


def _change(commands: Sequence[Command], client: Client, host: Host, numbers: Sequence[int] = ()) -> None:
    """One transaction. Listings among the commands show the table as it will be; zeroing waits until it is."""
    answer = client.get("/api/v1/document")
    table = Table(answer["document"], host)
    output: list[str] = []
    zeroes: list[Command] = []
    for index, command in enumerate(commands):
        try:
            if command.name in ("list", "save"):
                output += _planned(command, table, client, host)
            elif command.name == "zero":
                if command.service is not None:
                    table.require(command.service)
                zeroes.append(command)
            elif command.name in ("help", "version"):
                output += HELP.splitlines() if command.name == "help" else [VERSION]
            else:
                table.execute(command)
        except Refused as error:
            raise Refused(_at(numbers[index], error)) if numbers else error from None
    put, delete = table.changes()
    if put or delete:
        body = {"put": put, "delete": delete, "expect_revision": answer["revision"], "dry_run": False}
        result = client.call("POST", "/api/v1/changes", body)
        _await_programmed(client, result["revision"], put)
    for command in zeroes:
        _zero(command, client)
    _print(output)


def _planned(command: Command, table: Table, client: Client, host: Host) -> list[str]:
    if command.name == "save":
        return list(_save(command, table, list(rows(table)), host))
    if "connection" in command.options:
        persistence = "persistent-conn" in command.options
        items = client.lines("/api/v1/connections")
        return list(listing.connections(items, _namer(command, host), persistence=persistence))
    return _listed(command, table, list(rows(table)), host)


def _await_programmed(client: Client, revision: int, keys: Iterable[str]) -> None:
    """Return when this gateway has tried it, so that the next listing shows it; what it refused is an error."""
    deadline = time.monotonic() + PROGRAMMED_WITHIN_S
    while client.get("/api/v1/status")["settled_revision"] < revision:
        if time.monotonic() >= deadline:
            raise ApiError(
                f"stored at revision {revision}, but not in this gateway's data plane after "
                f"{PROGRAMMED_WITHIN_S:g} s; see `lbctl status`",
                1,
            )
        time.sleep(0.005)
    touched: dict[str, set[str]] = {}
    for key in keys:
        if key.startswith("services/"):
            service, _, server = key.removeprefix("services/").partition("/servers/")
            touched.setdefault(service, set()).add(server or service)
    for name, ids in touched.items():
        service = client.get(f"/api/v1/services/{segment(name)}")
        for item in (service, *service["servers"]):
            if (item["id"] in ids or item is service) and item["status"].startswith("error"):
                raise Refused(f"{item['id']}: {item['status']}")


if __name__ == "__main__":
    sys.exit(main())
