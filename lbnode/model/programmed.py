"""What the data plane holds, or shall hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lbnode.model.identity import Address, Netmask, ServerId, ServiceId
from lbnode.model.services import IPIP, Access, ForwardingMethod, OwnTimeouts, Tunnel
from lbnode.model.settings import Timeouts


@dataclass(frozen=True, slots=True)
class ProgrammedServer:
    """A real server as the data plane has (or shall have) it; `weight` is the effective weight.

    With full NAT, `local_addresses` of its family are those that the server sees connections come from, and `toa`: the
    client's own address is told in a TCP option.
    """

    id: ServerId
    weight: int
    forward: ForwardingMethod
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel: Tunnel = IPIP
    local_addresses: tuple[Address, ...] = ()
    toa: bool = False


@dataclass(frozen=True, slots=True)
class ProgrammedService:
    id: ServiceId
    scheduler: str
    scheduler_flags: frozenset[str] = frozenset()
    persistent_s: int = 0
    persistent_netmask: Netmask | None = None
    one_packet: bool = False
    servers: Mapping[ServerId, ProgrammedServer] = field(default_factory=dict)
    persistence_engine: str = ""
    syn_proxy: int | None = None
    mss: int | None = None
    access: Access = Access()
    timeouts: OwnTimeouts = OwnTimeouts()


@dataclass(frozen=True, slots=True)
class Programmed:
    """Content of a data plane: what `plan` wants (desired) and what `dump` finds (actual) have the same type."""

    services: Mapping[ServiceId, ProgrammedService] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """Status of one object (service id, or service id + server id as 'SERVICE/SERVER')."""

    revision: int  # store revision at which it was last programmed; 0 = never
    error: str = ""  # empty = programmed as wanted

    def __str__(self) -> str:
        return f"error: {self.error}" if self.error else f"programmed at revision {self.revision}"
