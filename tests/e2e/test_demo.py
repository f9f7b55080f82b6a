"""The first thing a newcomer types."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lbnode.lab.demo import NAME
from lbnode.lab.lab import RUN
from lbnode.lab.namespaces import NETNS
from tests.e2e.cluster import free_port

pytestmark = [pytest.mark.root, pytest.mark.etcd, pytest.mark.timeout(300)]
DEMO = [sys.executable, "-m", "lbnode.lab.main", "demo", "--once"]


def environment() -> dict[str, str]:
    return {**os.environ, "LBNODE_GW1_PORT": str(free_port()), "LBNODE_GW2_PORT": str(free_port())}


def leftovers() -> list[str]:
    found = [str(path) for path in [*NETNS.glob(f"{NAME}.*"), RUN / NAME] if path.exists()]
    return found + [line for line in Path("/proc/mounts").read_text().splitlines() if NAME in line]


def heed_ctrl_c() -> None:
    """Where the tests run in the background of a shell, SIGINT is ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_demo_once_does_what_it_says() -> None:
    done = subprocess.run(DEMO, env=environment(), capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[9/9]" in done.stdout and "FAIL" not in done.stdout
    figures = done.stdout.partition("Measured in this run:")[2]
    assert "longest gap when the active gateway dies" in figures and "20 kept, 0 lost" in figures
    assert leftovers() == []


def test_ctrl_c_leaves_nothing_behind() -> None:
    with subprocess.Popen(DEMO, env=environment(), stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith("[2/9]"):
                demo.send_signal(signal.SIGINT)
                break
        rest = demo.stdout.read()
        assert demo.wait(timeout=30) == 130, rest
    assert "nothing is left behind" in rest
    assert leftovers() == []
