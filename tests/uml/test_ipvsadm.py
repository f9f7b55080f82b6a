"""lbadm beside ipvsadm on the kernel's ip_vs: the captured cases, and generated commands to both."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.reference import cases, traffic
from tests.reference.__main__ import run_all

pytestmark = [pytest.mark.root, pytest.mark.ipvs]

WALKS = 10  # of about 15 commands


@pytest.mark.parametrize("plane", ["direct", "ipvs"])
def test_captured_cases(plane: str) -> None:
    """lbadm --direct, and lbadm of an lbnoded that drives ip_vs."""
    if not (found := cases.load(*cases.CASES)):
        pytest.skip(f"no cases in {cases.FOLDER}")
    cases.check(run_all(plane, found), found)


@pytest.mark.parametrize("plane", ["direct", "ipvs"])
def test_captured_cases_under_live_traffic(plane: str) -> None:
    if not (found := cases.load(traffic.TRAFFIC)):
        pytest.skip(f"no {traffic.TRAFFIC}")
    cases.check(traffic.run_all(plane), found)


@pytest.mark.skipif(not shutil.which("ipvsadm"), reason="needs ipvsadm: apt-get install ipvsadm")
def test_generated_commands() -> None:
    command = [sys.executable, "-m", "tests.reference.differential", "--seed", "100", "--cases", str(WALKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{WALKS}/{WALKS} generated cases alike\n"
