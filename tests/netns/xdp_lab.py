"""The network of the XDP/tcx tests: a client, one or two gateways, real servers, two switches; and a plane in it.

client 192.0.2.100 ── front ── gw 192.0.2.2 / 198.51.100.2 ── back ── rs1..rsN 198.51.100.31..
client 2001:db8:f::100      gw 2001:db8:f::2 / 2001:db8:b::2         rs1..rsN 2001:db8:b::31..
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import platform
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.links import XDP_FLAGS_DRV_MODE, AttachType
from lbnode.dataplane.xdp.maps import unmount_bpffs
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.lab.netns import CLONE_NEWNET, Net
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId

VIP = "192.0.2.10"
PORT = 8000
CLIENT = "192.0.2.100"
VIP6 = "2001:db8:f::10"
CLIENT6 = "2001:db8:f::100"
HTTP = ServiceId.of("tcp", VIP, PORT)
ECHO = ServiceId.of("udp", VIP, PORT)
# How the data plane attaches at the tc hook when it may choose: tcx links came with Linux 6.6.
AT_TC = "tcx" if tuple(map(int, platform.release().split(".")[:2])) >= (6, 6) else "tc"
_serial = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def thread_in_netns(namespace: str) -> Iterator[None]:
    """This thread works in a named namespace: BPF links, netlink and sockets made here belong to it."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{namespace}", "rb") as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")
        try:
            yield
        finally:
            if _libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns back")


def server_address(number: int, family: int = 4) -> str:
    return f"2001:db8:b::{30 + number}" if family == 6 else f"198.51.100.{30 + number}"


def server(
    number: int, *, weight: int = 1, forward: str = "masquerade", port: int = PORT, family: int = 4
) -> ProgrammedServer:
    server_id = ServerId(ip_address(server_address(number, family)), port)
    return ProgrammedServer(server_id, weight, ForwardingMethod(forward))


class Lab:
    """Namespaces client, gw (and gw2), sw, rs1.. with routes for masquerading through the gateway."""

    def __init__(self, *, servers: int = 2, gateways: int = 1, xdp: bool = False, attach: str = "auto") -> None:
        self.net = Net(f"lbt-xdp{os.getpid()}-{next(_serial)}")
        self.servers = servers
        self.gateways = ["gw", "gw2"][:gateways]
        self.xdp = xdp
        self.plane_attach = "xdp" if xdp else attach
        self._ends: LoadedObject | None = None
        self._links: list[int] = []
        self._run_dirs: list[Path] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for link in self._links:
            os.close(link)
        if self._ends is not None:
            self._ends.close()
        self.net.close()
        for run_dir in self._run_dirs:  # left by a test that failed half-way
            unmount_bpffs(run_dir / "bpf")

    def filters(self, gateway: str = "gw") -> str:
        """What `tc` tells of clsact in a gateway; empty: nothing is there."""
        found = [self.net.run(gateway, "tc", "qdisc", "show", "clsact")]
        for interface in ("front", "back"):
            found.append(self.net.run(gateway, "tc", "filter", "show", "dev", interface, "ingress"))
        return "".join(found)

    def uses(self, run_dir: Path) -> Path:
        """Remember to unmount what a plane mounts in this directory."""
        self._run_dirs.append(run_dir)
        return run_dir

    def _build(self) -> None:
        net = self.net
        net.add("sw")
        for bridge in ("front", "back"):
            net.bridge("sw", bridge)
        net.add("client")
        net.plug("client", "eth0", f"{CLIENT}/24", "sw", "f-client", "front")
        net.address("client", "eth0", f"{CLIENT6}/64")
        for number, gateway in enumerate(self.gateways):
            net.add(gateway, forward=True)
            net.plug(gateway, "front", f"192.0.2.{2 + number}/24", "sw", f"f-{gateway}", "front")
            net.plug(gateway, "back", f"198.51.100.{2 + number}/24", "sw", f"b-{gateway}", "back")
            net.address(gateway, "front", f"2001:db8:f::{2 + number}/64")
            net.address(gateway, "back", f"2001:db8:b::{2 + number}/64")
            if self.xdp:
                for port in (f"f-{gateway}", f"b-{gateway}"):
                    self.attach("sw", port, "hand_on")
        self.move_addresses("gw")
        for number in range(1, self.servers + 1):
            name = f"rs{number}"
            net.add(name)
            net.plug(name, "eth0", f"{server_address(number)}/24", "sw", f"b-{name}", "back")
            net.address(name, "eth0", f"{server_address(number, 6)}/64")
            for inner in ("198.51.100.1", "2001:db8:b::1"):
                net.run(name, "ip", "route", "add", "default", "via", inner)
            for key in ("all.rp_filter=0", "eth0.rp_filter=0"):
                net.run(name, "sysctl", "-qw", f"net.ipv4.conf.{key}")
            self.start_server(number)
        if self.xdp:
            # An XDP program does not complete the partial checksums that a veth passes along.
            for name in ("client", *(f"rs{n}" for n in range(1, self.servers + 1))):
                net.run(name, "ethtool", "-K", "eth0", "tx", "off")

    def move_addresses(self, gateway: str) -> None:
        """Give the VIPs and the inner gateway addresses 198.51.100.1 and 2001:db8:b::1 to one gateway, as the election
        would."""
        floating = (("front", f"{VIP}/32"), ("back", "198.51.100.1/32"), ("front", f"{VIP6}/128"),
                    ("back", "2001:db8:b::1/128"))  # fmt: skip
        for device, address in floating:
            for other in self.gateways:
                with contextlib.suppress(RuntimeError):
                    self.net.run(other, "ip", "addr", "del", address, "dev", device)
            self.net.address(gateway, device, address)
        for name in ("client", *(f"rs{n}" for n in range(1, self.servers + 1))):
            with contextlib.suppress(RuntimeError):
                self.net.run(name, "ip", "neigh", "flush", "all")

    def start_server(self, number: int, port: int = PORT, *, at: str = "") -> None:
        """In the namespace of the real server with this number, or in another one."""
        process = self.net.popen(
            at or f"rs{number}",
            sys.executable,
            str(Path(__file__).with_name("echo_server.py")),
            at or f"rs{number}",
            str(port),
            stdout=-1,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    def attach(self, name: str, interface: str, program: str, at: AttachType = AttachType.XDP) -> None:
        """Run one of the programs of ends.bpf.c on an interface, until the lab ends."""
        if self._ends is None:
            with tempfile.TemporaryDirectory() as build_dir:
                built = Path(build_dir) / "ends.o"
                compile_bpf(Path(__file__).with_name("ends.bpf.c"), built)
                self._ends = LoadedObject(built, pins=lambda _: None)
        fd, flags = self._ends.programs[program], XDP_FLAGS_DRV_MODE if at is AttachType.XDP else 0
        self._links.append(
            self.net.call(name, lambda: syscall.link_create(fd, socket.if_nametoindex(interface), at, flags))
        )

    @contextlib.asynccontextmanager
    async def plane(self, run_dir: Path, gateway: str = "gw", **options: object) -> AsyncIterator[XdpPlane]:
        """An open plane in a gateway; unloaded at the end."""
        with thread_in_netns(self.net.ns(gateway)):
            settings = {"attach": self.plane_attach, **options}
            plane = XdpPlane(self.uses(run_dir), **settings)  # type: ignore[arg-type]
            await plane.open()
            try:
                yield plane
            finally:
                await plane.close(unload=True)

    # --- the client's side -----------------------------------------------------------------------------------

    def connect(self, address: str = VIP, port: int = PORT, timeout: float = 5.0) -> socket.socket:
        return self.net.call("client", lambda: socket.create_connection((address, port), timeout=timeout))

    def udp(self, address: str = VIP) -> socket.socket:
        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            sock.settimeout(3.0)
            sock.connect((address, PORT))
            return sock

        return self.net.call("client", make)


def compile_bpf(source: Path, target: Path, *options: str) -> None:
    include = f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", *options, include, "-c", source, "-o", target], check=True)


def ask(sock: socket.socket, text: str = "hello", more: bytes = b"") -> str:
    """Send one line, return the name of the server that answered it."""
    sock.sendall(text.encode() + b"\n" + more)
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = sock.recv(4096)
        if not chunk:
            raise ConnectionError(f"connection ended after {answer!r}")
        answer += chunk
    name, echoed = answer.decode().split(maxsplit=1)
    assert echoed.strip() == text
    return name


def upload(sock: socket.socket, count: int) -> str:
    """Send so many bytes, return the name of the server that has them all."""
    return ask(sock, f"PUT {count}", b"x" * count)


def download(sock: socket.socket, count: int) -> int:
    sock.sendall(f"GET {count}\n".encode())
    left = count
    while left > 0:
        chunk = sock.recv(1 << 16)
        if not chunk:
            break
        left -= len(chunk)
    return count - left


async def programmed(plane: XdpPlane, scheduler: str = "rr", *servers: ProgrammedServer, vip: str = VIP) -> None:
    """A TCP and a UDP service at VIP:PORT with these servers."""
    for service_id in (ServiceId.of("tcp", vip, PORT), ServiceId.of("udp", vip, PORT)):
        await plane.apply(PutService(ProgrammedService(service_id, scheduler)))
        for one in servers:
            await plane.apply(PutServer(service_id, one))


async def until(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str, seconds: float = 10.0
) -> None:
    """Poll until true; the failure says what was waited for."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                result = condition()
                if await result if isinstance(result, Awaitable) else result:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None
