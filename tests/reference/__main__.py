"""`make test-reference`: lbadm beside ipvsadm, the schedulers beside ip_vs's: passed and total, and what differs.

    python -m tests.reference [PLANE...]    fake, xdp, ipvs, direct; without one, all of them, each where it can run

The cases under live traffic are run on all but the fake, which forwards nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

from tests.conftest import NEEDS
from tests.reference import cases, schedulers, traffic
from tests.reference.lbadm import needs_root, target
from tests.uml import run as uml

KERNEL_PLANES = ("ipvs", "direct")  # need a kernel with ip_vs
LIMIT_S = 600


def main() -> int:
    if planes := sys.argv[1:]:
        return max(_compare(plane) for plane in planes)
    missing = [path for path in (*cases.CASES, traffic.TRAFFIC) if not path.exists()]
    for path in missing:
        print(f"skipped: no {path}")
    if len(missing) == len(cases.CASES) + 1:
        return _schedulers()
    return max(_compare("fake"), _on_xdp(), _on_ip_vs(), _schedulers())


def _on_xdp() -> int:
    if missing := NEEDS["root"]():
        print(f"xdp: skipped: {missing}")
        return 0
    return _compare("xdp")


def _schedulers() -> int:
    if missing := NEEDS["root"]():
        print(f"schedulers on xdp: skipped: {missing}")
        return 0
    return schedulers.report()


def _on_ip_vs() -> int:
    if not NEEDS["ipvs"]() and not NEEDS["root"]():
        return max(_compare(plane) for plane in KERNEL_PLANES)
    if uml.kernel() is None:
        print(f"{' '.join(KERNEL_PLANES)}: skipped: needs a kernel with ip_vs, or User-Mode Linux ({uml.PACKAGE})")
        return 0
    inside = [sys.executable, "-m", "tests.reference", *KERNEL_PLANES]
    runner = [sys.executable, "-m", "tests.uml.run", "--limit", str(LIMIT_S)]
    return subprocess.run([*runner, *inside], check=False).returncode


def _compare(plane: str) -> int:
    failed = _report(plane, "cases", run_all(plane, cases.load(*cases.CASES)))
    if plane != "fake" and traffic.TRAFFIC.exists():
        failed += _report(plane, "cases under live traffic", traffic.run_all(plane))
    return 1 if failed else 0


def _report(plane: str, what: str, outcomes: Sequence[cases.Outcome]) -> int:
    """Returns how many failed."""
    failed = [outcome for outcome in outcomes if outcome.differences]
    for outcome in failed:
        print(outcome.name)
        for line in outcome.differences:
            print(f"  {line}")
    print(f"{plane}: {len(outcomes) - len(failed)}/{len(outcomes)} {what} passed, of {cases.FOLDER / 'ipvsadm'}")
    for reason, count in Counter(outcome.on_purpose for outcome in outcomes if outcome.on_purpose).items():
        print(f"{plane}: {count} of them differ on purpose from one step on: {reason}")
        print("  " + " ".join(outcome.name for outcome in outcomes if outcome.on_purpose == reason))
    return len(failed)


def run_all(plane: str, found: cases.Cases) -> Sequence[cases.Outcome]:
    outcomes = []
    with target(plane) as lbadm:
        for name, case in found.items():
            if needs_root(case) and (missing := NEEDS["root"]()):
                print(f"{plane}: {name}: skipped: {missing}")
                continue
            with lbadm.case():
                outcomes.append(cases.run_case(name, case, lbadm.run, transactions=lbadm.transactions))
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
