"""`ipvsadm -S` -> an lbnode document. Pure: the lines are carried out on an empty table, as `lbadm -R` does.

Unlike `lbadm -R`, which does all or nothing, a line that cannot be taken over is listed and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lbnode.cli.ipvsadm.grammar import Command, parse
from lbnode.cli.ipvsadm.restore import script
from lbnode.cli.ipvsadm.table import Table
from lbnode.cli.ipvsadm.values import GrammarError, Host, Refused
from lbnode.config.imported import Imported, settled
from lbnode.config.keys import server_key, service_key
from lbnode.model import Problem, Severity

# Of no consequence for the table.
_LOOKING = ("list", "save", "zero", "help", "version", "restore")


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Names as this machine knows them; interfaces are those of the machine the lines came from, all there."""

    host: Host

    def address_of(self, name: str) -> str | None:
        return self.host.address_of(name)

    def name_of(self, address: str) -> str | None:
        return self.host.name_of(address)

    def port_of(self, service: str, protocol: str) -> int | None:
        return self.host.port_of(service, protocol)

    def service_of(self, port: int, protocol: str) -> str | None:
        return self.host.service_of(port, protocol)

    def mtu_of(self, interface: str) -> int | None:
        del interface
        return 1500

    def is_broadcast(self, address: str) -> bool:
        return address == "255.255.255.255"


def import_ipvsadm(text: str, name: str, host: Host) -> Imported:
    """`name` is what messages call the text; `host` knows the names in it, if it was saved without -n."""
    elsewhere = _Elsewhere(host)
    table = Table({}, elsewhere)
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    taken = 0
    for number, words in _lines(text):
        where, line = f"{name}:{number}", " ".join(words)
        try:
            command = parse(words, elsewhere)
            if command.name in _LOOKING:
                problems.append(Problem(where, line, "changes nothing", severity=Severity.WARNING))
                continue
            if left_out := _execute(command, table):
                problems.append(Problem(where, line, left_out))
        except (GrammarError, Refused) as error:
            problems.append(Problem(where, line, str(error).strip()))
        else:
            taken += 1
            origins.setdefault(_key(command), where)
    document, invalid = settled(table.changes()[0], origins)
    return Imported(document, (*problems, *invalid), taken)


def _execute(command: Command, table: Table) -> str:
    """Returns what had to be left out of the command."""
    try:
        table.execute(command)
    except Refused:
        if not command.persistence_engine:
            raise
        table.execute(replace(command, persistence_engine=""))
        return f"without the persistence engine {command.persistence_engine}: clients are told apart by address"
    return ""


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """As ipvsadm-restore(8) reads them: a # at the beginning of a line makes it a comment."""
    for number, words in enumerate(script(text.encode().split(b"\n")), 1):
        if words and not words[0].startswith("#"):
            yield number, words


def _key(command: Command) -> str:
    """What a command is about."""
    if command.service is None:
        return "settings"
    return server_key(command.service, command.server) if command.server else service_key(command.service)
