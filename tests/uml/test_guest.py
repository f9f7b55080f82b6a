"""User-Mode Linux: the runner, and, in one boot, all tests that are marked `ipvs` where this kernel has no ip_vs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NEEDS
from tests.uml import run as uml

ROOT = Path(__file__).parents[2]

needs_uml = pytest.mark.skipif(uml.kernel() is None, reason=f"needs User-Mode Linux: apt-get install {uml.PACKAGE}")
pytestmark = pytest.mark.skipif(not NEEDS["ipvs"](), reason="this kernel has ip_vs: its tests run here, not in a guest")


def guest(*command: str, limit_s: int = 60) -> subprocess.CompletedProcess[str]:
    runner = [sys.executable, "-m", "tests.uml.run", "--limit", str(limit_s)]
    return subprocess.run([*runner, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@needs_uml
def test_a_command_in_the_guest(tmp_path: Path) -> None:
    """Its kernel has ip_vs; output, arguments and exit status come out; what it writes stays in the guest."""
    written = tmp_path / "written"
    script = f"cat /proc/net/ip_vs; printf '<%s>' \"$@\" >&2; echo x >{written}; cat {written}; exit 7"
    done = guest("bash", "-c", script, "bash", "two words", "", "it's")
    assert done.stdout.startswith("IP Virtual Server version 1.2.1") and done.stdout.endswith("\nx\n")
    assert done.stderr == "<two words><><it's>"
    assert done.returncode == 7
    assert not written.exists()


@needs_uml
def test_a_command_that_takes_too_long() -> None:
    done = guest("sleep", "100", limit_s=4)
    assert done.returncode == uml.TIMED_OUT
    assert "time limit of 4 s" in done.stderr


@needs_uml
@pytest.mark.timeout(620)
def test_everything_marked_ipvs() -> None:
    """The very same tests, collected anew inside the guest; a skip for want of ip_vs there is a failure."""
    contracts = sorted(Path("tests/contracts").glob("test_dataplane*.py"))
    pytest_ipvs = [sys.executable, "-m", "pytest", "-q", "-m", "ipvs", "-p", "no:cacheprovider"]
    done = guest(*pytest_ipvs, *map(str, contracts), "tests/uml", limit_s=600)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert NEEDS["ipvs"]() not in done.stdout
