"""The failover bench's file of results, and the rows made of it."""

from __future__ import annotations

from pathlib import Path

from tests.bench.failover.judge import Outcome
from tests.bench.failover.results import HEADER, Cell, Results, Run, loads, row

CELL = Cell(100, "partition", "lbnode/lbnode")
RUN = Run(CELL, Outcome(gap=0.3, double=0.0, heal_gap=0.002, lost=False, takeover=0.31), load=2.5)
OTHER = Run(Cell(100, "SIGTERM", "lbnode/lbnode"), Outcome(0.004, 0.0, None, lost=True, takeover=None), load=0.5)


def test_the_next_bench_goes_on_where_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "results"
    first = Results(path)
    first.add(RUN)
    first.add(OTHER)
    with path.open("a") as file:
        file.write('{"interval_ms": 100, "fault": "par')  # its end
    second = Results(path)
    assert second.runs == [RUN, OTHER]
    second.add(RUN)
    assert Results(path).of(CELL) == [RUN, RUN]


def test_without_a_file_results_are_of_this_bench_alone() -> None:
    results = Results()
    results.add(OTHER)
    assert results.runs == [OTHER] and results.of(CELL) == []


def test_a_row_tells_median_and_worst_in_its_columns() -> None:
    worse = Run(CELL, Outcome(0.5, 0.1, 1.0, lost=True, takeover=None), load=4.5)
    told = " ".join(row(CELL, [RUN, RUN, worse]).split())
    assert told == "partition lbnode/lbnode 100 ms 300 / 500 0 / 100 2 / 1000 1 of 3"
    assert row(OTHER.cell, [OTHER]).split()[-4:] == ["-", "1", "of", "1"]
    assert row(CELL, [RUN]).rindex("0 of 1") == HEADER.rindex("lost")
    assert "2.5 / 4.5," in loads([RUN, RUN, worse])
