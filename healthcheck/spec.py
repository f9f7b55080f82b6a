"""What to check and what came out, as frozen values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address


class CheckType(StrEnum):
    TCP = "tcp"  # a connection is accepted
    HTTP = "http"
    HTTPS = "https"
    DNS = "dns"  # a name server answers a question without error
    PING = "ping"  # an ICMP echo request is answered
    UDP = "udp"  # a datagram is answered, or at least not turned away
    SMTP = "smtp"  # a mail server takes a HELO
    SCRIPT = "script"  # a program of this machine says so


@dataclass(frozen=True, slots=True)
class HttpSpec:
    """The request and what answer counts as healthy."""

    method: str = "GET"
    path: str = "/"
    host: str = ""  # Host header; empty = the server's address:port
    expected_statuses: frozenset[int] = frozenset({200})
    body_match: str = ""  # regular expression searched in the first 64 KiB of the body; empty = body is not read
    tls_verify: bool = True
    tls_ca_file: str = ""  # empty = the system's trust store
    tls_server_name: str = ""  # SNI and certificate name; empty = host, else the address


@dataclass(frozen=True, slots=True)
class DnsSpec:
    """The question; any answer without error is healthy, also an empty one."""

    name: str = "."
    type: str = "SOA"  # see probes.dns.TYPES


@dataclass(frozen=True, slots=True)
class UdpSpec:
    payload: str = ""  # hexadecimal
    # What the answer begins with, hexadecimal, x for any digit; "": any answer; None: none is waited for.
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class SmtpSpec:
    helo: str = ""  # empty = this machine's name


@dataclass(frozen=True, slots=True)
class ScriptSpec:
    """A program; it finds CHECK_ADDRESS and CHECK_PORT in its environment. Exit status 0 is healthy."""

    path: str = "/bin/true"
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One way to check a server. Durations in seconds."""

    type: CheckType = CheckType.TCP
    interval_s: float = 2.0
    timeout_s: float = 1.0  # for the whole probe: connect, TLS, request, answer
    rise: int = 2  # successes in a row until up
    fall: int = 3  # failures in a row until down
    jitter: float = 0.1  # each interval is drawn from interval_s * (1 ± jitter)
    port: int = 0  # 0 = the real server's port
    http: HttpSpec | None = None  # for http and https
    dns: DnsSpec | None = None
    udp: UdpSpec | None = None
    smtp: SmtpSpec | None = None
    script: ScriptSpec | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to check. `key` is the caller's name for it (lbnode: 'SERVICE/SERVER')."""

    key: str
    address: IPv4Address | IPv6Address
    port: int
    spec: CheckSpec


@dataclass(frozen=True, slots=True)
class Result:
    """What one probe found."""

    ok: bool
    reason: str = ""  # why it failed, fit for an operator's eyes; empty if ok
    latency_s: float = 0.0  # from the first packet to the answer, or to giving up


class Health(StrEnum):
    UNKNOWN = "unknown"  # no probe has ended yet
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a target's checks after rise/fall. `since`, `last_checked` are Unix time, for display."""

    health: Health
    reason: str = ""  # "connect refused", "status 503 not in 200", "timeout after 1 s"
    since: float = 0.0
    last_checked: float = 0.0
    latency_s: float = 0.0  # of the last probe
    streak: int = 0  # results in a row that agree with each other, not necessarily with `health`
