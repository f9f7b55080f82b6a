"""One store value -> a validated document, or every problem in it. Pure; raises nothing on any input.

The rules that need only the key and the text stand here; those that need other keys stand in resolve.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from pydantic import ValidationError

from lbnode.config.check_document import CheckDocument
from lbnode.config.fields import Document, did_you_mean
from lbnode.config.keys import Key
from lbnode.config.schema import SCHEMAS, ServerDocument, ServiceDocument, fields_at
from lbnode.model import L4Protocol, Problem, ServiceId, Severity

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem before it is known where the text stands: `path` leads to the field within the document."""

    path: Path
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    def at(self, where: str, more_hint: str = "") -> Problem:
        hint = "; ".join(part for part in (self.hint, more_hint) if part)
        return Problem(where, dotted(self.path), self.message, hint, self.severity)


@dataclass(frozen=True, slots=True)
class Parsed:
    """`document` is None if any fault is an error."""

    document: Document | None
    faults: tuple[Fault, ...] = ()


def dotted(path: Path) -> str:
    """("check", "expected_statuses", 0) -> check.expected_statuses[0]; names with dots or colons in brackets, too."""
    text = ""
    for part in path:
        bare = isinstance(part, str) and not {".", ":"} & set(part)
        text += f"[{part}]" if not bare else f".{part}" if text else str(part)
    return text


def parse_value(key: Key, text: str) -> Parsed:
    """Validate the JSON text of one store value."""
    parsed = _parse_text(key.kind, text)
    if parsed.document is None or key.service is None:
        return parsed
    return _with_key_faults(key, parsed)


def validate(key: Key, value: Any) -> Parsed:
    """Validate what JSON or YAML held for this key. None stands for {}: all defaults."""
    parsed = _validate_kind(key.kind, {} if value is None else value)
    return parsed if parsed.document is None else _with_key_faults(key, parsed)


def canonical(value: Mapping[str, Any]) -> str:
    """The JSON text that goes into the store."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# Most servers' values are the same few texts, and parsing one is far dearer than finding it here.
@lru_cache(maxsize=16384)
def _parse_text(kind: str, text: str) -> Parsed:
    value, fault = load_json(text)
    return Parsed(None, (fault,)) if fault else _validate_kind(kind, value)


class _DuplicateKey(ValueError):
    pass


def load_json(text: str) -> tuple[Any, Fault | None]:
    """Strict JSON (RFC 8259): no NaN, and no key twice in an object, which most parsers let pass silently."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant), None
    except json.JSONDecodeError as error:
        hint = 'example: {"weight": 2}' if not text.lstrip().startswith("{") else ""
        return None, Fault((), f"malformed JSON at line {error.lineno} column {error.colno}: {error.msg}", hint)
    except RecursionError:
        return None, Fault((), "malformed JSON: nested too deeply")
    except ValueError as error:
        return None, Fault((), f"malformed JSON: {error}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateKey(f"{name!r} stands twice in one object")
            seen.add(name)
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _validate_kind(kind: str, value: Any) -> Parsed:
    if not isinstance(value, dict):
        return Parsed(None, (Fault((), f"{_short(value)} is not an object", 'example: {"weight": 2}'),))
    try:
        document = SCHEMAS[kind].model_validate(value)
    except ValidationError as error:
        return Parsed(None, tuple(_document_fault(kind, detail) for detail in error.errors(include_url=False)))
    return Parsed(document, tuple(_warnings(document)))


def _document_fault(kind: str, detail: Any) -> Fault:
    # The branch of the union in "check" (schema: CheckReference) is no part of what people wrote.
    loc: Path = tuple(detail["loc"])
    path = tuple(part for at, part in enumerate(loc) if not (at == 1 and loc[0] == "check" and part in _BRANCHES))
    return fault_of({**detail, "loc": path}, lambda at: fields_at(kind, at))


def fault_of(detail: Mapping[str, Any], known_fields: Callable[[Path], tuple[str, ...]]) -> Fault:
    """One of pydantic's errors in our words. known_fields(path): the fields of the object that holds `path`."""
    path: Path = tuple(detail["loc"])
    value, context = detail.get("input"), detail.get("ctx", {})
    match detail["type"]:
        case "lbnode":
            return Fault(path, context["message"], context["hint"])
        case "extra_forbidden":
            return Fault(path, "unknown field", did_you_mean(str(path[-1]), known_fields(path)))
        case "missing":
            return Fault(path, "missing", "this field has no default")
        case "literal_error":
            known = tuple(context["expected"].replace("'", "").replace(" or ", ", ").split(", "))
            hint = did_you_mean(value, known) if isinstance(value, str) else f"known: {', '.join(known)}"
            return Fault(path, f"{_short(value)} is none of {', '.join(known)}", hint)
        case "int_type" | "float_type" | "string_type" | "bool_type" as wanted if wanted:
            word = {"int_type": "a whole number", "float_type": "a number", "string_type": "text"}.get(wanted)
            hint = "in YAML, put quotes around it" if wanted == "string_type" and not isinstance(value, dict) else ""
            return Fault(path, f"{_short(value)} is not {word or 'true or false'}", hint)
        case "less_than_equal":
            return Fault(path, f"{_short(value)} is out of range: at most {context['le']}")
        case "greater_than_equal":
            return Fault(path, f"{_short(value)} is out of range: at least {context['ge']}")
        case _:
            message = detail["msg"].removeprefix("Input ").removeprefix("Value ")
            return Fault(path, f"{_short(value)} {message}")


_BRANCHES = ("name", "inline")


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _warnings(document: Document) -> list[Fault]:
    check = document.check if isinstance(document, ServiceDocument) else document
    if isinstance(check, CheckDocument) and check.timeout > check.interval:
        path = ("check", "timeout") if check is not document else ("timeout",)
        message = f"{check.timeout:g} s is longer than the interval of {check.interval:g} s"
        return [Fault(path, message, "a slow answer delays the next check", Severity.WARNING)]
    return []


def _with_key_faults(key: Key, parsed: Parsed) -> Parsed:
    document, faults = parsed.document, []
    if key.service is not None and isinstance(document, ServiceDocument):
        faults = _service_faults(key, document)
    elif isinstance(document, ServerDocument):
        faults = _server_faults(key, document)
    if not faults:
        return parsed
    return Parsed(None, (*faults, *parsed.faults))


def _access_faults(service: ServiceId, document: ServiceDocument) -> Iterator[Fault]:
    bits = 32 if service.family == 4 else 128
    limit = document.new_connections
    if limit is not None and limit.prefix is not None and limit.prefix > bits:
        yield Fault(("new_connections", "prefix"), f"{limit.prefix} is above {bits} (IPv{service.family})")
    if "allow" in document.model_fields_set and not document.allow:
        yield Fault(("allow",), "an empty list allows nobody", 'leave it out to allow everybody; `"deny"` keeps out')
    for name, texts in (("allow", document.allow), ("deny", document.deny)):
        for number, text in enumerate(texts):
            if ip_network(text).version != service.family:
                yield Fault((name, number), f"{text} is no prefix of the service's family, IPv{service.family}")
    for text in sorted(set(document.allow) & set(document.deny)):
        yield Fault(("deny", document.deny.index(text)), f"{text} is in allow, too", "the same prefix cannot be both")


_TIMEOUTS_OF = {L4Protocol.TCP: ("tcp", "tcp_fin"), L4Protocol.SCTP: ("tcp", "tcp_fin"), L4Protocol.UDP: ("udp",)}


def _timeout_faults(service: ServiceId, document: ServiceDocument) -> Iterator[Fault]:
    if service.protocol is None:  # a firewall mark is of any
        return
    legal = _TIMEOUTS_OF[service.protocol]
    for name in ("tcp", "tcp_fin", "udp"):
        if name not in legal and getattr(document.timeouts, name) is not None:
            hint = f"those of {service.protocol} are: {', '.join(legal)}"
            yield Fault(("timeouts", name), f"not for {service.protocol}", hint)


def _service_faults(key: Key, document: ServiceDocument) -> list[Fault]:
    faults, service = [], key.service
    assert service is not None
    if document.one_packet and service.protocol not in (L4Protocol.UDP, None):  # ipvsadm(8), --ops
        faults.append(Fault(("one_packet",), f"only for UDP and firewall marks, not for {service.protocol}"))
    if document.syn_proxy is not None and service.protocol not in (L4Protocol.TCP, None):
        faults.append(Fault(("syn_proxy",), f"only for TCP and firewall marks, not for {service.protocol}"))
    if document.mss is not None and service.protocol not in (L4Protocol.TCP, None):
        faults.append(Fault(("mss",), f"only for TCP and firewall marks, not for {service.protocol}"))
    faults += _access_faults(service, document)
    faults += _timeout_faults(service, document)
    if service.port == 0 and not service.fwmark and not document.persistent:  # ipvsadm(8): port 0 needs -p
        message = "port 0 (every port of the address) needs a persistent service"
        faults.append(Fault(("persistent",), message, 'example: "persistent": 300'))
    bits = 32 if service.family == 4 else 128
    netmask = document.persistent_netmask
    if isinstance(netmask, str) and service.family == 6:
        faults.append(Fault(("persistent_netmask",), f"{netmask!r} is no prefix length (IPv6)", "example: 64"))
    if isinstance(netmask, int) and netmask > bits:
        faults.append(Fault(("persistent_netmask",), f"{netmask} is above {bits} (IPv4)"))
    if netmask == 0 and service.family == 6:  # ip_vs_add_service(): 1 to 128
        faults.append(Fault(("persistent_netmask",), "0 is out of range: at least 1 (IPv6)"))
    return faults


def _server_faults(key: Key, document: ServerDocument) -> list[Fault]:
    service, server = key.service, key.server
    assert service is not None and server is not None
    faults = []
    keeps_port = document.forward in ("direct", "tunnel")
    if keeps_port and not service.fwmark and server.port != service.port:
        # ipvsadm(8), -r: these packets are forwarded as they came, so the port in them is the service's.
        message = f"{document.forward} cannot change the port: {server.port} here, {service.port} in the service"
        faults.append(Fault(("forward",), message, f"use port {service.port} for this server, or forward masquerade"))
    if document.forward != "tunnel" and server.address.version != service.family:
        message = f"server {server.address} is IPv{server.address.version}, the service is IPv{service.family}"
        faults.append(Fault((), message, "only tunnel can carry one family in the other"))
    return faults
