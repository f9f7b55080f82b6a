"""`make bench-failover`: every fault, pairing and interval, RUNS times, in one table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.failover.calm import false_takeovers
from tests.bench.failover.results import HEADER, NOTE, Cell, Results, Run, loads, row
from tests.bench.failover.run import FAULTS, Scene, scene

PAIRS = {
    "lbnode/lbnode": ("lbnode", "lbnode"),
    "keepalived/keepalived": ("keepalived", "keepalived"),
    "lbnode/keepalived": ("lbnode", "keepalived"),
    "keepalived/lbnode": ("keepalived", "lbnode"),
}
INTERVALS_MS = (1000, 100, 30, 10)
RUNS = 20


def measure(cells: Iterable[Cell], runs: int, results: Results | None = None, at_once: int = 1) -> None:
    """What is missing of `runs` of each cell, `at_once` pairs of gateways at a time; `results` has the others."""
    results = results or Results()
    cells = list(cells)
    print(f"{runs} runs each\n{HEADER}", flush=True)
    for cell in cells:
        _measure_cell(cell, runs - len(results.of(cell)), results, at_once)
        if measured := results.of(cell):
            print(row(cell, measured), flush=True)
    print(NOTE)
    print(loads([run for cell in cells for run in results.of(cell)]), flush=True)


def _measure_cell(cell: Cell, missing: int, results: Results, at_once: int) -> None:
    turns = iter(range(missing))

    def work(number: int) -> None:
        while next(turns, None) is not None:
            try:
                with scene(PAIRS[cell.pair], cell.interval_ms / 1000, number) as pair:
                    work_with(pair)
            except AssertionError as error:
                print(f"not measured: {cell.fault}, {cell.pair}, {cell.interval_ms} ms: {error}", file=sys.stderr)

    def work_with(pair: Scene) -> None:
        while True:
            outcome = pair.run(FAULTS[cell.fault])
            results.add(Run(cell, outcome, os.getloadavg()[0]))
            if next(turns, None) is None:
                return

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(work, range(min(at_once, missing))))


def measure_calm(seconds: float, intervals_ms: Iterable[int], pairs: Iterable[str]) -> None:
    print(f"takeovers within {seconds:g} s although nothing failed, two busy loops on each core")
    measured = [(pair, interval_ms) for interval_ms in intervals_ms for pair in pairs]
    moves = false_takeovers([(PAIRS[pair], interval_ms / 1000) for pair, interval_ms in measured], seconds)
    for (pair, interval_ms), count in zip(measured, moves, strict=True):
        print(f"{pair:22} {interval_ms:5} ms  {count}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.failover", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--intervals", type=int, nargs="+", default=INTERVALS_MS, metavar="MS")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--results", type=Path, metavar="FILE", help="append each run; count those that are there")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="pairs of gateways at a time")
    parser.add_argument("--calm", type=float, metavar="SECONDS", help="no fault, but all cores busy for so long")
    args = parser.parse_args()
    if args.calm is not None:
        measure_calm(args.calm, args.intervals, list(args.pairs))
        return 0
    cells = [Cell(ms, fault, pair) for ms in args.intervals for fault in args.faults for pair in args.pairs]
    measure(cells, args.runs, Results(args.results), args.at_once)
    return 0


if __name__ == "__main__":
    sys.exit(main())
