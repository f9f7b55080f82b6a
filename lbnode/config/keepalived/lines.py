"""The lines of keepalived.conf as its parser sees them: keepalived.conf(5), ADVANCED CONFIGURATION. Pure.

Comments go; `@id` and `@^id` lines stay or go by the name of the node; `$NAME=value` definitions are substituted;
~SEQ and ~LST lines are repeated; `include` brings in other files.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from lbnode.model import Problem, Severity

# (pattern as written, name of the file it stands in) -> (name, text) of each file. OSError, UnicodeDecodeError.
Include = Callable[[str, str], Sequence[tuple[str, str]]]

MAX_LINES = 200_000  # after expansion: ~SEQ within ~SEQ multiplies
MAX_DEPTH = 20  # of files that include files, and of definitions within definitions
MAX_LINE_BYTES = 65_536

_INCLUDE = re.compile(r"include[rmwba]?")
_DEFINITION = re.compile(r"\s*\$([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)(?=\s|$))")
_CONDITION = re.compile(r"\s*@(\^?)(\S*)(.*)", re.DOTALL)
_REPEAT = re.compile(r"\s*~(SEQx?|LST)\(((?:[^()])*)\)\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """`column`: where the text stands in its line, from 1; None after a substitution moved it."""

    text: str
    file: str
    number: int
    column: int | None = 1

    def place(self, offset: int = 0) -> str:
        """file:line:col of the character at `offset`."""
        if self.column is None:
            return f"{self.file}:{self.number}"
        return f"{self.file}:{self.number}:{self.column + offset}"


@dataclass(frozen=True, slots=True)
class _Set:
    """A definition that takes effect between two lines: one turn of ~SEQ or ~LST."""

    values: Mapping[str, str]


@dataclass(slots=True)
class Reader:
    """Iterate over `lines`; afterwards `problems` holds what was left out. `node` is keepalived's config-id."""

    node: str
    include: Include
    problems: list[Problem] = field(default_factory=list)
    _definitions: dict[str, str] = field(default_factory=dict)
    _count: int = 0

    def lines(self, name: str, text: str, depth: int = 0) -> Iterator[Line]:
        pending: deque[Line | _Set] = deque(_physical(name, text))
        while pending:
            item = pending.popleft()
            if isinstance(item, _Set):
                self._definitions.update(item.values)
                continue
            if definition := _DEFINITION.fullmatch(item.text):
                self._definitions[definition[1]] = _definition(definition[2], pending)
                continue
            yield from self._line(item, pending, depth)

    def _line(self, line: Line, pending: deque[Line | _Set], depth: int) -> Iterator[Line]:
        self._count += 1
        if self._count > MAX_LINES:
            if self._count == MAX_LINES + 1:
                self._problem(line, "", f"more than {MAX_LINES} lines after expansion; the rest was not read", "")
            pending.clear()
            return
        first = line.text.split(maxsplit=1)
        if first and _INCLUDE.fullmatch(first[0]):  # looked for before anything is substituted
            yield from self._included(line, first[1].strip() if len(first) > 1 else "", depth)
            return
        if condition := _CONDITION.fullmatch(line.text):
            self._conditional(line, condition, pending)
        elif line.text.lstrip().startswith("~"):
            self._repeat(line, pending)
        elif (text := self._substituted(line)) != line.text:
            pending.extendleft(Line(part, line.file, line.number, None) for part in reversed(text.split("\n")))
        elif line.text.strip():
            yield line

    def _conditional(self, line: Line, condition: re.Match[str], pending: deque[Line | _Set]) -> None:
        if (condition[2] == self.node) is not (condition[1] == "^"):
            column = None if line.column is None else line.column + condition.start(3)
            pending.appendleft(Line(condition[3], line.file, line.number, column))
        else:
            message = f"not for {self.node}: left out as keepalived would"
            self._problem(line, _shown(line.text), message, "", Severity.WARNING)

    def _included(self, line: Line, pattern: str, depth: int) -> Iterator[Line]:
        if depth >= MAX_DEPTH:
            self._problem(line, _shown(line.text), f"files include each other more than {MAX_DEPTH} deep", "")
            return
        try:
            files = self.include(pattern, line.file)
        except (OSError, UnicodeDecodeError, ValueError) as error:
            self._problem(line, _shown(line.text), f"cannot be read: {error}", "import again where the file is")
            return
        if not files:
            self._problem(line, _shown(line.text), "no such file", "import again where the file is")
        for name, text in files:
            yield from self.lines(name, text, depth + 1)

    def _substituted(self, line: Line) -> str:
        """References replaced, also those within values; unknown ones stay as they are.

        The lines of a value that has several come in turn: a definition among them counts from there on.
        """
        text = line.text
        for _ in range(MAX_DEPTH):
            replaced = _REFERENCE.sub(lambda match: self._value(match, line), text)
            if replaced == text or "\n" in replaced:
                return replaced
            if len(replaced) > MAX_LINE_BYTES:
                break
            text = replaced
        self._problem(line, _shown(line.text), "a definition that contains itself, or is too long", "")
        return ""

    def _value(self, match: re.Match[str], line: Line) -> str:
        name = match[1] or match[2]
        if name in self._definitions:
            return self._definitions[name]
        predefined = {
            "_PWD": str(PurePath(line.file).parent), "_INSTANCE": self.node, "_HASH": "#", "_BANG": "!",
        }  # fmt: skip
        return predefined.get(name, match[0])

    def _repeat(self, line: Line, pending: deque[Line | _Set]) -> None:
        """~SEQ(var, start, step, end) text, ~SEQx(...) text, ~LST(var, value, ...) text"""
        match = _REPEAT.fullmatch(line.text)
        turns = _turns(match[1], self._substituted(replace(line, text=match[2]))) if match else None
        if match is None or turns is None or len(turns) > MAX_LINES:
            self._problem(line, _shown(line.text), "this repetition could not be read", "write its lines out")
            return
        rest = Line(match[3], line.file, line.number, None)
        pending.extendleft(item for turn in reversed(turns) for item in (rest, _Set(turn)))

    def _problem(self, line: Line, what: str, message: str, hint: str, severity: Severity = Severity.ERROR) -> None:
        self.problems.append(Problem(line.place(), what, message, hint, severity))


def _physical(name: str, text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        yield Line(without_comment(line.rstrip("\r")), name, number)


def without_comment(line: str) -> str:
    """`#` and `!` begin a comment anywhere but within quotes."""
    quote, escaped = "", False
    for position, character in enumerate(line):
        if escaped:
            escaped = False
        elif quote:
            escaped = character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "#!":
            return line[:position]
    return line


def _definition(value: str, pending: deque[Line | _Set]) -> str:
    """A value of several lines: each but the last ends in a backslash, and the first says nothing else."""
    if value.strip() != "\\":
        return value.strip()
    lines = []
    while pending and isinstance(following := pending[0], Line):
        pending.popleft()
        text = following.text.rstrip()
        lines.append(text.removesuffix("\\").strip())
        if not text.endswith("\\"):
            break
    return "\n".join(lines)


def _turns(kind: str, arguments: str) -> list[dict[str, str]] | None:
    """The values of the variables in each turn; None if the arguments make no sense."""
    if kind == "LST":
        return _list(arguments)
    name, *numbers = (part.strip() for part in arguments.split(","))
    try:
        values = [int(number, 0 if number.lower().startswith(("0x", "-0x")) else 10) for number in numbers]
    except ValueError:
        return None
    match values:
        case [end]:
            start, step = (1, 1) if end > 0 else (-1, -1)
        case [start, end]:
            step = 1 if end >= start else -1
        case [start, step, end] if step:
            pass
        case _:
            return None
    if abs(end - start) // abs(step) >= MAX_LINES:
        return None
    form = "x" if kind == "SEQx" else "d"
    return [{name: format(value, form)} for value in range(start, end + (1 if step > 0 else -1), step)]


def _list(arguments: str) -> list[dict[str, str]] | None:
    """`X, 1, 2` or `{X, Y}, {1, 2}, {3, 4}`"""
    parts = [part.strip() for part in re.findall(r"\{[^{}]*\}|[^{},]+", arguments) if part.strip()]
    if not parts:
        return None
    names, *turns = ([word.strip() for word in part.strip("{}").split(",")] for part in parts)
    if any(len(turn) != len(names) for turn in turns):
        return None
    return [dict(zip(names, turn, strict=True)) for turn in turns]


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
