"""`ipvsadm -L` and `-S` of whatever has a table: a gateway, a plan, a kernel. Pure: a `Source` does the reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from lbnode.cli.ipvsadm import listing
from lbnode.cli.ipvsadm.grammar import Command
from lbnode.cli.ipvsadm.values import GrammarError, Host
from lbnode.model import ServiceId, Timeouts

Json = Mapping[str, Any]
LISTED_NOTHING = 1  # exit code when the one service to list is not there


class Source(Protocol):
    """Rows are as GET /api/v1/services and /api/v1/connections give them."""

    def title(self) -> str: ...

    def services(self) -> Sequence[Json]: ...

    def service(self, service_id: ServiceId) -> Json | None: ...

    def connections(self) -> Iterable[Json]: ...

    def timeouts(self) -> Timeouts: ...

    def daemons(self) -> Mapping[str, Json]:
        """ "master" and "backup", those that run, with what they use."""
        ...


def show(command: Command, source: Source, host: Host) -> Iterator[str]:
    """The lines of `-L` or `-S`. GrammarError: the service to list is not there."""
    options = command.options
    namer = listing.numeric if "numeric" in options else partial(_named, host)
    if command.name == "save":
        return _saved(source, namer, full="full" in options)
    if "connection" in options:
        return listing.connections(source.connections(), namer, persistence="persistent-conn" in options)
    if "timeout" in options:
        return iter([listing.timeouts(source.timeouts())])
    if "daemon" in options:
        return listing.daemons(source.daemons())
    if command.service is None:
        title, services = source.title(), source.services()
    else:
        found = source.service(command.service)
        if found is None:
            raise GrammarError("No such service", LISTED_NOTHING)
        title, services = None, [found]
    view, in_order = listing.view_of(options), "nosort" not in options
    return listing.table(services, view, namer, exact="exact" in options, title=title, in_order=in_order)


def _saved(source: Source, namer: listing.Namer, *, full: bool) -> Iterator[str]:
    yield from listing.saved(source.services(), namer, full=full)
    if full:
        yield from listing.saved_settings(source.timeouts(), source.daemons())


def _named(host: Host, address: str, port: int, protocol: str) -> str:
    """Host and service names where the system knows them, as ipvsadm shows without -n: 59 characters of them."""
    name = host.name_of(address) or address
    service = host.service_of(port, protocol) if protocol else None
    text = f"[{name}]:{service or port}" if ":" in address else f"{name}:{service or port}"
    return text[:_NAME_LENGTH]


_NAME_LENGTH = 59
