"""ipvsadm's commands on a cluster: changes go to its configuration, listings show this gateway's data plane."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lbnode.cli.client import ApiError, Client, segment
from lbnode.cli.ipvsadm import listing
from lbnode.cli.ipvsadm.grammar import TRY_HELP, USAGE, Command, parse
from lbnode.cli.ipvsadm.help import HELP, VERSION
from lbnode.cli.ipvsadm.restore import script
from lbnode.cli.ipvsadm.show import show
from lbnode.cli.ipvsadm.table import Table, rows, running
from lbnode.cli.ipvsadm.values import GrammarError, Host, Refused
from lbnode.model import ServiceId, Timeouts

Json = Mapping[str, Any]

# How long a change may take to reach the local data plane before lbadm says so.
PROGRAMMED_WITHIN_S = 5.0
# What of the settings a command is about, as the problems of /api/v1/status name it.
_FIELDS = {"set": "", "start-daemon": "sync_daemons"}


def run(argv: Sequence[str], client: Client, host: Host, lines: Iterable[bytes], first: int = 1) -> int:
    """One ipvsadm call; returns the exit code. `lines`: the script of -R, of which the first has the number `first`."""
    command = parse(argv, host)
    match command.name:
        case "help":
            print(HELP, end="")
        case "version":
            print(VERSION)
        case "list" | "save":
            _print(show(command, _Gateway(client, host), host))
        case "zero":
            _zero(command, client)
        case "restore":
            _restore(lines, client, host, first)
        case _:
            _change([command], client, host)
    return 0


# --- listing -------------------------------------------------------------------------------------------------


class _Gateway:
    """What this gateway's data plane has, and the configuration for what it does not tell."""

    def __init__(self, client: Client, host: Host) -> None:
        self._client = client
        self._host = host

    def title(self) -> str:
        return listing.title()

    def services(self) -> Sequence[Json]:
        found: Sequence[Json] = self._client.get("/api/v1/services")["services"]
        return found

    def service(self, service_id: ServiceId) -> Json | None:
        return next((service for service in self.services() if service["id"] == str(service_id)), None)

    def connections(self) -> Iterable[Json]:
        return self._client.lines("/api/v1/connections")

    def timeouts(self) -> Timeouts:
        return self._table().timeouts

    def daemons(self) -> Mapping[str, Json]:
        return running(self._table().daemons, self._host)

    def _table(self) -> Table:
        return Table(self._client.get("/api/v1/document")["document"], self._host)


class _Planned(_Gateway):
    """The same as it will be, before anybody has used it."""

    def __init__(self, table: Table, client: Client, host: Host) -> None:
        super().__init__(client, host)
        self._planned = table

    def services(self) -> Sequence[Json]:
        return list(rows(self._planned))

    def _table(self) -> Table:
        return self._planned


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


# --- changing ------------------------------------------------------------------------------------------------


def _zero(command: Command, client: Client) -> None:
    name = None if command.service is None else str(command.service)
    if name is not None and all(service["id"] != name for service in client.get("/api/v1/services")["services"]):
        raise Refused("No such service")
    client.call("POST", "/api/v1/zero", {"service": name})


def _restore(lines: Iterable[bytes], client: Client, host: Host, first: int) -> None:
    """All lines or none: the first that is wrong is named, and nothing has changed."""
    commands: list[tuple[int, Command]] = []
    for number, words in enumerate(script(lines), first):
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
                output += show(command, _Planned(table, client, host), host)
            elif command.name == "zero":
                if command.service is not None:
                    table.require(command.service)
                zeroes.append(command)
            elif command.name in ("help", "version"):
                output += HELP.splitlines() if command.name == "help" else [VERSION]
            else:
                table.execute(command)
        except (Refused, GrammarError) as error:
            if not numbers:
                raise
            message = _at(numbers[index], error)
            raise (Refused(message) if isinstance(error, Refused) else GrammarError(message, error.exit_code)) from None
    put, delete = table.changes()
    if put or delete:
        body = {"put": put, "delete": delete, "expect_revision": answer["revision"], "dry_run": False}
        result = client.call("POST", "/api/v1/changes", body)
        settings = [_FIELDS[command.name] for command in commands if command.name in _FIELDS]
        _await_programmed(client, result["revision"], put, settings)
    for command in zeroes:
        _zero(command, client)
    _print(output)


def _await_programmed(client: Client, revision: int, keys: Iterable[str], settings: Collection[str]) -> None:
    """Return when this gateway has tried it, so that the next listing shows it; what it refused is an error.

    settings: the touched fields of the settings, as in problems.
    """
    deadline = time.monotonic() + PROGRAMMED_WITHIN_S
    while (status := client.get("/api/v1/status"))["settled_revision"] < revision:
        if time.monotonic() >= deadline:
            raise ApiError(
                f"stored at revision {revision}, but not in this gateway's data plane after "
                f"{PROGRAMMED_WITHIN_S:g} s; see `lbctl status`",
                1,
            )
        time.sleep(0.005)
    if status["dataplane"]["kind"] == "ipvs":  # XDP has no sync daemons: they are for gateways that do
        for problem in status["problems"]:
            if problem["where"] == "settings" and problem["field"] in settings and problem["severity"] == "error":
                raise Refused(problem["message"])
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
