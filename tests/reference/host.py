"""The names and interfaces of the machine on which the reference was captured."""

from __future__ import annotations

from lbnode.cli.ipvsadm_host import SystemHost

HOSTS = {
    "vip.example": "192.0.2.1",
    "web1.example": "198.51.100.1",
    "web2.example": "198.51.100.2",
    "a-very-long-virtual-host-name.example": "192.0.2.7",
    "a-very-long-real-server-name.example": "198.51.100.7",
    "localhost": "127.0.0.1",
}
# /etc/services, where this machine has none (Debian's netbase).
SERVICES = {
    ("ssh", "tcp"): 22, ("smtp", "tcp"): 25, ("domain", "tcp"): 53, ("domain", "udp"): 53, ("tftp", "udp"): 69,
    ("http", "tcp"): 80, ("https", "tcp"): 443, ("https", "udp"): 443,
}  # fmt: skip
MTU = {"lo": 65536, "dummy0": 1500}


class ReferenceHost(SystemHost):
    def address_of(self, name: str) -> str | None:
        return HOSTS.get(name)

    def name_of(self, address: str) -> str | None:
        return next((name for name, known in HOSTS.items() if known == address), None)

    def port_of(self, service: str, protocol: str) -> int | None:
        return super().port_of(service, protocol) or SERVICES.get((service, protocol))

    def service_of(self, port: int, protocol: str) -> str | None:
        names = (name for (name, known), number in SERVICES.items() if (known, number) == (protocol, port))
        return super().service_of(port, protocol) or next(names, None)

    def mtu_of(self, interface: str) -> int | None:
        return MTU.get(interface)
