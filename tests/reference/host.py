"""The names and interfaces of the machine on which the reference was captured."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from lbnode.cli.ipvsadm.host import SystemHost
from tests.uml.own_netns import own_netns

HOSTS = {
    "vip.example": "192.0.2.1",
    "web1.example": "198.51.100.1",
    "web2.example": "198.51.100.2",
    "a-very-long-virtual-host-name.example": "192.0.2.7",
    "a-very-long-real-server-name.example": "198.51.100.7",
    "localhost": "127.0.0.1",
}
TRAFFIC_HOSTS = {
    "client.example": "172.16.0.100",
    "vip.example": "172.16.0.50",
    "rs1.example": "10.1.0.11",
    "rs2.example": "10.1.0.12",
}
# /etc/services, where this machine has none (Debian's netbase).
SERVICES = {
    ("ssh", "tcp"): 22, ("smtp", "tcp"): 25, ("domain", "tcp"): 53, ("domain", "udp"): 53, ("tftp", "udp"): 69,
    ("http", "tcp"): 80, ("sip", "tcp"): 5060, ("sip", "udp"): 5060, ("https", "tcp"): 443, ("https", "udp"): 443,
}  # fmt: skip
MTU = {"lo": 65536, "dummy0": 1500}


class ReferenceHost(SystemHost):
    names = HOSTS

    def address_of(self, name: str) -> str | None:
        return self.names.get(name)

    def name_of(self, address: str) -> str | None:
        return next((name for name, known in self.names.items() if known == address), None)

    def port_of(self, service: str, protocol: str) -> int | None:
        return super().port_of(service, protocol) or SERVICES.get((service, protocol))

    def service_of(self, port: int, protocol: str) -> str | None:
        names = (name for (name, known), number in SERVICES.items() if (known, number) == (protocol, port))
        return super().service_of(port, protocol) or next(names, None)

    def mtu_of(self, interface: str) -> int | None:
        return MTU.get(interface)

    def is_broadcast(self, address: str) -> bool:
        return address in ("255.255.255.255", "192.168.0.255")


class TrafficHost(ReferenceHost):
    """Of tests.reference.traffic."""

    names = TRAFFIC_HOSTS


@contextlib.contextmanager
def reference_netns() -> Iterator[None]:
    """A nameless network namespace with the interfaces of that machine, for this thread and what it starts."""
    lines = (
        "link add dummy0 type veth peer name far0",  # not every kernel has dummy interfaces
        "link set far0 up",
        "addr add 192.168.0.1/24 dev dummy0",
        "addr add 2001:db8:ff::1/64 dev dummy0 nodad",
        "link set dummy0 up",
    )
    with own_netns():
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
        yield
