"""Counters and connections, as the data plane tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbnode.model.identity import Address, L4Protocol, ServerId


@dataclass(frozen=True, slots=True)
class Counters:
    """Monotonic totals since creation or last zero, and two gauges. In = from client, out = to client."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    active: int = 0  # gauge: connections in ESTABLISHED (IPVS: ActiveConn)
    inactive: int = 0  # gauge: all other tracked connections (IPVS: InActConn)
    persistent: int = 0  # gauge: templates of persistent clients (IPVS: PersistConn)


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, over the last seconds."""

    connections: float = 0.0
    packets_in: float = 0.0
    packets_out: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of packets that would have opened a connection to a service, beside those that did. Monotonic totals
    of packets, SYNs that are sent again included, since creation or last zero."""

    refused: Mapping[str, int] = field(default_factory=dict)  # reason, as in PlaneStatus.drops -> packets
    cookies_sent: int = 0  # SYNs answered with a SYN cookie
    cookies_accepted: int = 0  # ACKs that brought a valid one back
    cookies_refused: int = 0  # ACKs without one, while some are out
    mss_clamped: int = 0  # SYN and SYN-ACK that announced more than the service's `mss`


@dataclass(frozen=True, slots=True)
class ServiceCounters:
    """rates: of the service (None) and its servers, if the data plane measures them itself; else empty.

    admission: None if the data plane does not count it by service (IPVS: not at all).
    """

    total: Counters
    servers: Mapping[ServerId, Counters]
    rates: Mapping[ServerId | None, Rates] = field(default_factory=dict)
    admission: Admission | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """One tracked connection, as `lbadm -Lnc` shows it, or a template: a persistent client's choice of server.

    A template's client has port 0; that of a firewall mark has no protocol, and the mark as its virtual address.
    """

    protocol: L4Protocol | None
    client: tuple[Address, int]
    virtual: tuple[Address, int]
    server: tuple[Address, int]
    state: str  # IPVS's names: NONE ESTABLISHED SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK UDP
    expires_s: float
    pe_name: str = ""  # persistence engine of a template, and what it knows the client by
    pe_data: str = ""
    local: tuple[Address, int] | None = None  # with full NAT: what the server takes for its client
