"""Network namespaces for the lab and for tests: made, wired, used and removed again. Needs root and iproute2.

    with Net("t1") as net:
        net.add("client"); net.add("gw")
        net.veth("client", "eth0", "192.0.2.100/24", "gw", "front", "192.0.2.2/24")
        net.run("client", "ping", "-c1", "192.0.2.2")

Namespaces are called `<prefix>-<name>`; leaving the block kills what was started in them and deletes them. The root
namespace's own interfaces, addresses and sysctls are never touched: both ends of every pair live in namespaces.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*args: str) -> str:
    """Run ip(8); the error message carries its stderr."""
    return _checked(["ip", *args])


def _checked(command: Sequence[str], **kwargs: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return str(done.stdout)


def call_in_netns(namespace: str, function: Callable[[], T]) -> T:
    """Run `function` in a thread of its own inside a named namespace: sockets it makes stay in that namespace."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            with open(f"/run/netns/{namespace}", "rb") as handle:
                if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                    errno = ctypes.get_errno()
                    raise OSError(errno, f"setns to {namespace}: {os.strerror(errno)}")
            result.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


class Net:
    """A set of namespaces that live and die together."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.names: list[str] = []
        self._processes: list[subprocess.Popen[Any]] = []
        self._cleanups: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()
        for name in self.names:
            for pid in _checked(["ip", "netns", "pids", self.ns(name)]).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            ip("netns", "del", self.ns(name))
        while self._cleanups:
            self._cleanups.pop()()
        self.names.clear()
        self._processes.clear()

    def at_close(self, function: Callable[[], object]) -> None:
        """Have something put in order when the namespaces and their processes are gone; last come, first served."""
        self._cleanups.append(function)

    def ns(self, name: str) -> str:
        """The system-wide name of a namespace."""
        return f"{self.prefix}-{name}"

    def add(self, name: str, *, forward: bool = False) -> str:
        """Make a namespace with `lo` up; `forward` turns routing on and reverse-path filtering off in it."""
        ip("netns", "add", self.ns(name))
        self.names.append(name)
        ip("-n", self.ns(name), "link", "set", "lo", "up")
        if forward:
            for key in ("v4.ip_forward=1", "v4.conf.all.rp_filter=0", "v4.conf.default.rp_filter=0",
                        "v6.conf.all.forwarding=1"):  # fmt: skip
                self.run(name, "sysctl", "-qw", f"net.ip{key}")
        return self.ns(name)

    def veth(self, a: str, a_if: str, a_addr: str | None, b: str, b_if: str, b_addr: str | None) -> None:
        """A virtual cable between two namespaces; addresses in CIDR form or None."""
        ip("-n", self.ns(a), "link", "add", a_if, "type", "veth", "peer", "name", b_if, "netns", self.ns(b))
        for name, interface, address in ((a, a_if, a_addr), (b, b_if, b_addr)):
            if address:
                self.address(name, interface, address)
            ip("-n", self.ns(name), "link", "set", interface, "up")

    def address(self, name: str, interface: str, address: str) -> None:
        """Add an address in CIDR form; an IPv6 one is usable at once, nobody else can have it."""
        ip("-n", self.ns(name), "addr", "add", address, "dev", interface, *(("nodad",) if ":" in address else ()))

    def bridge(self, name: str, interface: str = "br0") -> None:
        """A switch inside namespace `name`; plug cables in with `plug`."""
        ip("-n", self.ns(name), "link", "add", interface, "type", "bridge")
        ip("-n", self.ns(name), "link", "set", interface, "up")

    def plug(self, name: str, interface: str, address: str | None, switch: str, port: str, bridge: str = "br0") -> None:
        """A cable from `name` into a switch namespace made with `bridge`."""
        self.veth(name, interface, address, switch, port, None)
        ip("-n", self.ns(switch), "link", "set", port, "master", bridge)

    def run(self, name: str, *command: str, **kwargs: Any) -> str:
        """Run a command inside; RuntimeError with its output if it fails."""
        return _checked(["nsenter", f"--net=/run/netns/{self.ns(name)}", *command], **kwargs)

    def popen(self, name: str, *command: str, **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a process inside; it is killed at the end of the block."""
        process = subprocess.Popen(["nsenter", f"--net=/run/netns/{self.ns(name)}", *command], **kwargs)
        self._processes.append(process)
        return process

    def call(self, name: str, function: Callable[[], T]) -> T:
        """Run a Python function inside (in a thread); the sockets it returns belong to the namespace."""
        return call_in_netns(self.ns(name), function)
