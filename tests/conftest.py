"""Skips name the missing capability, so that a run without root says what it did not prove."""

from __future__ import annotations

import os
import shutil

import pytest

NEEDS = {
    "root": lambda: "" if os.geteuid() == 0 else "needs root: network namespaces and BPF",
    "etcd": lambda: "" if shutil.which("etcd") else "needs etcd: apt-get install etcd-server etcd-client",
    "keepalived": lambda: "" if shutil.which("keepalived") else "needs keepalived: apt-get install keepalived",
    "chromium": lambda: "" if shutil.which("chromium") else "needs Chromium: apt-get install chromium",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, missing in NEEDS.items():
            if item.get_closest_marker(marker) and (reason := missing()):
                item.add_marker(pytest.mark.skip(reason=reason))
