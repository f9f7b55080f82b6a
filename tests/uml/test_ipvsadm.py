"""lbadm beside ipvsadm on the kernel's ip_vs: the captured cases, and generated commands to both."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.reference import cases
from tests.reference.__main__ import run_all

pytestmark = [pytest.mark.root, pytest.mark.ipvs]

WALKS = 10  # of about 15 commands


@pytest.mark.parametrize("plane", ["direct", "ipvs"])
def test_captured_cases(plane: str) -> None:
    """lbadm --direct, and lbadm of an lbnoded that drives ip_vs."""
    if not (found := cases.load()):
        pytest.skip(f"no cases in {cases.FOLDER}")
    outcomes = run_all(plane, found)
    assert len(outcomes) == len(found)
    wrong = [outcome for outcome in outcomes if outcome.differences]
    assert not wrong, "\n".join("\n  ".join([outcome.name, *outcome.differences]) for outcome in wrong)


@pytest.mark.skipif(not shutil.which("ipvsadm"), reason="needs ipvsadm: apt-get install ipvsadm")
def test_generated_commands() -> None:
    command = [sys.executable, "-m", "tests.reference.differential", "--seed", "100", "--cases", str(WALKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{WALKS}/{WALKS} generated cases alike\n"
