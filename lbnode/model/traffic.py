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
class ServiceCounters:
    """rates: of the service (None) and its servers, if the data plane measures them itself; else empty."""

    total: Counters
    servers: Mapping[ServerId, Counters]
    rates: Mapping[ServerId | None, Rates] = field(default_factory=dict)


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
