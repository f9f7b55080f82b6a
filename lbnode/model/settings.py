"""Settings of the whole cluster, and of the kernel that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from lbnode.model.identity import Address


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Idle time-outs of connections in seconds; the defaults are IPVS's (`ipvsadm --set tcp tcpfin udp`)."""

    tcp_s: int = 900
    tcp_fin_s: int = 120
    udp_s: int = 300


DEFAULT_SYNC_GROUP = IPv4Address("224.0.0.81")


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """The kernel's own connection synchronisation (ipvsadm --start-daemon). Only IPVS has it."""

    interface: str
    syncid: int = 0
    maxlen: int = 0  # bytes of a message; 0 = what fits into the interface's MTU
    group: Address = DEFAULT_SYNC_GROUP
    port: int = 8848
    ttl: int = 1


@dataclass(frozen=True, slots=True)
class DropRules:
    """Packets to VIPs that are legal, or dropped by the server anyway, and shall not pass the gateway."""

    ip_options: bool = False  # IPv4 options; IPv6 hop-by-hop, routing and destination options headers
    bad_checksums: bool = False  # TCP's and UDP's are summed up, which costs a look at every byte


@dataclass(frozen=True, slots=True)
class Settings:
    timeouts: Timeouts = Timeouts()
    sysctl: Mapping[str, str] = field(default_factory=dict)  # changes to the kernel profile, see lbnode.tuning
    dataplane: str = "auto"  # auto | xdp | ipvs: of nodes whose node.toml leaves it open
    maintenance: tuple[str, ...] = ()  # nodes that shall hold no VIP group that another one can hold
    foreign_services: str = "keep"  # what to do with data-plane services that no configuration names: keep | remove
    sync_daemons: Mapping[str, SyncDaemon] = field(default_factory=dict)  # "master", "backup"
    sync_by_role: bool = False  # each runs only while this node has its role; see plan.sync_daemons()
    # By node: sources of full NAT for services whose VIP group has none
    local_addresses: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    drop: DropRules = DropRules()
