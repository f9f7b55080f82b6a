"""ipvsadm and lbadm --direct side by side on this kernel's ip_vs, with generated commands.

    python -m tests.reference.differential [--seed N] [--cases N] [--steps N]

Prints the cases in which they differ, and how; exit status 1 if there are any. For long runs:
python -m tests.uml.run --limit 3600 .venv/bin/python -m tests.reference.differential --cases 2000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from tests.reference import generate
from tests.reference.capture import capture, prepare
from tests.reference.cases import Outcome, run_case
from tests.reference.host import reference_netns
from tests.reference.lbadm import OnKernel


def compare(seed: int, count: int, steps: int) -> Iterator[Outcome]:
    lbadm = OnKernel()
    for name, case in generate.cases(seed, count, steps).items():
        captured = capture(case)
        with reference_netns():
            yield run_case(name, captured, lbadm.run, transactions=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reference.differential", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    prepare()
    failed = 0
    for outcome in compare(arguments.seed, arguments.cases, arguments.steps):
        if outcome.differences:
            failed += 1
            print(outcome.name, *outcome.differences, sep="\n  ", flush=True)
    print(f"{arguments.cases - failed}/{arguments.cases} generated cases alike")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
