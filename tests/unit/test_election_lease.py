"""The lease writer, and what its process is made of."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from ipaddress import ip_address

import pytest

from lbnode.election import realtime
from lbnode.election.lease import Leases
from lbnode.model import VipAddress, VipGroup
from lbnode.plan import leased

FRONT = VipGroup("front", 51, (VipAddress(ip_address("192.0.2.10"), 24),), {"gw1": 250, "gw2": 150})
ALONE = VipGroup("alone", 52, (VipAddress(ip_address("192.0.2.11"), 24),), {"gw1": 250})
THEIRS = VipGroup("theirs", 53, (VipAddress(ip_address("192.0.2.12"), 24),), {"gw2": 250, "gw3": 150})


def test_only_groups_that_this_node_shares_need_a_lease() -> None:
    groups = {group.name: group for group in (FRONT, ALONE, THEIRS)}
    assert leased(groups, "gw1") == {"front": {ip_address("192.0.2.10")}}
    assert leased(groups, "gw4") == {}


def test_a_lease_is_a_number_at_its_index() -> None:
    descriptor = os.memfd_create("leases")  # stands for the kernel's array
    os.truncate(descriptor, mmap.PAGESIZE)
    leases = Leases(descriptor)
    leases.configure({"front": 3})
    leases.set(FRONT, 2**63 - 1)
    leases.set(ALONE, 77)  # has none
    content = os.pread(descriptor, mmap.PAGESIZE, 0)
    assert content[24:32] == (2**63 - 1).to_bytes(8, sys.byteorder)
    assert not any(content[:24] + content[32:])
    leases.set(FRONT, 0)
    assert not any(os.pread(descriptor, mmap.PAGESIZE, 0))
    os.close(descriptor)


def test_a_data_plane_without_leases_gets_none() -> None:
    leases = Leases(None)
    leases.configure({"front": 3})
    leases.set(FRONT, 1)


def test_a_descriptor_of_something_else_is_refused() -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError):
        Leases(reading)
    os.close(reading)
    os.close(writing)


def test_the_election_process_is_made_of_little() -> None:
    """It shares its interpreter with nothing that allocates much or blocks; its only thread is that of worker.py."""
    script = "import lbnode.election.driver, sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.split()
    )
    ours = {name for name in loaded if name.partition(".")[0] in ("lbnode", "healthcheck", "web")}
    allowed = (
        "lbnode",
        "lbnode.cpus",
        "lbnode.election",
        "lbnode.errors",
        "lbnode.model",
        "healthcheck",
        "healthcheck.spec",
    )
    packages = ("lbnode.election.", "lbnode.model.")
    assert {name for name in ours if name not in allowed and not name.startswith(packages)} == set()
    heavy = ("asyncio", "grpc", "aiohttp", "pydantic", "pyroute2", "yaml", "concurrent", "logging", "ssl")
    assert loaded.isdisjoint(heavy)


def test_whatever_it_is_not_allowed_it_says_with_the_consequence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def mlockall(self, flags: int) -> int:
            assert flags == 3
            ctypes.set_errno(errno.ENOMEM)
            return -1

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(realtime.os, "sched_setscheduler", refuse)
    monkeypatch.setattr(realtime.os, "setpriority", lambda *_: None)
    monkeypatch.setattr(realtime.ctypes, "CDLL", lambda *_, **__: Libc())
    monkeypatch.setattr(realtime.gc, "freeze", lambda: None)
    assert realtime.become_realtime() == (
        "no real-time priority (Operation not permitted): keep advert_interval at 0.1 s or more; "
        "memory is not locked (Cannot allocate memory): swapping may delay advertisements"
    )
    monkeypatch.setattr(realtime.os, "setpriority", refuse)
    assert "a busy CPU may move VIPs" in realtime.become_realtime()
