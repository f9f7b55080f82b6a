"""VIP groups as they are configured, and this node's role in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lbnode.model.identity import Address


@dataclass(frozen=True, slots=True)
class VipAddress:
    """A floating address. `interface` None means: the interface whose on-link prefix holds the address."""

    address: Address
    prefix_len: int
    interface: str | None = None

    def __str__(self) -> str:
        dev = f" dev {self.interface}" if self.interface else ""
        return f"{self.address}/{self.prefix_len}{dev}"


@dataclass(frozen=True, slots=True)
class Track:
    """Something a node needs to serve a VIP group well. While it fails, the node's priority is `weight` lower; None:
    the node takes no part then. A gateway without weight only counts when it is to be known who is cut off."""

    kind: str  # gateway | interface | dataplane | sync | service | script | file
    what: str = ""  # address, interface, service id, command, path; "" where the kind says all
    weight: int | None = None
    share: float = 0.5  # of a service: the part of its servers that must be up
    interval_s: float = 1.0  # of a script; it fails by its exit status, or when it takes longer than this

    def __str__(self) -> str:
        return f"{self.kind} {self.what}".rstrip()


@dataclass(frozen=True, slots=True)
class VipGroup:
    """Addresses that move together: one VRRP instance of each family. `priorities` names the nodes that take part
    (1..254)."""

    name: str
    vrid: int
    addresses: tuple[VipAddress, ...]
    priorities: Mapping[str, int]
    interface: str | None = None  # None: where the first address is on-link
    advert_interval_s: float = 0.1  # VRRPv3 carries centiseconds: multiples of 0.01
    preempt: bool = False
    preempt_delay_s: float = 0.0  # how long the node that may preempt must have been Backup
    startup_delay_s: float = 0.0  # no takeover earlier after the start: bonds and switch ports may not forward yet
    version: int = 3  # of VRRP, as sent; 2 only while routers of version 2 take part
    checksum: str = "auto"  # of version 3 over IPv4: auto (as the peer) | rfc9568 | pseudo-header (keepalived, FRR)
    unicast_peers: tuple[Address, ...] = ()  # VRRP addresses of the members; (): multicast
    authentication: str = "auto"  # auto (enforce between nodes with a common key) | off | receive-only | ...
    virtual_mac: bool = False  # the addresses have the virtual router's MAC address (RFC 9568 section 7.3)
    policy: str = "availability"  # when it cannot be known whether another node serves: availability | consistency
    track: tuple[Track, ...] = ()
    local_addresses: tuple[Address, ...] = ()  # those of `addresses` that full NAT of its services uses as sources
    revision: int = 0


class VrrpState(StrEnum):
    """RFC 9568 section 6.3 (Active/Backup are its words for Master/Backup)."""

    INITIALIZE = "initialize"
    BACKUP = "backup"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Role:
    """This node's role in one VIP group. `since` is Unix time for display, never for decisions."""

    group: str
    state: VrrpState
    priority: int
    since: float
    reason: str
    active_address: Address | None = None  # VRRP source address of the current Active, if it is another node
    problem: str = ""  # why the election cannot work here: interface missing, checksum mismatch, ...
    epoch: int = 0  # of the Active's ownership, once the store has written it; 0 = not Active, or not known
    active_node: str = ""  # who has that address, if heartbeats tell it
    backups: tuple[str, ...] = ()  # for an Active: who says by heartbeats that it is Backup, the best first
