"""The rule of the last good value, for one key. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lbnode.config.fields import Document
from lbnode.config.keys import parse_key
from lbnode.config.value import Fault, Parsed, parse_value
from lbnode.model import Problem
from lbnode.store.base import Entry


def last_good_of(
    key: str, current: Entry | None, good: Entry | None
) -> tuple[Entry | None, Document | None, tuple[Problem, ...]]:
    """(entry in force, its document, problems of the current value)."""
    parsed_key = parse_key(key)
    problems: tuple[Problem, ...] = ()
    if current is not None:
        parsed = parse_value(parsed_key, current.value)
        if parsed.document is not None:
            return current, parsed.document, tuple(fault.at(key) for fault in parsed.faults)
        problems = problems_of(key, parsed.faults, good)
    fallback = parse_value(parsed_key, good.value) if good is not None else Parsed(None)
    return (good if fallback.document else None), fallback.document, problems


def problems_of(key: str, faults: Iterable[Fault], good: Entry | None) -> tuple[Problem, ...]:
    return tuple(fault.at(key, in_force(good)) for fault in faults)


def in_force(good: Entry | None) -> str:
    return f"the value of revision {good.revision} stays in force" if good else "nothing is in force for this key"
