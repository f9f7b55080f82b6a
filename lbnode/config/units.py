"""Resolving one unit: a virtual service and the servers behind it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from healthcheck.spec import CheckSpec
from lbnode.config import build
from lbnode.config.check_document import CheckDocument
from lbnode.config.fields import did_you_mean
from lbnode.config.good import in_force, last_good_of, problems_of
from lbnode.config.keys import parse_key, service_key
from lbnode.config.schema import ServerDocument, ServiceDocument
from lbnode.config.value import Fault, parse_value
from lbnode.config.vip_groups import Groups
from lbnode.model import Problem, RealServer, ServerId, ServiceId, Severity, VirtualService
from lbnode.store.base import Entry


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What services refer to. A check without spec has an error itself."""

    checks: Mapping[str, CheckSpec | None]
    deleted_checks: Mapping[str, CheckSpec | None]
    groups: Groups


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    entries: Mapping[str, Entry] = field(default_factory=dict)  # the keys of this unit as the store has them
    good: Mapping[str, Entry] = field(default_factory=dict)  # those in force
    service: VirtualService | None = None
    servers: Mapping[str, RealServer] = field(default_factory=dict)  # in force, by key
    problems: tuple[Problem, ...] = ()
    check_name: str | None = None  # the check, VIP group that the service in force (or else the wrong one) refers to
    vip_group: str | None = None


def resolve_unit(
    text: str,
    changed: Iterable[str],
    entries: Mapping[str, Entry],
    before: Unit | None,
    cached: Mapping[str, Entry],
    around: Surroundings,
) -> Unit:
    """The unit of the service id `text` after the keys `changed`; `before` None: `cached` has the last good values."""
    changed = set(changed)
    own = dict(before.entries) if before else {}
    for key in changed:
        if key in entries:
            own[key] = entries[key]
        else:
            own.pop(key, None)
    good = before.good if before else {key: cached[key] for key in own if key in cached}
    key = service_key(text)
    if key not in own:
        return Unit(own, problems=tuple(_orphan(server, text) for server in own))
    chosen = _choose_service(key, own[key], good.get(key), around)
    if chosen.document is None or chosen.entry is None:
        faulty = (last_good_of(server, entry, None)[2] for server, entry in own.items() if server != key)
        told = (*chosen.problems, *chain.from_iterable(faulty))
        return Unit(own, problems=told, check_name=chosen.check_name, vip_group=chosen.vip_group)
    in_force_now, problems, servers = {key: chosen.entry}, list(chosen.problems), {}
    for server_key, entry in own.items():
        if server_key == key:
            continue
        if before and server_key not in changed and before.good.get(server_key) is entry:
            servers[server_key], in_force_now[server_key] = before.servers[server_key], entry
            continue
        used, document, found = last_good_of(server_key, entry, good.get(server_key))
        problems.extend(found)
        server_id = parse_key(server_key).server
        if used is not None and isinstance(document, ServerDocument) and server_id is not None:
            servers[server_key], in_force_now[server_key] = build.real_server(server_id, document), used
    service = build.virtual_service(
        ServiceId.parse(text),
        chosen.document,
        chosen.check,
        tuple(sorted(servers.values(), key=_server_order)),
        max(entry.revision for entry in in_force_now.values()),
    )
    if before is not None and before.service == service:
        service = before.service
    return Unit(own, in_force_now, service, servers, tuple(problems), chosen.check_name, chosen.vip_group)


def _server_order(server: RealServer) -> tuple[int, int, int]:
    return server.id.sort_key()


def _orphan(key: str, text: str) -> Problem:
    hint = f"put {service_key(text)} (an empty object {{}} takes all defaults), or delete this key"
    server = ServerId.__str__(server_id) if (server_id := parse_key(key).server) else ""
    return Problem(key, "", f"server {server} has no service: there is no key {service_key(text)}", hint)


@dataclass(frozen=True, slots=True)
class _Chosen:
    entry: Entry | None
    document: ServiceDocument | None
    check: CheckSpec | None
    problems: tuple[Problem, ...]
    check_name: str | None
    vip_group: str | None


def _choose_service(key: str, current: Entry, good: Entry | None, around: Surroundings) -> _Chosen:
    """The newest value of the service's key that can be in force, and what is wrong with the present one."""
    parsed = parse_value(parse_key(key), current.value)
    warnings = tuple(fault.at(key) for fault in parsed.faults if fault.severity is Severity.WARNING)
    faults = [fault for fault in parsed.faults if fault.severity is Severity.ERROR]
    refers: tuple[str | None, str | None] = (None, None)
    if isinstance(parsed.document, ServiceDocument):
        document = parsed.document
        refers = _references(document)
        was_good = good is not None and good.value == current.value
        check, wrong = _reference_faults(document, around)
        missing = [fault for fault in wrong if fault.severity is Severity.ERROR]
        warnings += tuple(fault.at(key) for fault in wrong if fault.severity is Severity.WARNING)
        warnings += _vip_warnings(key, document, around.groups)
        if was_good and missing:
            check = check or _retained(document, around)
            if check is not None or document.check is None:
                stays = tuple(fault.at(key, "the service stays as it was") for fault in missing)
                return _Chosen(current, document, check, stays + warnings, *refers)
        if not missing:
            return _Chosen(current, document, check, warnings, *refers)
        faults += missing
    problems = problems_of(key, faults, good) + warnings
    if good is not None and good.value != current.value:
        fallback = parse_value(parse_key(key), good.value).document
        if isinstance(fallback, ServiceDocument):
            check, _ = _reference_faults(fallback, around)
            check = check or _retained(fallback, around)
            if check is not None or fallback.check is None:
                return _Chosen(good, fallback, check, problems, *_references(fallback))
    if good is not None:
        problems = tuple(fault.at(key, in_force(None)) for fault in faults) + warnings
    return _Chosen(None, None, None, problems, *refers)


def _references(document: ServiceDocument) -> tuple[str | None, str | None]:
    return (document.check if isinstance(document.check, str) else None), document.vip_group


def _reference_faults(document: ServiceDocument, around: Surroundings) -> tuple[CheckSpec | None, list[Fault]]:
    """(the check to use, what is wrong with the references)."""
    faults: list[Fault] = []
    check = None
    if isinstance(document.check, CheckDocument):
        check = build.check_spec(document.check)
    elif document.check is not None:
        name = document.check
        check = around.checks.get(name)
        if name in around.deleted_checks:
            faults.append(Fault(("check",), f"check {name!r} was deleted", f"put checks/{name}, or change this field"))
        elif name not in around.checks:
            hint = did_you_mean(name, tuple(around.checks)) or f"put checks/{name}"
            faults.append(Fault(("check",), f"there is no check {name!r}", hint))
        elif check is None:
            faults.append(Fault(("check",), f"check {name!r} has an error itself", f"see the problem of checks/{name}"))
    group = document.vip_group
    if group is not None and group not in around.groups.names:
        hint = did_you_mean(group, tuple(sorted(around.groups.names))) or f"put vip-groups/{group}"
        faults.append(Fault(("vip_group",), f"there is no VIP group {group!r}", hint))
    return check, faults


def _retained(document: ServiceDocument, around: Surroundings) -> CheckSpec | None:
    return around.deleted_checks.get(document.check) if isinstance(document.check, str) else None


def _vip_warnings(key: str, document: ServiceDocument, groups: Groups) -> tuple[Problem, ...]:
    group = groups.in_force.get(document.vip_group or "")
    service_id = parse_key(key).service
    if group is None or service_id is None or service_id.address is None:
        return ()
    addresses = [vip.address for vip in group.addresses]
    if service_id.address in addresses:
        return ()
    listed = ", ".join(str(address) for address in addresses)
    message = f"{service_id.address} is not an address of VIP group {group.name} ({listed})"
    hint = f"add it to vip-groups/{group.name}, or nobody answers for it"
    return (Problem(key, "vip_group", message, hint, Severity.WARNING),)
