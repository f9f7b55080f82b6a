"""How late advertisements leave, as a histogram. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # upper bounds; above the last is one bucket more


@dataclass(frozen=True, slots=True)
class AdvertFigures:
    """Of one VIP group since its election process started. `late`: advertisements in each bucket of BUCKETS_S, and
    above; `late_s`: sum of their lateness in seconds."""

    group: str
    late: tuple[int, ...]
    late_s: float


@dataclass(frozen=True, slots=True)
class DroppedPackets:
    """VRRP packets, or heartbeats, that were refused for one reason."""

    interface: str
    reason: str
    count: int


class Lateness:
    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum = 0

    def note(self, late: int) -> None:
        """An advertisement left `late` ns after its time."""
        self._counts[bisect_left(BUCKETS_S, late / 1e9)] += 1
        self._sum += late

    def figures(self, group: str) -> AdvertFigures:
        return AdvertFigures(group, tuple(self._counts), self._sum / 1e9)
