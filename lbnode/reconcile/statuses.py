"""How programming each object went: the words that `lbctl`, the web UI and `lbctl apply --wait` read."""

from __future__ import annotations

from collections.abc import Mapping

from lbnode.journal import Journal, Kind
from lbnode.model import ObjectStatus
from lbnode.watched import Watched


class Statuses:
    """published: by the object's name; as it was when `publish` was last called."""

    def __init__(self, journal: Journal) -> None:
        self.published: Watched[Mapping[str, ObjectStatus]] = Watched({})
        self._journal = journal
        self._now: dict[str, ObjectStatus] = {}
        self._changed = False

    def __contains__(self, name: str) -> bool:
        return name in self._now

    def programmed(self, name: str, revision: int, *, had_failed: bool) -> None:
        before = self._now.get(name)
        if had_failed and before is not None and before.error:
            self._journal.record(Kind.DATAPLANE, name, "programmed at last", before.error)
        self._now[name] = ObjectStatus(revision)
        self._changed = True

    def failed(self, name: str, message: str) -> None:
        """The revision that it was last programmed at stays."""
        before = self._now.get(name)
        if before is None or before.error != message:
            self._journal.record(Kind.DATAPLANE, name, "could not be programmed", message)
            self._now[name] = ObjectStatus(before.revision if before is not None else 0, message)
            self._changed = True

    def drop(self, name: str) -> None:
        if self._now.pop(name, None) is not None:
            self._changed = True

    def publish(self) -> None:
        if self._changed:
            self._changed = False
            self.published.set(dict(self._now))
