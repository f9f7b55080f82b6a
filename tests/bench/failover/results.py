"""Runs as JSON lines, appended one by one: whatever ends the bench costs one run, and the next bench goes on."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.failover.judge import Outcome

HEADER = f"{'fault':14} {'Active/Backup':22} {'interval':>8}  {'gap ms':>14}  {'double ms':>14}  {'heal ms':>14}  lost"
NOTE = """\
median / worst of the runs. gap: longest time for which a client got no answer; double: both gateways served and the
client reached both; heal: the gap from the heal on; lost: runs at whose end the VIP did not answer. Backups have
priority 200 (keepalived waits its skew of 0.22 intervals after a release)."""


@dataclass(frozen=True)
class Cell:
    """What is measured so many times."""

    interval_ms: int
    fault: str
    pair: str


@dataclass(frozen=True)
class Run:
    cell: Cell
    outcome: Outcome
    load: float  # processes that ran or wanted to, in the minute before its end


class Results:
    """Of this invocation, and with a file of those before it."""

    def __init__(self, path: Path | None = None) -> None:
        self._path, self.runs = path, list[Run]()
        if path is not None and path.exists():
            whole = path.read_text().rpartition("\n")[0]  # the bench may have ended in the middle of a line
            path.write_text(whole + "\n" if whole else "")
            self.runs = [run_of(line) for line in whole.splitlines()]

    def add(self, run: Run) -> None:
        self.runs.append(run)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(line_of(run) + "\n")

    def of(self, cell: Cell) -> list[Run]:
        return [run for run in self.runs if run.cell == cell]


def line_of(run: Run) -> str:
    return json.dumps(asdict(run.cell) | {"load": run.load} | asdict(run.outcome))


def run_of(line: str) -> Run:
    document = json.loads(line)
    cell = Cell(document.pop("interval_ms"), document.pop("fault"), document.pop("pair"))
    return Run(cell, load=document.pop("load"), outcome=Outcome(**document))


def row(cell: Cell, runs: Sequence[Run]) -> str:
    outcomes = [run.outcome for run in runs]
    heals = [outcome.heal_gap for outcome in outcomes if outcome.heal_gap is not None]
    figures = (_spread([o.gap for o in outcomes]), _spread([o.double for o in outcomes]), _spread(heals))
    lost = f"{sum(o.lost for o in outcomes)} of {len(outcomes)}"
    return (
        f"{cell.fault:14} {cell.pair:22} {cell.interval_ms:5} ms  "
        + "  ".join(f"{figure:>14}" for figure in figures)
        + f"  {lost}"
    )


def loads(runs: Sequence[Run]) -> str:
    """How busy the machine was: what every figure has to be read with."""
    found = [run.load for run in runs] or [0.0]
    return f"load of the machine meanwhile: {statistics.median(found):.1f} / {max(found):.1f}, {os.cpu_count()} CPUs"


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} / {max(seconds) * 1000:.0f}" if seconds else "-"
