"""The data planes that the contract suite runs on, and how it gets at each."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from lbnode.dataplane.base import DataPlane
from lbnode.dataplane.fake import FakeKernel, FakePlane
from lbnode.dataplane.ipvs.plane import IpvsPlane
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.lab.netns import Net
from lbnode.model import Connection
from tests.netns.xdp_lab import thread_in_netns
from tests.uml.own_netns import own_netns


class PlaneCase(Protocol):
    """How the suite gets at one kind of data plane."""

    def plane(self) -> DataPlane:
        """A handle that is not open yet; each call a new one on the same kernel state, as after a restart."""
        ...

    def connect(self, plane: DataPlane, connection: Connection) -> None:
        """Make the kernel track this connection. pytest.skip() where that takes real packets."""
        ...

    async def cleanup(self) -> None: ...


@dataclass
class FakeCase:
    kernel: FakeKernel

    def plane(self) -> DataPlane:
        return FakePlane(self.kernel)

    def connect(self, plane: DataPlane, connection: Connection) -> None:
        assert isinstance(plane, FakePlane)
        plane.connect(connection)

    async def cleanup(self) -> None:
        self.kernel.services.clear()


class XdpCase:
    """The XDP/tcx data plane in a network namespace of its own; this thread works in it until `cleanup`."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._stack = contextlib.ExitStack()
        net = self._stack.enter_context(Net(f"lbt-con{os.getpid()}"))
        self._stack.enter_context(thread_in_netns(net.add("gw", forward=True)))

    def plane(self) -> DataPlane:
        return XdpPlane(self._run_dir, connections=1024)

    def connect(self, plane: DataPlane, connection: Connection) -> None:
        pytest.skip("takes real packets: see tests/netns/test_xdp_*.py")

    async def cleanup(self) -> None:
        self._stack.close()


class IpvsCase:
    """The kernel's ip_vs in a network namespace of its own; this thread works in it until `cleanup`."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(own_netns())

    def plane(self) -> DataPlane:
        return IpvsPlane(self._run_dir)

    def connect(self, plane: DataPlane, connection: Connection) -> None:
        pytest.skip("takes real packets: see tests/uml/test_ipvs.py")

    async def cleanup(self) -> None:
        self._stack.close()


CASES = {
    "fake": pytest.param(lambda _: FakeCase(FakeKernel()), id="fake"),
    "xdp": pytest.param(XdpCase, id="xdp", marks=pytest.mark.root),
    "ipvs": pytest.param(IpvsCase, id="ipvs", marks=[pytest.mark.root, pytest.mark.ipvs]),
}
