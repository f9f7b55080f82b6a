"""Names and interfaces as this machine knows them."""

from __future__ import annotations

import fcntl
import socket
import struct

SIOCGIFMTU = 0x8921  # linux/sockios.h


class SystemHost:
    """Contract: lbnode.cli.ipvsadm.values.Host."""

    def address_of(self, name: str) -> str | None:
        try:
            return socket.gethostbyname(name)
        except (OSError, UnicodeError):
            return None

    def name_of(self, address: str) -> str | None:
        try:
            return socket.gethostbyaddr(address)[0]
        except (OSError, UnicodeError):
            return None

    def port_of(self, service: str, protocol: str) -> int | None:
        try:
            return socket.getservbyname(service, protocol)
        except (OSError, UnicodeError):
            return None

    def service_of(self, port: int, protocol: str) -> str | None:
        try:
            return socket.getservbyport(port, protocol)
        except OSError:
            return None

    def mtu_of(self, interface: str) -> int | None:
        request = struct.pack("16si12x", interface.encode()[:15], 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            try:
                return int(struct.unpack("16si12x", fcntl.ioctl(query, SIOCGIFMTU, request))[1])
            except OSError:
                return None

    def is_broadcast(self, address: str) -> bool:
        """By the routes: udp(7) refuses to connect to such an address with EACCES."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
            try:
                query.connect((address, 9))
            except PermissionError:
                return True
            except OSError:
                return False
        return False
