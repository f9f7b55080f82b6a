"""The account of an import: every directive is taken over, or listed with the reason. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from lbnode.config.fields import did_you_mean
from lbnode.config.keepalived.tree import Directive
from lbnode.config.keepalived.without_equal import Context, lack_of, words_of
from lbnode.model import Problem, Severity

T = TypeVar("T")
Readers = Mapping[str, Callable[[T, Directive], None]]


class NoEqual(Exception):
    """A reader cannot take its directive over. `hint`: what to do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Ledger:
    """`problems`: errors are behaviour that is lost, warnings what differs without need to act."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._taken: set[Directive] = set()
        self._listed: set[Directive] = set()

    def take(self, directive: Directive) -> None:
        self._taken.add(directive)

    def lacks(self, directive: Directive, message: str, hint: str = "") -> None:
        self._list(directive, message, hint, Severity.ERROR)

    def note(self, directive: Directive, message: str, hint: str = "") -> None:
        self._list(directive, message, hint, Severity.WARNING)

    def without_equal(self, directive: Directive, readers: Iterable[str], context: Context) -> None:
        """A directive that no reader knows: what keepalived.conf(5) has there and lbnode has not, or a misspelling."""
        lack = lack_of(context, directive.name)
        if lack is None:
            hint = did_you_mean(directive.name, (*readers, *words_of(context)))
            message = f"keepalived.conf(5) has no {directive.name!r} in {context}"
            self.lacks(directive, message, hint if hint.startswith("did you mean") else "")
        elif lack.severity is Severity.ERROR:
            self.lacks(directive, "no equal yet", lack.hint)
        else:
            self.note(directive, "not needed", lack.hint)

    def read(self, block: Iterable[Directive], readers: Readers[T], target: T, context: Context) -> None:
        """Each directive to its reader; without one, or if that refuses, onto the list."""
        for directive in block:
            reader = readers.get(directive.name)
            if reader is None:
                self.without_equal(directive, readers, context)
                continue
            try:
                reader(target, directive)
            except NoEqual as error:
                self.lacks(directive, error.message, error.hint)
            else:
                self.take(directive)

    def taken_of(self, top: Iterable[Directive]) -> int:
        """How many directives went into the document."""
        return sum(directive in self._taken for directive in _within(top))

    def forgotten(self, top: Iterable[Directive]) -> list[Directive]:
        """Directives that are neither taken over nor listed, nor within one that is listed. Should be none."""
        result, todo = [], list(top)
        while todo:
            directive = todo.pop()
            if directive in self._taken:
                todo.extend(directive.items)
            elif directive not in self._listed:
                result.append(directive)
        return result

    def _list(self, directive: Directive, message: str, hint: str, severity: Severity) -> None:
        self._listed.add(directive)
        self.problems.append(Problem(directive.place, str(directive), message, hint, severity))


def _within(top: Iterable[Directive]) -> Iterable[Directive]:
    todo = list(top)
    while todo:
        directive = todo.pop()
        yield directive
        todo.extend(directive.items)
