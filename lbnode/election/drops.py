"""Counts packets that were dropped, and says so now and then. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lbnode.election.packet import Reason, Rejected

REPORT_EVERY = 10_000_000_000  # ns between two reports of one kind on one interface


class Drops:
    def __init__(self) -> None:
        self._count: Counter[tuple[str, str]] = Counter()
        self._reported_at: dict[tuple[str, str], int] = {}
        self._unreported: dict[tuple[str, str], str] = {}

    def count(self, interface: str, error: Rejected) -> None:
        if error.reason is not Reason.VRID:  # another virtual router on this network, none of our business
            key = (interface, str(error.reason))
            self._count[key] += 1
            self._unreported[key] = str(error)

    def reports(self, now: int) -> list[dict[str, Any]]:
        """Messages for the daemon: for each interface and reason at most one in REPORT_EVERY, with the total so far."""
        due = [key for key in self._unreported if now - self._reported_at.get(key, -REPORT_EVERY) >= REPORT_EVERY]
        found = []
        for key in due:
            self._reported_at[key] = now
            interface, reason = key
            dropped = {"interface": interface, "reason": reason, "count": self._count[key]}
            found.append({"dropped": {**dropped, "message": self._unreported.pop(key)}})
        return found
