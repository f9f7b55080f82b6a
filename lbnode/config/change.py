"""Requests of operators -> one guarded transaction on the store, checked against the whole configuration. Pure.

The caller reads a view, plans here, runs the transaction, and on StoreConflict begins again with a newer view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbnode.config.diff import diff_texts, same_meaning
from lbnode.config.document import document_to_entries
from lbnode.config.keys import is_config_key, server_key, service_key
from lbnode.config.resolve import Resolution, resolve
from lbnode.config.value import canonical, load_json
from lbnode.control import Change, ChangeRequest
from lbnode.errors import ConfigError, StoreConflict
from lbnode.model import Problem, Severity
from lbnode.store.base import Entry, Expect


@dataclass(frozen=True, slots=True)
class Transaction:
    """Arguments of Store.txn, and what it changes. Nothing to do if `changes` is empty."""

    puts: Mapping[str, str]
    deletes: tuple[str, ...]
    expect: tuple[Expect, ...]  # every touched key is as it was when this was planned
    changes: tuple[Change, ...]
    warnings: tuple[Problem, ...] = ()


def plan_request(entries: Mapping[str, Entry], request: ChangeRequest, current: Resolution) -> Transaction:
    """Puts and deletes of single keys. `current`: what is in force, as resolved from `entries`.

    ConfigError names every new problem; StoreConflict if a touched key is newer than `request.expect_revision`.
    """
    deletes = expand_deletes(entries, request.delete)
    return plan_transaction(entries, request.put, deletes, current, request.expect_revision)


def plan_apply(
    entries: Mapping[str, Entry],
    document: Mapping[str, Any],
    current: Resolution,
    *,
    prune: bool,
    expect_revision: int | None = None,
) -> Transaction:
    """A whole document. With `prune`, keys that are not in it are deleted; else they stay."""
    puts, deletes = apply_document(entries, document, prune=prune)
    return plan_transaction(entries, puts, deletes, current, expect_revision)


def apply_document(
    entries: Mapping[str, Entry], document: Mapping[str, Any], *, prune: bool
) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """(documents to put, keys to delete). ConfigError if the structure is wrong."""
    puts = document_to_entries(document)
    deletes = sorted(key for key in entries if key not in puts and is_config_key(key)) if prune else []
    return puts, deletes


def expand_deletes(entries: Mapping[str, Entry], delete: Sequence[str]) -> list[str]:
    """Deleting a service deletes its servers. KeyError names a key that is not there."""
    result: dict[str, None] = {}
    for key in delete:
        under = [other for other in entries if other.startswith(f"{key}/servers/")] if _is_service(key) else []
        if key not in entries and not under:
            raise KeyError(f"there is no {key}")
        if not is_config_key(key):
            raise ConfigError(f"{key} is no configuration")
        result.update(dict.fromkeys([key] if key in entries else []))
        result.update(dict.fromkeys(sorted(under)))
    return list(result)


def _is_service(key: str) -> bool:
    return key.startswith("services/") and key.count("/") == 1


def patch_server(
    entries: Mapping[str, Entry], service_id: str, server_id: str, changes: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """The documents to put when `changes` are merged into a server's (RFC 7396: null removes a field).

    '*' as service: in every service that has this server. KeyError if there is none.
    """
    if service_id == "*":
        keys = sorted(key for key in entries if key.startswith("services/") and key.endswith(f"/servers/{server_id}"))
        if not keys:
            raise KeyError(f"no service has a server {server_id}")
    else:
        keys = [server_key(service_id, server_id)]
        if keys[0] not in entries:
            missing = "server " + server_id if service_key(service_id) in entries else "service " + service_id
            raise KeyError(f"there is no {missing}{f' in {service_id}' if missing.startswith('server ') else ''}")
    return {key: _patched(key, entries[key], changes) for key in keys}


def _patched(key: str, entry: Entry, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    value, fault = load_json(entry.value)
    if fault is not None or not isinstance(value, dict):
        message = fault.message if fault is not None else "not an object"
        raise ConfigError(f"{key}: its present value cannot be changed in part: {message} (put it anew)")
    return {name: item for name, item in {**value, **changes}.items() if item is not None}


def plan_transaction(
    entries: Mapping[str, Entry],
    puts: Mapping[str, Mapping[str, Any]],
    deletes: Iterable[str],
    current: Resolution,
    expect_revision: int | None = None,
) -> Transaction:
    """The transaction that makes these puts and deletes, without those that change nothing."""
    texts = {key: canonical(value) for key, value in puts.items()}
    gone = [key for key in dict.fromkeys(deletes) if key in entries]
    if both := sorted(texts.keys() & set(gone)):
        raise ConfigError(f"{both[0]} is to be put and to be deleted")
    if outside := sorted(key for key in texts if not is_config_key(key)):
        raise ConfigError(f"{outside[0]} is no configuration: nodes write it themselves")
    before = {key: entries[key].value for key in (*texts, *gone) if key in entries}
    changed = {
        key: text for key, text in texts.items() if key not in before or not same_meaning(key, before[key], text)
    }
    touched = [*changed, *gone]
    if expect_revision is not None:
        for key in (*texts, *gone):
            if key in entries and entries[key].revision > expect_revision:
                at = entries[key].revision
                message = f"{key} was changed at revision {at}, after the revision {expect_revision} that was read"
                raise StoreConflict(f"{message}; read again and decide again")
    warnings = _check(entries, changed, gone, current) if touched else ()
    expect = tuple(Expect(key, entries[key].revision if key in entries else 0) for key in touched)
    return Transaction(changed, tuple(gone), expect, diff_texts(before, texts, touched), warnings)


def _check(
    entries: Mapping[str, Entry], puts: Mapping[str, str], deletes: Sequence[str], current: Resolution
) -> tuple[Problem, ...]:
    """ConfigError if the change brings an error that is not there already; returns the new warnings."""
    revision = max(current.config.revision, max((entries[key].revision for key in puts if key in entries), default=0))
    after = dict(entries)
    for key in deletes:
        del after[key]
    after.update({key: Entry(text, revision + 1) for key, text in puts.items()})
    known = {_identity(problem) for problem in resolve(entries, current, current.config.revision).problems}
    found = [p for p in resolve(after, current, revision + 1).problems if _identity(p) not in known or p.where in puts]
    if errors := [problem for problem in found if problem.severity is Severity.ERROR]:
        raise ConfigError("\n".join(_without_consequence(problem) for problem in errors))
    return tuple(found)


def _identity(problem: Problem) -> tuple[str, str, str]:
    return problem.where, problem.field, problem.message


def _without_consequence(problem: Problem) -> str:
    """A change that is refused has none: not what `resolve` says about the value in force."""
    parts = [part for part in problem.hint.split("; ") if not part.endswith(("stays in force", "for this key"))]
    return str(Problem(problem.where, problem.field, problem.message, "; ".join(parts)))
