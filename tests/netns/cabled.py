"""The smallest network for the XDP/tcx data plane: three namespaces and two cables, no switch and no process.

client eth0 ── front gw back ── eth0 rs
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, Self

from lbnode.dataplane.xdp.maps import unmount_bpffs
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.lab.netns import Net
from tests.netns.xdp_lab import compile_bpf, thread_in_netns

_serial = itertools.count()


class Cabled:
    """Interfaces are up and have no addresses."""

    def __init__(self, attach: Literal["xdp", "tcx", "tc"]) -> None:
        self.net = Net(f"lbt-cabled{os.getpid()}-{next(_serial)}")
        self.attach = attach

    def __enter__(self) -> Self:
        try:
            for name, port in (("client", "front"), ("rs", "back")):
                self.net.add(name)
                if "gw" not in self.net.names:
                    self.net.add("gw", forward=True)
                self.net.veth(name, "eth0", None, "gw", port, None)
            if self.attach == "xdp":
                self._like_nics()
        except BaseException:
            self.net.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.net.close()

    def _like_nics(self) -> None:
        """What comes has its checksums and tags in the frame, and what an XDP program sends is received: by a veth that
        has a program, too."""
        with tempfile.TemporaryDirectory() as build_dir:
            built = Path(build_dir) / "ends.o"
            compile_bpf(Path(__file__).with_name("ends.bpf.c"), built)
            for name in ("client", "rs"):
                self.net.run(name, "ethtool", "-K", "eth0", "tx", "off", "txvlan", "off")
                self.net.run(name, "ip", "link", "set", "eth0", "xdpdrv", "object", str(built), "program", "hand_on")

    def ip(self, name: str, *commands: str) -> None:
        """ip(8) in batch mode."""
        self.net.run(name, "ip", "-batch", "-", input="\n".join(commands) + "\n")

    def addresses(self, name: str, interface: str, *addresses: str) -> None:
        """In CIDR form."""
        self.ip(name, *(f"addr add {one} dev {interface}{' nodad' * (':' in one)}" for one in addresses))

    def vlan(self, name: str, interface: str, number: int, *addresses: str, to: str = "") -> None:
        """`to`: namespace that gets the VLAN's interface."""
        vlan = f"{interface}.{number}"
        self.ip(name, f"link add link {interface} name {vlan} type vlan id {number}")
        if to:
            self.ip(name, f"link set {vlan} netns {self.net.ns(to)}")
        self.ip(to or name, f"link set {vlan} up")
        self.addresses(to or name, vlan, *addresses)

    @contextlib.asynccontextmanager
    async def plane(self, run_dir: Path) -> AsyncIterator[XdpPlane]:
        """An open plane in the gateway; unloaded at the end."""
        with thread_in_netns(self.net.ns("gw")):
            plane = XdpPlane(run_dir, attach=self.attach, connections=4096)
            try:
                await plane.open()
                yield plane
            finally:
                await plane.close(unload=True)
                unmount_bpffs(run_dir / "bpf")


def carries(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """So many bytes, as they are."""
    data = bytes(n % 251 for n in range(size))
    sending = threading.Thread(target=sender.sendall, args=(data,))
    sending.start()
    got = b""
    while len(got) < size and (more := receiver.recv(size)):
        got += more
    sending.join()
    assert got == data
