"""YAML or JSON text -> plain values and where each stood. Pure; raises nothing on any input.

PyYAML's events are used rather than its loader: values with positions, no tags, a bound on what aliases may expand to,
and no YAML 1.1 surprise: where that reads a boolean or a number in something that does not look like one (`no`,
`12:30`, `012`), it is reported instead of guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
Position = tuple[int, int]  # line, column, from 1

MAX_DEPTH = 50
MAX_VALUES = 5_000_000  # after expansion of aliases

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()
_TAG = "tag:yaml.org,2002:"


class Unreadable(Exception):
    """Not YAML or JSON at all, or something that must not be in it."""

    def __init__(self, message: str, position: Position | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.position, self.hint = message, position, hint


@dataclass(slots=True)
class Reading:
    """`faults` are readable, but surely not what was meant. `positions` of every value, by path."""

    value: Any = None
    faults: list[Unreadable] = field(default_factory=list)
    positions: dict[Path, Position] = field(default_factory=dict)

    def position(self, path: Path) -> Position | None:
        """Of the value at `path`, or of the innermost thing around it that has one."""
        return next(
            (self.positions[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.positions), None
        )


@dataclass(slots=True)
class _Open:
    """A mapping or sequence that is being read."""

    value: dict[Any, Any] | list[Any]
    path: Path
    anchor: str | None
    size_before: int
    key: Any = None
    has_key: bool = False


class _Reader:
    def __init__(self) -> None:
        self.reading = Reading()
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.size = 0
        self.documents = 0

    def read(self, text: str) -> Reading:
        try:
            for event in _events(text):
                self.handle(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = " ".join(part for part in (error.context, error.problem) if part)
            raise Unreadable(message or "not YAML", _position(mark)) from None
        except yaml.reader.ReaderError as error:
            raise Unreadable(f"character {error.character!r} at offset {error.position} is not allowed") from None
        except (yaml.YAMLError, ValueError) as error:
            raise Unreadable(f"not YAML: {error}") from None
        return self.reading

    def handle(self, event: Any) -> None:
        at = _position(event.start_mark) or (1, 1)
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise Unreadable("a second document begins here", at, "one document per file")
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self.open(event, at)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.close()
            case yaml.ScalarEvent():
                self.add(self.scalar(event, at), at, event.anchor)
            case yaml.AliasEvent():
                if event.anchor not in self.anchors:
                    raise Unreadable(f"*{event.anchor} refers to nothing before it", at)
                value, size = self.anchors[event.anchor]
                self.count(size, at)
                self.add(value, at, None)

    def count(self, values: int, at: Position) -> None:
        self.size += values
        if self.size > MAX_VALUES:
            raise Unreadable(f"more than {MAX_VALUES} values", at)

    def open(self, event: Any, at: Position) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise Unreadable("nested too deeply", at)
        self.refuse_tag(event, at)
        value: dict[Any, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        if self.stack and self.expects_key():
            raise Unreadable("a key has to be text", at, 'put quotes around it, as in "tcp:[2001:db8::1]:80"')
        before = self.size
        path = self.add(value, at, None)
        self.stack.append(_Open(value, path, event.anchor, before))

    def close(self) -> None:
        opened = self.stack.pop()
        if opened.anchor:
            self.anchors[opened.anchor] = (opened.value, self.size - opened.size_before)

    def expects_key(self) -> bool:
        top = self.stack[-1]
        return isinstance(top.value, dict) and not top.has_key

    def add(self, value: Any, at: Position, anchor: str | None) -> Path:
        """Put a value where it belongs; returns its path."""
        if anchor:
            self.anchors[anchor] = (value, 1)
        self.count(1, at)
        if not self.stack:
            self.reading.value = value
            self.reading.positions[()] = at
            return ()
        top = self.stack[-1]
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            top.value.append(value)
            self.reading.positions[path] = at
            return path
        if not top.has_key:
            return self.add_key(top, value, at)
        top.has_key = False
        if top.key is not None:
            top.value[top.key] = value
        return (*top.path, str(top.key))

    def add_key(self, top: _Open, key: Any, at: Position) -> Path:
        assert isinstance(top.value, dict)
        top.has_key, top.key = True, key
        if not isinstance(key, str):
            self.reading.faults.append(Unreadable(f"the key {key!r} is not text", at, "put quotes around it"))
            top.key = None
            return top.path
        path = (*top.path, key)
        if key in top.value:
            first = self.reading.positions.get(path)
            where = f", first in line {first[0]}" if first else ""
            self.reading.faults.append(Unreadable(f"the key {key!r} stands twice{where}", at, "remove one of the two"))
        else:
            self.reading.positions[path] = at
        return path

    def refuse_tag(self, event: Any, at: Position) -> None:
        if event.tag not in (None, "!", f"{_TAG}str", f"{_TAG}map", f"{_TAG}seq"):
            raise Unreadable(f"the tag {event.tag!r} is not supported", at, "remove it")

    def scalar(self, event: Any, at: Position) -> Any:
        self.refuse_tag(event, at)
        text: str = event.value
        if event.tag is not None or not event.implicit[0]:
            return text
        tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        match tag.removeprefix(_TAG):
            case "null":
                return None
            case "bool" if text in ("true", "false"):
                return text == "true"
            case "int" if re.fullmatch(r"[-+]?(0|[1-9][0-9]{0,30})", text):
                return int(text)
            case "float" if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", text):
                return float(text)
            case "bool":
                self.ambiguous(text, "a boolean", f"write true or false, or quote it: {text!r}", at)
            case "int" | "float":
                self.ambiguous(text, "a number", f"write it in decimal, or quote it: {text!r}", at)
        return text

    def ambiguous(self, text: str, what: str, hint: str, at: Position) -> None:
        if self.stack and self.expects_key():
            return  # keys are names: taken as they are written
        self.reading.faults.append(Unreadable(f"YAML takes {text} for {what}", at, hint))


def read(text: str) -> Reading:
    """Raises Unreadable only."""
    return _Reader().read(text)


def _events(text: str) -> Iterator[Any]:
    loader = _LOADER(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


def _position(mark: Any) -> Position | None:
    return (mark.line + 1, mark.column + 1) if mark is not None else None
