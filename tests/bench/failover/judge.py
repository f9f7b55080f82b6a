"""What the probe saw of one fault, as figures. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

SILENT_S = 0.5  # an address that answered no question of so long a time at the end is lost
BREATH_NS = 20_000_000  # answers further apart are not one spell of serving


@dataclass(frozen=True)
class Outcome:
    """Times in seconds."""

    gap: float  # longest between two answered questions of a client, around the fault
    double: float  # how long both gateways served and the client reached both
    heal_gap: float | None  # the same as gap, from the heal on; None: nothing was healed
    lost: bool  # the VIP did not answer at the end
    takeover: float | None  # from the fault until the Backup answered; a client's gap beyond it is its own ARP entry's


def judge(saw: Mapping[str, Any], began: int, healed: int | None, ended: int) -> Outcome:
    """What the probe saw around a fault of the first gateway; all times ns of CLOCK_MONOTONIC."""
    sent = [at for at in saw["sent"] if at < ended]
    answered = sorted(number for number, _ in saw["answers"] if number < len(sent))
    served = [sorted(saw["sent"][number] for number in numbers) for numbers in saw["direct"].values()]
    spells = [_spells(times) for times in served]
    first = bisect_left(served[1], began)
    return Outcome(
        gap=_longest_gap(sent, answered, began, healed or ended),
        double=_overlap(*spells),
        heal_gap=None if healed is None else _longest_gap(sent, answered, healed, ended),
        lost=not answered or _span(sent[answered[-1] + 1 :]) > SILENT_S * 1e9,
        takeover=(served[1][first] - began) / 1e9 if first < len(served[1]) else None,
    )


def _longest_gap(sent: Sequence[int], answered: Sequence[int], start: int, end: int) -> float:
    """Between two answered questions with an unanswered one in between, of which the later was asked after `start`;
    until `end` if none was any more. A question that the probe asked late is no gap."""
    asked = [sent[number] for number in answered]
    first, last = max(0, bisect_left(asked, start) - 1), bisect_left(asked, end)
    numbers = [*answered[first : last + 1]] if last < len(answered) else [*answered[first:], len(sent)]
    times = [*sent, end]
    gaps = (times[later] - times[earlier] for earlier, later in pairwise(numbers) if later - earlier > 1)
    return max(gaps, default=0) / 1e9


def _spells(times: list[int]) -> list[tuple[int, int]]:
    """Times without long breaks, as (first, last)."""
    spells: list[tuple[int, int]] = []
    for time_ns in times:
        if spells and time_ns - spells[-1][1] <= BREATH_NS:
            spells[-1] = (spells[-1][0], time_ns)
        else:
            spells.append((time_ns, time_ns))
    return spells


def _span(times: Sequence[int]) -> int:
    return times[-1] - times[0] if times else 0


def _overlap(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> float:
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in ours for b in theirs) / 1e9
