"""Lines of keepalived.conf -> directives with their blocks: keepalived.conf(5), Quoted strings. Pure.

A directive is a line of words; a brace after it (or alone in the next line) opens its block. What follows a brace in
the same line is a line of its own. Within quotes everything is text, but for the backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lbnode.config.keepalived.lines import Line
from lbnode.model import Problem

SECRETS = ("auth_pass", "password", "auth_hmac")

_WORD = re.compile(r"""(?:\$\{[^{}]*\}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s{}"'])+""", re.DOTALL)
_PIECE = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^"']+""", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]+)|([0-7]{1,3})|c(.)|(.))", re.DOTALL)
_CONTROL = {"a": "\a", "b": "\b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True, eq=False)
class Directive:
    """One line. `block` is None if it has none; `place` is file:line:col. Compared by identity."""

    words: tuple[str, ...]
    place: str
    block: list[Directive] | None = None

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.words[1:]

    @property
    def items(self) -> list[Directive]:
        return self.block or []

    def __str__(self) -> str:
        """For messages: short, and without what is secret."""
        text = " ".join(self.words[:1] if self.name in SECRETS else self.words)
        return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(slots=True)
class _Token:
    text: str  # a word without its quotes; "{" or "}"; "\n"
    place: str
    brace: bool = False


@dataclass(slots=True)
class Tree:
    top: list[Directive] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def parse(lines: Iterable[Line]) -> Tree:
    """Anything may come in; what is wrong with its structure comes out as problems."""
    return _Parser().parse(lines)


class _Parser:
    def __init__(self) -> None:
        self._tree = Tree()
        self._open: list[Directive] = []
        self._words: list[str] = []
        self._place = ""

    def parse(self, lines: Iterable[Line]) -> Tree:
        for line in lines:
            for token in self._tokens(line):
                if not token.brace:
                    self._place = self._place or token.place
                    self._words.append(token.text)
                elif token.text == "{":
                    self._begin(token.place)
                else:
                    self._end(token.place)
            self._finish()
        for directive in reversed(self._open):
            self._problem(directive.place, str(directive), "this block is not closed", "add a } to it")
        return self._tree

    def _tokens(self, line: Line) -> Iterator[_Token]:
        position = 0
        while position < len(line.text):
            character = line.text[position]
            if character.isspace():
                position += 1
            elif character in "{}":
                yield _Token(character, line.place(position), brace=True)
                position += 1
            elif word := _WORD.match(line.text, position):
                yield _Token(_unquoted(word[0]), line.place(position))
                position = word.end()
            else:
                self._problem(line.place(position), line.text[position:][:60], "a quote that does not end", "")
                return

    @property
    def _block(self) -> list[Directive]:
        block = self._open[-1].block if self._open else self._tree.top
        assert block is not None
        return block

    def _finish(self, block: list[Directive] | None = None) -> Directive | None:
        """The words so far are a directive."""
        if not self._words:
            return None
        directive = Directive(tuple(self._words), self._place, block)
        self._block.append(directive)
        self._words, self._place = [], ""
        return directive

    def _begin(self, place: str) -> None:
        directive = self._finish([])
        if directive is None and self._block and self._block[-1].block is None:
            before = self._block.pop()  # its brace stands in a line of its own
            directive = Directive(before.words, before.place, [])
            self._block.append(directive)
        if directive is None:
            self._problem(place, "{", "nothing stands before this brace", "")
            directive = Directive(("{",), place, [])
            self._block.append(directive)
        self._open.append(directive)

    def _end(self, place: str) -> None:
        self._finish()
        if self._open:
            self._open.pop()
        else:
            self._problem(place, "}", "this brace closes nothing", "")

    def _problem(self, place: str, what: str, message: str, hint: str) -> None:
        self._tree.problems.append(Problem(place, what, message, hint))


def _unquoted(word: str) -> str:
    """`abcd" efg h jkl "mnop` is one word; backslashes count within quotes."""
    pieces = (match[0] for match in _PIECE.finditer(word))
    return "".join(_ESCAPE.sub(_escaped, piece[1:-1]) if piece[0] in "\"'" else piece for piece in pieces)


def _escaped(match: re.Match[str]) -> str:
    hexadecimal, octal, control, other = match.groups()
    if hexadecimal:
        return chr(int(hexadecimal, 16) & 0xFF)
    if octal:
        return chr(int(octal, 8) & 0xFF)
    if control:
        return chr(ord(control.upper()) & 0x1F)
    return _CONTROL.get(other, other)
