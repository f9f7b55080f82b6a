"""What virtual services and real servers are known by: their addresses, ports and ids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# Which clients a persistent service takes for one: a prefix length, or for IPv4 a mask with holes (255.0.255.0).
Netmask = int | IPv4Address


class L4Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


def format_endpoint(address: Address, port: int) -> str:
    """`192.0.2.1:80` or `[2001:db8::1]:80`."""
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


def parse_endpoint(text: str) -> tuple[Address, int]:
    """Inverse of format_endpoint; ValueError says what is wrong."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})", text)
    if match is None:
        raise ValueError(f"{text!r} is not ADDRESS:PORT (IPv6 in brackets: [2001:db8::1]:80)")
    address, port = ip_address(match[1] or match[2]), int(match[3])
    if (match[1] is not None) != isinstance(address, IPv6Address):
        raise ValueError(f"{text!r}: brackets are for IPv6 addresses only")
    if port > 65535:
        raise ValueError(f"{text!r}: port {port} is above 65535")
    return address, port


@dataclass(frozen=True, slots=True)
class ServiceId:
    """Match condition of a virtual service: protocol+address+port, or a firewall mark (then address is None)."""

    protocol: L4Protocol | None
    address: Address | None
    port: int
    fwmark: int = 0
    inet6: bool = False  # address family of a fwmark service; for others it follows from the address

    def __str__(self) -> str:
        if self.fwmark:
            return f"fwmark:{self.fwmark}:inet6" if self.inet6 else f"fwmark:{self.fwmark}"
        assert self.protocol is not None and self.address is not None
        return f"{self.protocol}:{format_endpoint(self.address, self.port)}"

    @property
    def family(self) -> int:
        """4 or 6."""
        if self.address is not None:
            return self.address.version
        return 6 if self.inet6 else 4

    def sort_key(self) -> tuple[int, int, str, int, int]:
        """Stable order for listings: family, fwmark, protocol, address, port."""
        return (self.family, self.fwmark, self.protocol or "", int(self.address or 0), self.port)

    @classmethod
    def parse(cls, text: str) -> ServiceId:
        """Parse the canonical text form; ValueError says what is wrong and what the canonical form is."""
        kind, _, rest = text.partition(":")
        if kind == "fwmark":
            mark, _, family = rest.partition(":")
            if not mark.isdecimal() or not 0 < int(mark) < 2**32 or family not in ("", "inet6"):
                raise ValueError(f"{text!r} is not fwmark:N or fwmark:N:inet6 with N from 1 to 4294967295")
            result = cls(None, None, 0, fwmark=int(mark), inet6=family == "inet6")
        else:
            if kind not in tuple(L4Protocol):
                raise ValueError(f"{text!r} does not begin with tcp:, udp:, sctp: or fwmark:")
            address, port = parse_endpoint(rest)
            result = cls(L4Protocol(kind), address, port, inet6=address.version == 6)
        if str(result) != text:
            raise ValueError(f"{text!r} is not in canonical form; write {str(result)!r}")
        return result

    @classmethod
    def of(cls, protocol: str, address: str, port: int) -> ServiceId:
        """Shorthand for code and tests: `ServiceId.of("tcp", "192.0.2.10", 80)`."""
        parsed = ip_address(address)
        return cls(L4Protocol(protocol), parsed, port, inet6=parsed.version == 6)


@dataclass(frozen=True, slots=True)
class ServerId:
    """Address and port of a real server behind one service."""

    address: Address
    port: int

    def __str__(self) -> str:
        return format_endpoint(self.address, self.port)

    def sort_key(self) -> tuple[int, int, int]:
        return (self.address.version, int(self.address), self.port)

    @classmethod
    def parse(cls, text: str) -> ServerId:
        server = cls(*parse_endpoint(text))
        if str(server) != text:
            raise ValueError(f"{text!r} is not in canonical form; write {str(server)!r}")
        return server
