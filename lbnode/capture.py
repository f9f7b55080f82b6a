"""Packets with what became of them: the request and the result of `lbctl capture`. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self

from lbnode.errors import ConfigError
from lbnode.model import Address, ServiceId, parse_endpoint

VERDICTS = ("to-server", "to-client", "dropped", "passed", "answered")
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58, "sctp": 132}  # IANA's protocol numbers
MAX_SNAP, MAX_RATE, MAX_COUNT, MAX_SECONDS = 2048, 10_000, 1_000_000, 3600


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """Which packets: all that is named must hold. And how many of them at most."""

    service: ServiceId | None = None
    server: tuple[Address, int] | None = None  # port 0: every one
    client: IPv4Network | IPv6Network | None = None  # either end is in it
    protocol: str = ""
    port: int = 0  # of either end
    verdicts: frozenset[str] = frozenset(VERDICTS)
    reason: str = ""  # why it is dropped: a name from the drop counters; empty: any
    count: int = 1000  # packets
    seconds: float = 60.0
    snap: int = 256  # bytes of each frame
    rate: int = 1000  # packets per second

    @classmethod
    def parse(
        cls,
        *,
        service: str,
        server: str,
        client: str,
        protocol: str,
        port: int,
        verdicts: Collection[str],
        reason: str,
        count: int,
        seconds: float,
        snap: int,
        rate: int,
    ) -> Self:
        """From an operator's words; ConfigError says which of them is wrong."""
        if protocol and protocol not in PROTOCOLS:
            raise ConfigError(f"protocol: {protocol!r} is none of {', '.join(PROTOCOLS)}")
        for verdict in verdicts:
            if verdict not in VERDICTS:
                raise ConfigError(f"verdict: {verdict!r} is none of {', '.join(VERDICTS)}")
        try:
            service_id = ServiceId.parse(service) if service else None
        except ValueError as error:
            raise ConfigError(f"service: {error}") from error
        try:
            network = ip_network(client, strict=False) if client else None
        except ValueError as error:
            raise ConfigError(f"client: {error}: write ADDRESS or ADDRESS/BITS") from error
        wanted = frozenset(verdicts) or frozenset(VERDICTS)
        return cls(service_id, _server(server), network, protocol, port, wanted, reason, count, seconds, snap, rate)

    def __str__(self) -> str:
        words = [
            f"{name} {value}"
            for name, value in (
                ("service", self.service),
                ("server", self.server and self.server[0]),
                ("client", self.client),
                ("protocol", self.protocol),
                ("port", self.port),
                ("reason", self.reason),
                ("verdict", ", ".join(sorted(self.verdicts)) if len(self.verdicts) < len(VERDICTS) else ""),
            )
            if value
        ]
        return ", ".join(words) or "every packet"


def _server(text: str) -> tuple[Address, int] | None:
    if not text:
        return None
    try:
        return parse_endpoint(text)
    except ValueError as error:
        try:
            return ip_address(text), 0
        except ValueError:
            raise ConfigError(f"server: {error}, nor an ADDRESS") from error


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """One end of it: as it came in, or as it leaves. Both have one time: when it came in."""

    time_ns: int  # Unix time
    interface: str
    leaves: bool
    data: bytes  # the frame's first bytes
    length: int  # of the whole frame
    verdict: str  # of VERDICTS
    reason: str  # why it is dropped, or what else was counted for it; empty: nothing
    server: str  # ADDRESS:PORT that it goes to or comes from; empty: none

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        server = f" {self.server}" if self.server else ""
        return f"{self.verdict}{reason}{server}"


@dataclass(frozen=True, slots=True)
class Captured:
    """What came since the last one."""

    packets: tuple[CapturedPacket, ...]
    missed: int  # packets that matched, since the beginning, and are not there: above `rate`, or without room
