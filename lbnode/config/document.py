"""Whole documents, as `lbctl apply -f` takes them <-> documents by key. Pure.

services:
  tcp:192.0.2.10:80:
    scheduler: wrr
    servers:
      198.51.100.21:80: {weight: 2}
vip-groups: {...}   checks: {...}   settings: {...}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lbnode.config.fields import did_you_mean
from lbnode.config.keys import parse_key, server_key, service_key
from lbnode.config.value import Fault, Path, load_json
from lbnode.errors import ConfigError
from lbnode.store.base import Entry

SECTIONS = ("services", "vip-groups", "checks", "settings")


@dataclass(frozen=True, slots=True)
class Part:
    """One key's document within a whole document."""

    key: str
    path: Path  # where it stands
    value: Any  # not validated; servers are taken out of services


def split(document: object) -> tuple[list[Part], list[Fault]]:
    """Take a whole document apart. Anything may come in; what is wrong with its structure comes out as faults."""
    if not isinstance(document, Mapping):
        return [], [Fault((), "this is not a map", f"the top level holds {', '.join(SECTIONS)}")]
    parts: list[Part] = []
    faults: list[Fault] = []
    for section, content in document.items():
        if section not in SECTIONS:
            faults.append(Fault((str(section),), "unknown section", did_you_mean(str(section), SECTIONS)))
        elif section == "settings":
            parts.append(Part("settings", ("settings",), content))
        elif content is not None and not isinstance(content, Mapping):
            faults.append(Fault((section,), "this is not a map of names to objects"))
        elif section == "services":
            _split_services(content or {}, parts, faults)
        else:
            for name, value in (content or {}).items():
                _add(f"{section}/{name}", (section, str(name)), value, parts, faults)
    return parts, faults


def _split_services(services: Mapping[Any, Any], parts: list[Part], faults: list[Fault]) -> None:
    for service, value in services.items():
        path: Path = ("services", str(service))
        own = {name: item for name, item in value.items() if name != "servers"} if isinstance(value, Mapping) else value
        if not _add(service_key(str(service)), path, own, parts, faults):
            continue
        servers = value.get("servers") if isinstance(value, Mapping) else None
        if servers is not None and not isinstance(servers, Mapping):
            faults.append(Fault((*path, "servers"), "this is not a map of ADDRESS:PORT to objects"))
            continue
        for server, item in (servers or {}).items():
            _add(server_key(str(service), str(server)), (*path, "servers", str(server)), item, parts, faults)


def _add(key: str, path: Path, value: Any, parts: list[Part], faults: list[Fault]) -> bool:
    try:
        parse_key(key)
    except ValueError as error:
        faults.append(Fault(path, str(error)))
        return False
    parts.append(Part(key, path, value))
    return True


def document_to_entries(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Documents by key. ConfigError if the structure is wrong; the documents themselves are not validated."""
    parts, faults = split(document)
    problems = [str(fault.at("document")) for fault in faults]
    result: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        if part.value is not None and not isinstance(part.value, Mapping):
            problems.append(str(Fault(part.path, "this is not an object").at("document")))
        else:
            result[part.key] = part.value or {}
    if problems:
        raise ConfigError("\n".join(problems))
    return result


def entries_to_document(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The inverse; keys in a stable order, empty sections left out. Keys that are no configuration are left out."""
    result: dict[str, Any] = {}
    parsed = []
    for key, value in documents.items():
        try:
            parsed.append((parse_key(key), key, value))
        except ValueError:
            continue
    services: dict[str, Any] = {}
    for at, _, value in sorted((item for item in parsed if item[0].service), key=_service_order):
        service = services.setdefault(str(at.service), {})
        if at.server is None:
            service.update(value)
        else:
            service.setdefault("servers", {})[str(at.server)] = dict(value)
    if services:
        result["services"] = services
    for section in ("vip-groups", "checks"):
        named = {
            at.name: dict(value) for at, _, value in sorted(parsed, key=lambda item: item[1]) if at.kind == section
        }
        if named:
            result[section] = named
    if "settings" in documents:
        result["settings"] = dict(documents["settings"])
    return result


def _service_order(item: tuple[Any, str, Any]) -> Any:
    """By service; the service itself before its servers, so that fields stand before `servers`."""
    at = item[0]
    return at.service.sort_key(), at.server is not None, at.server.sort_key() if at.server else (0, 0, 0)


def documents(entries: Mapping[str, Entry]) -> dict[str, Mapping[str, Any]]:
    """The JSON objects of store entries; values that are none are left out."""
    result: dict[str, Mapping[str, Any]] = {}
    for key, entry in entries.items():
        value, fault = load_json(entry.value)
        if fault is None and isinstance(value, dict):
            result[key] = value
    return result
