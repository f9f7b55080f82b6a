"""A document made from another program's configuration, and the list of what is not in it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbnode.config.document import entries_to_document
from lbnode.config.resolve import resolve
from lbnode.config.value import canonical
from lbnode.model import Problem, Severity
from lbnode.store.base import Entry


@dataclass(frozen=True, slots=True)
class Imported:
    """A whole document, as `lbctl apply -f` takes it. Errors are behaviour that is lost, warnings what differs.

    `where` of each problem is file:line:col of the imported text. `taken`: how many of its lines went into it.
    """

    document: Mapping[str, Any]
    problems: tuple[Problem, ...]
    taken: int


def settled(
    entries: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str]
) -> tuple[Mapping[str, Any], list[Problem]]:
    """The document without what is invalid or at odds with the rest, and what that was, at its origin.

    entries: documents by key. origins: where each came from.
    """
    left: dict[str, dict[str, Any]] = {key: json.loads(canonical(value)) for key, value in entries.items()}
    told: list[Problem] = []
    while True:
        found = resolve({key: Entry(canonical(value), number) for number, (key, value) in enumerate(left.items(), 1)})
        errors = [problem for problem in found.problems if problem.severity is Severity.ERROR]
        keys = list(left)
        told += [_moved(problem, origins, keys) for problem in errors]
        if not errors:
            warnings = [_moved(problem, origins, keys) for problem in found.problems]
            return entries_to_document(left), told + warnings
        for key in {problem.where for problem in errors}:
            del left[key]
            if key.startswith("vip-groups/"):
                _forget_group(left, key.removeprefix("vip-groups/"))


def _forget_group(entries: dict[str, dict[str, Any]], name: str) -> None:
    for key, value in entries.items():
        if key.startswith("services/") and value.get("vip_group") == name:
            del value["vip_group"]


def _moved(problem: Problem, origins: Mapping[str, str], keys: Sequence[str]) -> Problem:
    """To where people wrote it; revisions in the message, which are numbers of `keys` here, become places, too."""
    field = ": ".join(part for part in (problem.where, problem.field) if part)
    hint = "; ".join(part for part in problem.hint.split("; ") if not part.startswith("nothing is in force"))
    message = re.sub(r"\(revision (\d+)\)", lambda match: f"({origins[keys[int(match[1]) - 1]]})", problem.message)
    return Problem(origins[problem.where], field, message, hint, problem.severity)
