"""`make test-reference`: lbadm beside ipvsadm: passed and total per data plane, and the lines that differ."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.node.daemon import Daemon
from tests.reference import cases

PLANES = ("fake",)  # the answers of lbadm; what a data plane cannot do is in its contract tests


def main() -> int:
    found = cases.load()
    if not found:
        print(f"skipped: no {cases.CASES}")
        return 0
    return max(_compare(plane, found) for plane in PLANES)


def _compare(plane: str, found: cases.Cases) -> int:
    with tempfile.TemporaryDirectory(prefix="lbnode-reference-") as folder:
        node = Daemon(Path(folder))
        try:
            node.start()
            outcomes = [cases.run_case(name, case, node.client) for name, case in found.items()]
        finally:
            node.close()
    failed = [outcome for outcome in outcomes if outcome.differences]
    for outcome in failed:
        print(outcome.name)
        for line in outcome.differences:
            print(f"  {line}")
    print(f"{plane}: {len(outcomes) - len(failed)}/{len(outcomes)} cases of {cases.CASES} passed")
    for reason, count in Counter(outcome.on_purpose for outcome in outcomes if outcome.on_purpose).items():
        print(f"{plane}: {count} of them differ on purpose from one step on: {reason}")
        print("  " + " ".join(outcome.name for outcome in outcomes if outcome.on_purpose == reason))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
