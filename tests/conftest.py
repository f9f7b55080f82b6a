"""Skips name the missing capability, so that a run without root says what it did not prove."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import socket
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from lbnode.dataplane.ipvs.netlink import GenericNetlink
from tests.machine import Machine, changes, machine

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


_MODULES = Path("/lib/modules", platform.release())
_IN_A_VM = "make test-oldest-kernel runs these tests in a virtual machine"


@functools.cache
def _has_sctp() -> bool:
    """Asking loads its module where there is one."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


@functools.cache
def _has_vlans() -> bool:
    """Loaded, or a module, or part of the kernel (modules.builtin)."""
    built_in = _MODULES / "modules.builtin"
    return (
        Path("/proc/net/vlan").exists()
        or any(_MODULES.glob("kernel/net/8021q/8021q.ko*"))
        or (built_in.exists() and "/8021q.ko" in built_in.read_text())
    )


NEEDS = {
    "root": lambda: "" if os.geteuid() == 0 else "needs root: network namespaces and BPF",
    "etcd": lambda: "" if shutil.which("etcd") else "needs etcd: apt-get install etcd-server etcd-client",
    "keepalived": lambda: "" if shutil.which("keepalived") else "needs keepalived: apt-get install keepalived",
    "frr": lambda: "" if os.access("/usr/lib/frr/vrrpd", os.X_OK) else "needs FRR's vrrpd: apt-get install frr",
    "ipvs": _missing_ip_vs,
    "sctp": lambda: "" if _has_sctp() else f"needs a kernel with SCTP: {_IN_A_VM}",
    "vlan": lambda: "" if _has_vlans() else f"needs a kernel with VLANs (8021q): {_IN_A_VM}",
    "chromium": lambda: "" if shutil.which("chromium") else "needs Chromium: apt-get install chromium",
}

# `make test` runs two tests at a time (pytest-xdist) where none waits for real time, four of those that mostly wait.
# What is of one group runs one after the other: User-Mode Linux's one kernel, and the packet tests, who share what the
# verifier takes a second for; all else a file at a time. The longest begin first.
GROUPS = {"uml": "uml", "packets": "packets"}
ORDER = ("uml", "tests/sim/election/test_campaign.py", "packets")


def group_of(nodeid: str) -> str:
    """nodeid: `tests/FOLDER/.../test_file.py::...`."""
    path = nodeid.partition("::")[0]
    return GROUPS.get(path.split("/")[1], path)


class GroupScheduling(LoadScopeScheduling):
    """A worker gets a group, and when it is nearly through, the next."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, missing in NEEDS.items():
            if item.get_closest_marker(marker) and (reason := missing()):
                item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(key=lambda item: ORDER.index(group) if (group := group_of(item.nodeid)) in ORDER else len(ORDER))


# The machine's own network before the first test; the process that starts the workers of pytest-xdist looks for all.
BEFORE = pytest.StashKey[Machine]()
CHANGED = pytest.StashKey[list[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        session.config.stash[BEFORE] = machine()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if BEFORE in session.config.stash:
        changed = session.config.stash[CHANGED] = list(changes(session.config.stash[BEFORE], machine()))
        if changed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests tell by record_property("figures", text), and what they changed of the machine's own network."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "figures":
                terminalreporter.write_line(text)
    for line in terminalreporter.config.stash.get(CHANGED, []):
        terminalreporter.write_line(f"FAILED: tests changed this machine's own network: {line}", red=True)
