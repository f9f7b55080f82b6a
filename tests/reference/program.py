"""lbadm under ipvsadm's names, knowing the reference's machine: `python -m tests.reference.program NAME ...`."""

from __future__ import annotations

import sys
from unittest import mock

from lbnode.cli import ipvsadm
from tests.reference.host import ReferenceHost

if __name__ == "__main__":
    del sys.argv[0]
    with mock.patch.object(ipvsadm, "SystemHost", ReferenceHost):
        main = {"ipvsadm": ipvsadm.main, "ipvsadm-save": ipvsadm.save, "ipvsadm-restore": ipvsadm.restore}[sys.argv[0]]
        sys.exit(main())
