"""What differs between two configurations, by meaning: a default written out is no change. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lbnode.config.keys import is_config_key, parse_key
from lbnode.config.value import load_json, parse_value
from lbnode.control import Change
from lbnode.delta import changed_keys
from lbnode.store.base import Entry


def diff_entries(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> tuple[Change, ...]:
    """Changes sorted by key (a service before its servers). Neither revisions nor spelling matter."""
    return diff_texts(
        {key: entry.value for key, entry in old.items()}, {key: entry.value for key, entry in new.items()}
    )


def diff_texts(old: Mapping[str, str], new: Mapping[str, str], keys: Iterable[str] | None = None) -> tuple[Change, ...]:
    """The same for values as text; `keys`: look at these only."""
    changes = []
    for key in sorted(filter(is_config_key, changed_keys(old, new) if keys is None else set(keys))):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if before is None or after is None:
            changes.append(Change(key, "create" if before is None else "delete", _object(before), _object(after)))
        elif not same_meaning(key, before, after):
            changes.append(Change(key, "update", _object(before), _object(after)))
    return tuple(changes)


def same_meaning(key: str, one: str, other: str) -> bool:
    """Both values are valid, and equal with all defaults filled in (or are the same text)."""
    if one == other:
        return True
    try:
        parsed = parse_key(key)
    except ValueError:
        return False
    document = parse_value(parsed, one).document
    return document is not None and document == parse_value(parsed, other).document


def _object(text: str | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    value, fault = load_json(text)
    return value if fault is None and isinstance(value, dict) else {"(not a JSON object)": text}
