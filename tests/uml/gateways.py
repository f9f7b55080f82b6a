"""Two gateways, a client and servers in network namespaces, wired by few processes: starting one takes long in a guest.

    front 192.0.2.0/24       client .100, gateways .2 and .3, a server for direct routing .31
    back  198.51.100.0/24    gateways .2 and .3, servers for masquerading .31 and .32

The virtual addresses are VIP and, as the servers' router, BACK_VIP. All sockets belong to this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Self

from lbnode.lab.netns import CLONE_NEWNET

VIP, BACK_VIP = "192.0.2.10", "198.51.100.1"
GATEWAYS = {"gw1": 2, "gw2": 3}
MASQUERADED = {"rs1": "198.51.100.31", "rs2": "198.51.100.32"}
DIRECT = {"rd1": "192.0.2.31"}
_libc = ctypes.CDLL(None, use_errno=True)


class Lab:
    """Leaving the block deletes the namespaces; processes in them are their starters' to end."""

    def __init__(self) -> None:
        self._prefix = f"lbt-fo{os.getpid()}-"
        self._names = ["switch", "client", *GATEWAYS, *MASQUERADED, *DIRECT]

    def __enter__(self) -> Self:
        _batch([f"netns add {self._prefix}{name}" for name in self._names])
        try:
            self._wire()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _batch([f"netns del {self._prefix}{name}" for name in self._names])

    def _wire(self) -> None:
        ports = [("client", "front", "eth0", "192.0.2.100/24")]
        for name, host in GATEWAYS.items():
            ports += [(name, "front", "eth0", f"192.0.2.{host}/24"), (name, "back", "eth1", f"198.51.100.{host}/24")]
        ports += [(name, "back", "eth0", f"{address}/24") for name, address in MASQUERADED.items()]
        ports += [(name, "front", "eth0", f"{address}/24") for name, address in DIRECT.items()]
        lines = ["link add front type bridge", "link add back type bridge", "link set front up", "link set back up"]
        for name, bridge, interface, _ in ports:
            port = f"{name}-{bridge}"
            lines += [f"link add {port} type veth peer name {interface} netns {self._prefix}{name}"]
            lines += [f"link set {port} master {bridge} up"]
        self.ip("switch", *lines)
        for name in self._names[1:]:
            mine = [(interface, address) for owner, _, interface, address in ports if owner == name]
            lines = ["link set lo up", *(f"addr add {address} dev {interface}" for interface, address in mine)]
            lines += [f"link set {interface} up" for interface, _ in mine]
            if name in MASQUERADED:
                lines.append(f"route add default via {BACK_VIP}")
            if name in DIRECT:
                lines.append(f"addr add {VIP}/32 dev lo")
            self.ip(name, *lines)
        for name in GATEWAYS:
            self.sysctl(name, "ip_forward", "1")
        for name in DIRECT:
            self.sysctl(name, "conf/all/arp_ignore", "1")
            self.sysctl(name, "conf/all/arp_announce", "2")

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread, and the processes it starts, are in the namespace inside the block."""
        with open("/proc/thread-self/ns/net", "rb") as before, open(f"/run/netns/{self._prefix}{name}", "rb") as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    def ip(self, name: str, *lines: str) -> None:
        with self.inside(name):
            _batch(lines)

    def sysctl(self, name: str, key: str, value: str) -> None:
        with self.inside(name), open(f"/proc/sys/net/ipv4/{key}", "w") as file:
            file.write(value)

    def unplug(self, gateway: str) -> None:
        """What a power cut looks like to all others."""
        self.ip("switch", f"link set {gateway}-front down", f"link set {gateway}-back down")

    def plug(self, gateway: str) -> None:
        self.ip("switch", f"link set {gateway}-front up", f"link set {gateway}-back up")

    def listen(self, name: str, address: str, port: int) -> socket.socket:
        with self.inside(name):
            return socket.create_server((address, port), backlog=64)

    def connect(self, address: str, port: int, timeout_s: float = 10.0) -> socket.socket:
        with self.inside("client"):
            return socket.create_connection((address, port), timeout=timeout_s)

    def run(self, name: str, *command: str, check: bool = True) -> str:
        with self.inside(name):
            return subprocess.run(command, check=check, capture_output=True, text=True).stdout

    def mac(self, name: str, interface: str) -> str:
        return self.run(name, "ip", "-br", "link", "show", "dev", interface).split()[2]

    def popen(self, name: str, command: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
        with self.inside(name):
            return subprocess.Popen(command, **settings)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def _batch(lines: Sequence[str]) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip -batch: {done.stderr.strip()}")


class Held:
    """A client's connection and its server's end."""

    def __init__(self, lab: Lab, port: int, listeners: Sequence[socket.socket]) -> None:
        self._client = lab.connect(VIP, port)
        self._server = self._accept(listeners)
        self.server = self._server.getsockname()[0]

    def _accept(self, listeners: Sequence[socket.socket]) -> socket.socket:
        """The health checks connect, too."""
        while True:
            readable, _, _ = select.select(listeners, [], [], 10)
            assert readable, "no server has the connection"
            for listener in readable:
                accepted, peer = listener.accept()
                if peer == self._client.getsockname():
                    return accepted
                accepted.close()

    def is_live(self, patience_s: float = 10.0) -> bool:
        for end in (self._client, self._server):
            end.settimeout(patience_s)
        try:
            self._client.sendall(b"ping")
            if self._server.recv(10) != b"ping":
                return False
            self._server.sendall(b"pong")
            return self._client.recv(10) == b"pong"
        except OSError:
            return False

    def close(self) -> None:
        self._client.close()
        self._server.close()
