"""lbadm under ipvsadm's names, knowing the reference's machine: `python -m tests.reference.program NAME ...`."""

from __future__ import annotations

import sys
from unittest import mock

from lbnode.cli.ipvsadm import main as lbadm
from tests.reference.host import ReferenceHost
from tests.reference.lbadm import PROGRAMS

if __name__ == "__main__":
    del sys.argv[0]
    with mock.patch.object(lbadm, "SystemHost", ReferenceHost):
        sys.exit(PROGRAMS[sys.argv[0]]())
