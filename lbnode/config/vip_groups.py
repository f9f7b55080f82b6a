"""Resolving the VIP groups together: no address in two groups, no two groups with one VRID on one interface. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from lbnode.config import build
from lbnode.config.good import in_force, last_good_of
from lbnode.config.vip_group_document import VipGroupDocument
from lbnode.model import Problem, VipGroup
from lbnode.store.base import Entry


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    in_force: Mapping[str, VipGroup] = field(default_factory=dict)
    good: Mapping[str, Entry] = field(default_factory=dict)  # by key
    names: frozenset[str] = frozenset()  # of all keys, also those with an error
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Candidate:
    key: str
    entry: Entry
    group: VipGroup
    good: Entry | None  # last good value that this one could still fall back to; None: it is the last good itself


def resolve_groups(entries: Mapping[str, Entry], last_good: Mapping[str, Entry], before: Groups) -> Groups:
    """Where groups clash, the newer value yields to its last good one, so that what works goes on.

    All last good values together were in force, so they do not clash: falling back one at a time comes to an end.
    """
    problems: list[Problem] = []
    candidates: dict[str, _Candidate] = {}
    for key, entry in sorted(entries.items()):
        good = last_good.get(key)
        used, document, found = last_good_of(key, entry, good)
        problems.extend(found)
        if used is not None and isinstance(document, VipGroupDocument):
            changed = good is not None and used.value != good.value
            candidates[key] = _Candidate(key, used, _build(key, used, document, before), good if changed else None)
    known_good = {key for key, candidate in candidates.items() if _is_good(candidate, last_good)}
    while clash := next(_clashes(candidates), None):
        first, second, field_name, message = clash
        loser = _loser(first, second, known_good)
        winner = second if loser is first else first
        hint = f"take it out of one of the two; {in_force(loser.good)}"
        where = f"{message}, which {winner.key} (revision {winner.entry.revision}) has already"
        problems.append(Problem(loser.key, field_name, where, hint))
        del candidates[loser.key]
        if loser.good is not None:
            used, document, _ = last_good_of(loser.key, None, loser.good)
            if used is not None and isinstance(document, VipGroupDocument):
                group = _build(loser.key, used, document, before)
                candidates[loser.key] = _Candidate(loser.key, used, group, None)
                known_good.add(loser.key)
    return Groups(
        {candidate.group.name: candidate.group for candidate in candidates.values()},
        {key: candidate.entry for key, candidate in candidates.items()},
        frozenset(_name(key) for key in entries),
        tuple(problems),
    )


def _name(key: str) -> str:
    return key.removeprefix("vip-groups/")


def _build(key: str, entry: Entry, document: VipGroupDocument, before: Groups) -> VipGroup:
    group = build.vip_group(_name(key), document, entry.revision)
    known = before.in_force.get(group.name)
    return known if known is not None and known == group else group


def _is_good(candidate: _Candidate, last_good: Mapping[str, Entry]) -> bool:
    good = last_good.get(candidate.key)
    return good is not None and good.value == candidate.entry.value


def _loser(first: _Candidate, second: _Candidate, known_good: set[str]) -> _Candidate:
    """A value that never was in force yields to one that was; else the newer one, by revision and then by key."""

    def newness(candidate: _Candidate) -> tuple[bool, int, str]:
        return (candidate.key not in known_good, candidate.entry.revision, candidate.key)

    return max(first, second, key=newness)


def _clashes(candidates: Mapping[str, _Candidate]) -> Iterator[tuple[_Candidate, _Candidate, str, str]]:
    """(one, other, field, what clashes)"""
    for first, second in combinations(candidates.values(), 2):
        mine = {vip.address for vip in first.group.addresses}
        for vip in second.group.addresses:
            if vip.address in mine:
                yield first, second, "addresses", f"duplicate virtual address {vip.address}"
        one, other = first.group, second.group
        # Without a name the interface is found on the node, so it may be the same one.
        same_link = one.interface is None or other.interface is None or one.interface == other.interface
        same_family = not {v.address.version for v in one.addresses}.isdisjoint(
            v.address.version for v in other.addresses
        )
        if one.vrid == other.vrid and same_link and same_family:
            yield first, second, "vrid", f"duplicate VRID {one.vrid} on one link"
