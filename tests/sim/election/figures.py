"""What episodes measure, what the goals are, and the table of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MS = 1_000_000
HASH_PRIME, HASH_MASK = 0x100000001B3, (1 << 64) - 1  # FNV-1a


def mix(digest: int, value: int) -> int:
    """A digest over one more value."""
    return ((digest ^ value) * HASH_PRIME) & HASH_MASK


@dataclass(frozen=True)
class Limits:
    """Goals of one profile, in intervals. None: measured only."""

    double: float | None
    dark: float | None = 4.0  # more: the skew of the lowest priority, and `dark_ms`
    dark_ms: float = 50.0
    astray: bool = False  # a client may go on looking for the VIP at the wrong node
    needless: bool = True  # a node may take over from one that serves


@dataclass
class Figures:
    """Sums and worst cases over episodes. Times in intervals of the episode they happened in, unless named."""

    seconds: float = 0.0  # cluster-seconds
    intervals: float = 0.0
    events: int = 0
    faults: int = 0
    takeovers: int = 0
    double: float = 0.0  # longest
    double_over_1: int = 0  # rounds with a double longer than one interval
    double_total: float = 0.0
    dark: float = 0.0
    dark_total: float = 0.0
    heal: float = 0.0  # longest time after the last fault's end until exactly one served
    astray: int = 0  # rounds after which the client's ARP entry was still wrong
    needless: int = 0  # takeovers while another node served
    flaps: int = 0  # role changes while nothing was wrong
    digest: int = 0
    violations: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        for name in (
            "seconds",
            "intervals",
            "events",
            "faults",
            "takeovers",
            "double_over_1",
            "astray",
            "needless",
            "flaps",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("double_total", "dark_total"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("double", "dark", "heal"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        self.digest = mix(self.digest, other.digest)
        self.violations += other.violations


COLUMNS = (
    ("profile", 14), ("cluster-s", 10), ("faults", 8), ("takeovers", 10), ("double max", 11), ("> 1 I", 7),
    ("ppm", 8), ("dark max", 9), ("ppm", 7), ("heal max", 9), ("astray", 8), ("needless", 9), ("flaps", 6),
)  # fmt: skip


def table(rows: Iterable[tuple[str, Figures]]) -> str:
    lines = ["".join(f"{name:>{width}}" for name, width in COLUMNS)]
    for name, f in rows:
        share = 1e6 / (f.intervals or 1)
        cells = (
            name, f"{f.seconds:.0f}", f.faults, f.takeovers, f"{f.double:.3f}", f.double_over_1,
            f"{f.double_total * share:.0f}", f"{f.dark:.2f}", f"{f.dark_total * share:.0f}", f"{f.heal:.2f}",
            f.astray, f.needless, f.flaps,
        )  # fmt: skip
        lines.append("".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True)))
    return "\n".join(lines)


LEGEND = """\
double: two nodes serve and the client reaches both; dark: none serves though a running node could be reached;
heal: from the last fault's end until exactly one serves; all three in advertisement intervals, ppm of all time.
astray: rounds 5 intervals after whose heal the client still looked at another node;
needless: takeovers while another node served; flaps: roles moved without fault."""
