"""The text of a whole document (`lbctl apply -f`) -> documents by key, or every problem at file:line:col. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lbnode.config.document import Part, split
from lbnode.config.keys import parse_key
from lbnode.config.text import Reading, Unreadable, read
from lbnode.config.value import Fault, Path, dotted, load_json, validate
from lbnode.model import Problem, Severity


@dataclass(frozen=True, slots=True)
class WholeDocument:
    """`problems` are errors: with any, nothing of the document may be applied."""

    document: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by key
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def parse_document(text: str, name: str) -> WholeDocument:
    """Everything that can be found without the store; `name` is what messages call the text."""
    value, fault = load_json(text) if text.lstrip().startswith("{") else (None, Fault((), "not JSON"))
    reading = None
    if fault is not None:
        try:
            reading = read(text)
        except Unreadable as error:
            return WholeDocument(problems=(_problem(name, error),))
        value = reading.value
    if value is None:
        return WholeDocument(problems=(Problem(name, "", "empty document"),))
    parts, faults = split(value)
    for part in parts:
        parsed = validate(parse_key(part.key), part.value)
        faults.extend(Fault((*part.path, *f.path), f.message, f.hint, f.severity) for f in parsed.faults)
    if faults and reading is None:
        reading = _positions(text)
    located = [_locate(fault, name, reading) for fault in faults]
    if reading is not None:
        located.extend((error.position, _problem(name, error)) for error in reading.faults)
    located.sort(key=lambda item: (item[0] or (0, 0), item[1].field, item[1].message))
    problems = tuple(problem for _, problem in located if problem.severity is Severity.ERROR)
    warnings = tuple(problem for _, problem in located if problem.severity is Severity.WARNING)
    document = value if isinstance(value, dict) else {}
    return WholeDocument(document, _entries(parts) if not problems else {}, problems, warnings)


def _entries(parts: list[Part]) -> dict[str, Mapping[str, Any]]:
    return {part.key: part.value or {} for part in parts}


def _positions(text: str) -> Reading | None:
    """JSON is YAML but for corners (tabs); there, messages go without a position."""
    try:
        return read(text)
    except Unreadable:
        return None


def _locate(fault: Fault, name: str, reading: Reading | None) -> tuple[tuple[int, int] | None, Problem]:
    path: Path = fault.path
    position = reading.position(path) if reading is not None else None
    where = f"{name}:{position[0]}:{position[1]}" if position else name
    return position, Problem(where, dotted(path), fault.message, fault.hint, fault.severity)


def _problem(name: str, error: Unreadable) -> Problem:
    where = f"{name}:{error.position[0]}:{error.position[1]}" if error.position else name
    return Problem(where, "", error.message, error.hint)
