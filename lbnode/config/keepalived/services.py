"""virtual_server, virtual_server_group and real_server -> services with their servers: keepalived.conf(5), LVS. Pure.

What stands in a virtual_server is the default for its servers, wherever in the block it stands.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbnode.config.fields import MAX_SECONDS, did_you_mean
from lbnode.config.keepalived.arguments import address, number, only, switch, text, whole
from lbnode.config.keepalived.checks import (
    CHECKERS,
    NOT_GIVEN,
    TIMING_READERS,
    Candidate,
    Timing,
    candidate,
    choose,
)
from lbnode.config.keepalived.draft import Draft, name_for
from lbnode.config.keepalived.ledger import Ledger, NoEqual, Readers
from lbnode.config.keepalived.matches import Group, Match, match_of, matches_of
from lbnode.config.keepalived.tree import Directive
from lbnode.config.keys import server_key, service_key
from lbnode.model import (
    GENERIC_FLAGS,
    PERSISTENCE_ENGINES,
    SCHEDULERS,
    Address,
    L4Protocol,
    ServerId,
    ServiceId,
    flags_of,
)

DEFAULT_PERSISTENCE_S = 360
MAX_WEIGHT = 65535


@dataclass(slots=True)
class _Server:
    ledger: Ledger
    directive: Directive
    address: Address
    port: int | None  # None: the service's
    fields: dict[str, Any] = field(default_factory=dict)  # of its document
    forward: Mapping[str, Any] | None = None  # None: the service's
    inhibit: bool = False
    timing: Timing = NOT_GIVEN
    virtualhost: str = ""
    checkers: list[Directive] = field(default_factory=list)


@dataclass(slots=True)
class _Service:
    ledger: Ledger
    directive: Directive
    protocol: L4Protocol | None = None
    scheduler: str = "wlc"
    flags: list[tuple[str, Directive]] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)  # of its document
    forward: Mapping[str, Any] = field(default_factory=dict)
    inhibit: bool = False
    timing: Timing = NOT_GIVEN
    virtualhost: str = ""
    family: int | None = None  # of a firewall mark
    servers: list[_Server] = field(default_factory=list)


class Services:
    """Reads groups first, then virtual servers; `finish` lists what nobody used."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._groups: dict[str, Group] = {}
        self._used: set[str] = set()

    def read_group(self, directive: Directive) -> None:
        name = text(directive)
        if name in self._groups:
            raise NoEqual(f"there is a virtual_server_group {name} already")
        matches: list[tuple[Directive, Match]] = []
        for line in directive.items:
            try:
                matches += [(line, match) for match in match_of(line, line.words)]
            except NoEqual as error:
                self._draft.ledger.lacks(line, error.message, error.hint)
            else:
                self._draft.ledger.take(line)
        self._groups[name] = Group(directive, matches)

    def read_service(self, directive: Directive) -> None:
        ledger = self._draft.ledger
        matches = matches_of(directive, self._groups, self._used)
        service = _Service(ledger, directive)
        servers = [item for item in directive.items if item.name == "real_server"]
        defaults = [item for item in directive.items if item.name != "real_server"]
        ledger.read(defaults, _SERVICE, service, "virtual_server")
        ledger.read(servers, {"real_server": _real_server}, service, "virtual_server")
        if service.protocol is None and any(match.address for _, match in matches):
            ledger.note(directive, "no protocol given: keepalived takes UDP", "write: protocol TCP")
        document = _document(service, [match for _, match in matches])
        if len(matches) > 1 and "check" in document:
            document["check"] = self._shared_check(directive, document["check"])
        for line, match in matches:
            self._put(service, document, _service_id(service, match), line)

    def finish(self) -> None:
        for name in self._groups.keys() - self._used:
            self._draft.ledger.lacks(self._groups[name].directive, "no virtual_server uses this group")

    def _shared_check(self, directive: Directive, check: Mapping[str, Any]) -> str:
        """The services of a group refer to one check by name. TCP and UDP may share a group, so it may be there."""
        name = name_for(directive.arguments[-1], directive, self._draft.ledger)
        names = (name if again == 1 else f"{name}-{again}" for again in itertools.count(1))
        found = next(name for name in names if self._draft.entries.get(f"checks/{name}", check) == check)
        if f"checks/{found}" not in self._draft.entries:
            self._draft.put(f"checks/{found}", dict(check), directive)
        return found

    def _put(self, service: _Service, document: Mapping[str, Any], key: ServiceId, line: Directive) -> None:
        ledger = self._draft.ledger
        try:
            self._draft.put(service_key(key), dict(document), line)
        except NoEqual as error:
            ledger.lacks(service.directive, error.message, error.hint)
            return
        for server in service.servers:
            forward = service.forward if server.forward is None else server.forward
            port = key.port if server.port is None else server.port
            if forward and not key.fwmark and port != key.port:  # as lbadm: these packets keep the service's port
                ledger.note(server.directive, f"{forward['forward']} cannot change the port: {key.port} is used")
                port = key.port
            try:
                own = server_key(key, ServerId(server.address, port))
                self._draft.put(own, {**server.fields, **forward}, server.directive)
            except NoEqual as error:
                ledger.lacks(server.directive, error.message, error.hint)


def _service_id(service: _Service, match: Match) -> ServiceId:
    if match.fwmark:
        families = {server.address.version for server in service.servers}
        inet6 = (match.family or service.family or (6 if families == {6} else 4)) == 6
        return ServiceId(None, None, 0, fwmark=match.fwmark, inet6=inet6)
    return ServiceId(service.protocol or L4Protocol.UDP, match.address, match.port, inet6=match.family == 6)


def _document(service: _Service, matches: Sequence[Match]) -> dict[str, Any]:
    document: dict[str, Any] = {"scheduler": service.scheduler}
    if flags := _flags(service):
        document["flags"] = flags
    document |= service.fields
    if "persistent_netmask" in document and "persistent" not in document:
        del document["persistent_netmask"]
        service.ledger.note(service.directive, "persistence_granularity has no effect without persistence_timeout")
    candidates = [_candidates(service, server, matches) for server in service.servers]
    check = choose(candidates, service.directive, service.ledger)
    if check is not None:
        document["check"] = check
        document["when_down"] = _when_down(service)
    return document


def _flags(service: _Service) -> list[str]:
    """flag-1 of sh is sh-fallback. The kernel's order."""
    legal = flags_of(service.scheduler)
    found = set()
    for flag, directive in service.flags:
        name = legal[GENERIC_FLAGS.index(flag)] if flag in GENERIC_FLAGS else flag
        if name in legal:
            found.add(name)
        else:
            service.ledger.lacks(directive, f"not a flag of scheduler {service.scheduler}")
    return [name for name in legal if name in found]


def _candidates(service: _Service, server: _Server, matches: Sequence[Match]) -> tuple[Directive, Sequence[Candidate]]:
    """Those of its checkers that have an equal."""
    timing, host = server.timing.over(service.timing), server.virtualhost or service.virtualhost
    forward = service.forward if server.forward is None else server.forward
    # The ports the server will have here, and the one that keepalived checks.
    here = {match.port if forward or server.port is None else server.port for match in matches if match.address}
    here |= {server.port or 0 for match in matches if match.fwmark}
    checked = server.port if server.port is not None else min(here, default=0)
    found = []
    for directive in server.checkers:
        try:
            item = candidate(directive, service.ledger, server.address, checked, here == {checked}, timing, host)
            found.append(item)
        except NoEqual as error:
            service.ledger.lacks(directive, error.message, error.hint)
        else:
            service.ledger.take(directive)
    return server.directive, found


def _when_down(service: _Service) -> str:
    """keepalived removes a server that is down, unless inhibit_on_failure gives it weight 0."""
    inhibited = [service.inhibit or server.inhibit for server in service.servers]
    if any(inhibited) and not all(inhibited):
        message = "some servers have inhibit_on_failure: here all get it"
        service.ledger.note(service.directive, message, "lbnode has one when_down for each service")
    return "weight-zero" if any(inhibited) else "remove"


# --- readers -------------------------------------------------------------------------------------------------


def _real_server(service: _Service, directive: Directive) -> None:
    words = only(directive, 1, 2)
    port = whole(words[1], 0, 65535) if len(words) > 1 else None
    server = _Server(service.ledger, directive, address(words[0]), port)
    if any((other.address, other.port) == (server.address, server.port) for other in service.servers):
        raise NoEqual("stands twice in this virtual_server", "the first one counts")
    service.ledger.read((item for item in directive.items if item.name not in CHECKERS), _SERVER, server, "real_server")
    server.checkers = [item for item in directive.items if item.name in CHECKERS]
    service.servers.append(server)


def _scheduler(service: _Service, directive: Directive) -> None:
    name = text(directive)
    if name not in SCHEDULERS:
        raise NoEqual(f"{name!r} is not a scheduler", did_you_mean(name, SCHEDULERS))
    service.scheduler = name


def _flag(service: _Service, directive: Directive) -> None:
    only(directive, 0)
    service.flags.append((directive.name, directive))


def _method(target: _Service | _Server, directive: Directive) -> None:
    """lvs_method NAT | DR | TUN [type ipip | gue port N | gre] [nocsum | csum | remcsum]"""
    method, *options = only(directive, 1, 6)
    known = {"NAT": {}, "DR": {"forward": "direct"}, "TUN": {"forward": "tunnel"}}
    if method.upper() not in known:
        raise NoEqual(f"{method!r} is none of NAT, DR, TUN")
    forward: dict[str, Any] = dict(known[method.upper()])
    if options and method.upper() != "TUN":
        raise NoEqual(f"{' '.join(options)!r} is too much: only TUN takes options")
    while options:
        match options:
            case ["type", ("ipip" | "gue" | "gre") as kind, *rest]:
                forward["tunnel_type"], options = kind, rest
            case ["port", port, *rest]:
                forward["tunnel_port"], options = whole(port, 1, 65535), rest
            case [("nocsum" | "csum" | "remcsum") as checksum, *rest]:
                forward["tunnel_checksum"], options = checksum, rest
            case _:
                raise NoEqual(f"{options[0]!r} is no option of TUN")
    target.forward = forward


def _protocol(service: _Service, directive: Directive) -> None:
    try:
        service.protocol = L4Protocol(text(directive).lower())
    except ValueError:
        raise NoEqual(f"{text(directive)!r} is none of TCP, UDP, SCTP") from None


def _persistence_timeout(service: _Service, directive: Directive) -> None:
    words = only(directive, 0, 1)
    service.fields["persistent"] = whole(words[0], 1, MAX_SECONDS) if words else DEFAULT_PERSISTENCE_S


def _persistence_granularity(service: _Service, directive: Directive) -> None:
    """A mask in dots for IPv4, a prefix length for IPv6."""
    word = text(directive)
    if "." not in word:
        service.fields["persistent_netmask"] = whole(word, 1, 128)
        return
    mask = address(word)
    length = int(mask).bit_count()
    prefix = int(mask) == (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
    service.fields["persistent_netmask"] = length if prefix else str(mask)


def _persistence_engine(service: _Service, directive: Directive) -> None:
    name = text(directive)
    if name not in PERSISTENCE_ENGINES:
        raise NoEqual(f"{name!r} is not a persistence engine", did_you_mean(name, PERSISTENCE_ENGINES))
    service.fields["persistence_engine"] = name


def _ops(service: _Service, directive: Directive) -> None:
    only(directive, 0)
    service.fields["one_packet"] = True


def _ip_family(service: _Service, directive: Directive) -> None:
    word = text(directive)
    if word not in ("inet", "inet6"):
        raise NoEqual(f"{word!r} is neither inet nor inet6")
    service.family = 6 if word == "inet6" else 4


def _inhibit(target: _Service | _Server, directive: Directive) -> None:
    target.inhibit = switch(directive)


def _virtualhost(target: _Service | _Server, directive: Directive) -> None:
    target.virtualhost = text(directive)


def _quorum(_: _Service, directive: Directive) -> None:
    if number(directive, 0, 2**31 - 1) > 1:
        raise NoEqual("no equal yet", "a service goes on with the servers that are up; alert on /metrics")


def _hysteresis(_: _Service, directive: Directive) -> None:
    if number(directive, 0, 2**31 - 1):
        raise NoEqual("no equal yet", "a check's rise and fall keep a server from flapping")


def _weight(server: _Server, directive: Directive) -> None:
    server.fields["weight"] = number(directive, 0, MAX_WEIGHT)


def _threshold(server: _Server, directive: Directive) -> None:
    name = {"u": "upper_threshold", "l": "lower_threshold"}[directive.name[0]]
    server.fields[name] = number(directive, 0, 2**31 - 1)


_BOTH: Readers[Any] = {
    **TIMING_READERS,
    "lvs_method": _method, "lb_kind": _method, "inhibit_on_failure": _inhibit, "virtualhost": _virtualhost,
}  # fmt: skip
_SERVICE: Readers[_Service] = {
    **_BOTH,
    "lvs_sched": _scheduler, "lb_algo": _scheduler, "protocol": _protocol, "ops": _ops, "ip_family": _ip_family,
    "persistence_engine": _persistence_engine, "persistence_timeout": _persistence_timeout,
    "persistence_granularity": _persistence_granularity,
    "quorum": _quorum, "hysteresis": _hysteresis,
    **dict.fromkeys((*GENERIC_FLAGS, "sh-port", "sh-fallback", "mh-port", "mh-fallback"), _flag),
}  # fmt: skip
_SERVER: Readers[_Server] = {**_BOTH, "weight": _weight, "uthreshold": _threshold, "lthreshold": _threshold}
