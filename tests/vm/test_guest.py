"""In one boot of Debian 12's own kernel, all tests marked `sctp` or `vlan`. `make test-oldest-kernel` runs it."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import NEEDS
from tests.vm import run as vm

LIMIT_S = 900  # without hardware's help every program takes ten times as long
MARKS = ("sctp", "vlan")
MARKED = re.compile(rf"pytest\.mark\.({'|'.join(MARKS)})\b")  # only their files: the imports of others take a minute

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(vm.missing()), reason=vm.missing()),
    pytest.mark.skipif(not any(NEEDS[one]() for one in MARKS), reason="this kernel has all: its tests run here"),
]


@pytest.mark.timeout(LIMIT_S + 20)
def test_everything_marked_sctp_or_vlan() -> None:
    """The very same tests, collected anew inside the guest; a skip for want of the modules is a failure."""
    out, err = io.BytesIO(), io.BytesIO()
    files = [str(one) for one in sorted(Path("tests/netns").glob("test_*.py")) if MARKED.search(one.read_text())]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", str(LIMIT_S), *files]
    status = vm.run(command, LIMIT_S, out, err)
    told = out.getvalue().decode(errors="replace") + err.getvalue().decode(errors="replace")
    print(told)
    assert status == 0, told[-6000:]
    assert "make test-oldest-kernel" not in told
