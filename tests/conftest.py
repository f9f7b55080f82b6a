"""Skips name the missing capability, so that a run without root says what it did not prove."""

from __future__ import annotations

import functools
import os
import shutil
from contextlib import closing

import hypothesis
import pytest

from lbnode.dataplane.ipvs.netlink import GenericNetlink

# A machine that is busy is no failure: nothing here asserts how long an example takes.
hypothesis.settings.register_profile("lbnode", deadline=None)
hypothesis.settings.load_profile("lbnode")


@functools.cache
def _missing_ip_vs() -> str:
    """Looking ip_vs up loads its module where there is one."""
    try:
        with closing(GenericNetlink()) as sock:
            sock.connect()
    except OSError:
        return "needs a kernel with ip_vs: tests/uml/test_guest.py runs these tests in User-Mode Linux"
    return ""


NEEDS = {
    "root": lambda: "" if os.geteuid() == 0 else "needs root: network namespaces and BPF",
    "etcd": lambda: "" if shutil.which("etcd") else "needs etcd: apt-get install etcd-server etcd-client",
    "keepalived": lambda: "" if shutil.which("keepalived") else "needs keepalived: apt-get install keepalived",
    "frr": lambda: "" if os.access("/usr/lib/frr/vrrpd", os.X_OK) else "needs FRR's vrrpd: apt-get install frr",
    "ipvs": _missing_ip_vs,
    "chromium": lambda: "" if shutil.which("chromium") else "needs Chromium: apt-get install chromium",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, missing in NEEDS.items():
            if item.get_closest_marker(marker) and (reason := missing()):
                item.add_marker(pytest.mark.skip(reason=reason))
