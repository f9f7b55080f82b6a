"""`make bench-failover`: every fault, pairing and interval, RUNS times, in one table."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence

from tests.bench.failover.calm import false_takeovers
from tests.bench.failover.run import FAULTS, Outcome, run_once

PAIRS = {
    "lbnode/lbnode": ("lbnode", "lbnode"),
    "keepalived/keepalived": ("keepalived", "keepalived"),
    "lbnode/keepalived": ("lbnode", "keepalived"),
    "keepalived/lbnode": ("keepalived", "lbnode"),
}
INTERVALS_MS = (1000, 100, 30, 10)
RUNS = 20
HEADER = f"{'fault':14} {'Active/Backup':22} {'interval':>8}  {'gap ms':>14}  {'double ms':>14}  {'heal ms':>14}  lost"
NOTE = """\
median / worst of the runs. gap: longest time for which a client got no answer; double: both gateways served and the
client reached both; heal: the gap from the heal on; lost: runs at whose end the VIP did not answer. Backups have
priority 200 (keepalived waits its skew of 0.22 intervals after a release)."""


def _pair(values: Sequence[float]) -> str:
    return f"{statistics.median(values) * 1000:.0f} / {max(values) * 1000:.0f}" if values else "-"


def row(fault: str, pair: str, interval_ms: int, outcomes: Sequence[Outcome]) -> str:
    heals = [outcome.heal_gap for outcome in outcomes if outcome.heal_gap is not None]
    cells = (_pair([o.gap for o in outcomes]), _pair([o.double for o in outcomes]), _pair(heals))
    lost = f"{sum(o.lost for o in outcomes)} of {len(outcomes)}"
    return f"{fault:14} {pair:22} {interval_ms:5} ms  " + "  ".join(f"{cell:>14}" for cell in cells) + f"  {lost}"


def measure(runs: int, intervals_ms: Iterable[int], pairs: Iterable[str], faults: Iterable[str]) -> None:
    print(f"{runs} runs each\n{HEADER}", flush=True)
    pairs = list(pairs)
    for interval_ms in intervals_ms:
        for fault in faults:
            for pair in pairs:
                outcomes = [run_once(PAIRS[pair], FAULTS[fault], interval_ms / 1000) for _ in range(runs)]
                print(row(fault, pair, interval_ms, outcomes), flush=True)
    print(NOTE)


def measure_calm(seconds: float, intervals_ms: Iterable[int], pairs: Iterable[str]) -> None:
    print(f"takeovers within {seconds:g} s although nothing failed, two busy loops on each core")
    pairs = list(pairs)
    for interval_ms in intervals_ms:
        for pair in pairs:
            moves = false_takeovers(PAIRS[pair], interval_ms / 1000, seconds)
            print(f"{pair:22} {interval_ms:5} ms  {moves}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.failover", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--intervals", type=int, nargs="+", default=INTERVALS_MS, metavar="MS")
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--calm", type=float, metavar="SECONDS", help="no fault, but all cores busy for so long")
    args = parser.parse_args()
    if args.calm is not None:
        measure_calm(args.calm, args.intervals, args.pairs)
        return 0
    measure(args.runs, args.intervals, args.pairs, args.faults)
    return 0


if __name__ == "__main__":
    sys.exit(main())
