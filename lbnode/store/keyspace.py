"""The watched keys in memory: a list replaces them, changes are applied to them, readers get immutable views. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lbnode.errors import StoreConflict
from lbnode.store.base import Entry, Expect, View


@dataclass(frozen=True, slots=True)
class Change:
    """One key put (`value` is its text) or deleted (`value` is None) at `revision`."""

    revision: int
    key: str
    value: str | None


class Keyspace:
    """All keys of the cluster as of `revision`.

    Changes mutate one dict; the copy that a reader gets is made when the reader looks, so a burst of changes costs a
    slow reader one copy, not one per change.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._view: View | None = None
        self.revision = 0

    def replace(self, revision: int, entries: Mapping[str, Entry]) -> bool:
        """Take over a complete list read at `revision`; True if any key differs from before."""
        changed = entries != self._entries
        self._entries = dict(entries)
        self.revision = revision
        self._view = None
        return changed

    def apply(self, changes: Iterable[Change]) -> bool:
        """Apply changes in revision order; those at or below our revision are repeats and are dropped.

        The caller passes whole revisions only: the changes of one transaction come in one call.
        """
        fresh = [change for change in changes if change.revision > self.revision]
        for change in fresh:
            if change.value is None:
                self._entries.pop(change.key, None)
            else:
                self._entries[change.key] = Entry(change.value, change.revision)
        if fresh:
            self.revision = fresh[-1].revision
            self._view = None
        return bool(fresh)

    def view(self) -> View:
        if self._view is None:
            self._view = View(self.revision, MappingProxyType(dict(self._entries)))
        return self._view


def conflict(expect: Iterable[Expect], found: Mapping[str, int]) -> StoreConflict | None:
    """The error of the first guard that `found` (key -> revision, absent keys left out) does not meet."""
    for guard in expect:
        revision = found.get(guard.key, 0)
        if revision == guard.revision:
            continue
        if guard.revision == 0:
            return StoreConflict(f"{guard.key} exists already (at revision {revision}), but was expected not to")
        state = f"is at revision {revision}" if revision else "was deleted"
        return StoreConflict(f"{guard.key} {state}, expected revision {guard.revision}: changed in between, read again")
    return None


def check_transaction(puts: Mapping[str, str], deletes: Iterable[str]) -> None:
    """ValueError for what no store can do: a key both put and deleted."""
    if both := sorted(puts.keys() & set(deletes)):
        raise ValueError(f"{both[0]} is both put and deleted in one transaction")
