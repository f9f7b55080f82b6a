"""In one boot of Debian 12's own kernel, all tests marked `sctp` or `vlan`. `make test-oldest-kernel` runs it."""

from __future__ import annotations

import io
import sys

import pytest

from tests.conftest import NEEDS
from tests.vm import run as vm

LIMIT_S = 900  # without hardware's help every program takes ten times as long
MARKS = ("sctp", "vlan")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.skipif(not any(NEEDS[one]() for one in MARKS), reason="this kernel has all: its tests run here"),
]


@pytest.mark.timeout(LIMIT_S + 20)
def test_everything_marked_sctp_or_vlan() -> None:
    """The very same tests, collected anew inside the guest; a skip for want of the modules is a failure."""
    out, err = io.BytesIO(), io.BytesIO()
    command = [sys.executable, "-m", "pytest", "-q", "-m", " or ".join(MARKS), "-p", "no:cacheprovider", "tests/netns"]
    status = vm.run([*command, "--timeout", str(LIMIT_S)], LIMIT_S, out, err)
    told = out.getvalue().decode(errors="replace") + err.getvalue().decode(errors="replace")
    print(told)
    assert status == 0, told[-6000:]
    assert "make test-oldest-kernel" not in told
