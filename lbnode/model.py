"""The vocabulary of lbnode as frozen values. Pure: no I/O, no clock, imports only healthcheck.spec.

A virtual service's id *is* its match condition (`tcp:192.0.2.10:80`, `fwmark:7`), so two services with the same
match cannot exist. Durations are float seconds and end in `_s`; addresses are `ipaddress` objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from types import MappingProxyType

from healthcheck.spec import CheckSpec

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# Which clients a persistent service takes for one: a prefix length, or for IPv4 a mask with holes (255.0.255.0).
Netmask = int | IPv4Address


class L4Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class ForwardingMethod(StrEnum):
    """How packets reach a real server, with ipvsadm's letter in brackets."""

    MASQUERADE = "masquerade"  # [-m] destination NAT, both directions pass the gateway
    DIRECT = "direct"  # [-g] direct routing: only the MAC address changes, replies bypass the gateway
    TUNNEL = "tunnel"  # [-i] encapsulated to the server
    FULLNAT = "fullnat"  # both ends translated: the server answers a local address of the gateway. IPVS has none


SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos")
SCHEDULER_FLAGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
)
GENERIC_FLAGS = ("flag-1", "flag-2", "flag-3")  # ipvsadm(8) -b: bits that a scheduler may read; most read none
PERSISTENCE_ENGINES = ("sip",)  # ipvsadm(8) --pe; sip: one server per SIP Call-ID
MAX_WEIGHT = 2**31 - 1  # a C int in ip_vs_dest; ipvsadm(8) says 65535, the program takes more


def flags_of(scheduler: str) -> tuple[str, ...]:
    """The flags that a scheduler may be given: sh and mh have names for the first two."""
    named = SCHEDULER_FLAGS.get(scheduler, ())
    return (*named, *GENERIC_FLAGS[len(named) :])


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


class TunnelType(StrEnum):
    IPIP = "ipip"
    GUE = "gue"  # in UDP, to Tunnel.port
    GRE = "gre"


class TunnelChecksum(StrEnum):
    """Checksum in the outer header, in ipvsadm's words."""

    NONE = "nocsum"
    FULL = "csum"
    REMOTE = "remcsum"  # remote checksum offload; GUE only


@dataclass(frozen=True, slots=True)
class Tunnel:
    """How ForwardingMethod.TUNNEL encapsulates (ipvsadm --tun-type, --tun-port, --tun-*csum)."""

    type: TunnelType = TunnelType.IPIP
    port: int = 0  # of GUE, 1..65535
    checksum: TunnelChecksum = TunnelChecksum.NONE


IPIP = Tunnel()


class WhenDown(StrEnum):
    """What a failed health check does to a real server."""

    WEIGHT_ZERO = "weight-zero"  # no new connections, established ones stay
    REMOVE = "remove"  # out of the data plane


class WhenAllDown(StrEnum):
    """What happens to a service whose servers are all down."""

    REFUSE = "refuse"  # nobody gets new connections
    KEEP_LAST = "keep-last"  # the servers that went down last keep their configured weight


@dataclass(frozen=True, slots=True)
class RealServer:
    """A configured real server. `weight` is the configured weight; drain means effective weight 0."""

    id: ServerId
    weight: int = 1
    forward: ForwardingMethod = ForwardingMethod.MASQUERADE
    drain: bool = False
    upper_threshold: int = 0  # connections; 0 = none
    lower_threshold: int = 0
    tunnel: Tunnel = IPIP
    toa: bool = False  # as in ProgrammedServer


@dataclass(frozen=True, slots=True)
class ConnectionRate:
    """New connections that each source of a service may open: a token bucket (RFC 2697 section 3, one colour)."""

    rate: int  # per second, in the long run
    burst: int  # at once
    prefix_len: int  # clients whose addresses have so many bits in common are one source


@dataclass(frozen=True, slots=True)
class Access:
    """Who may open connections to a service, and how many. Those that are open already are not touched.

    Of the networks in `allow` and `deny` the longest that holds the client decides; if none does, it may connect unless
    there is an `allow`. All are of the service's family.
    """

    allow: frozenset[Network] = frozenset()
    deny: frozenset[Network] = frozenset()
    rate: ConnectionRate | None = None  # None: no limit


@dataclass(frozen=True, slots=True)
class OwnTimeouts:
    """What one service has in place of the cluster's idle time-outs (Timeouts), in seconds; None = nothing."""

    tcp_s: int | None = None
    tcp_fin_s: int | None = None
    udp_s: int | None = None


@dataclass(frozen=True, slots=True)
class VirtualService:
    id: ServiceId
    scheduler: str = "wlc"
    scheduler_flags: frozenset[str] = frozenset()
    persistent_s: int = 0  # 0 = not persistent
    persistent_netmask: Netmask | None = None  # None = host
    one_packet: bool = False
    vip_group: str | None = None
    check: CheckSpec | None = None  # None = servers are always up
    when_down: WhenDown = WhenDown.WEIGHT_ZERO
    when_all_down: WhenAllDown = WhenAllDown.REFUSE
    servers: tuple[RealServer, ...] = ()  # sorted by ServerId.sort_key
    revision: int = 0  # newest store revision of the service's key or of its servers' keys
    persistence_engine: str = ""
    syn_proxy: int | None = None  # half-open connections from which on SYNs are answered with cookies; None = never
    access: Access = Access()
    timeouts: OwnTimeouts = OwnTimeouts()


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
    policy: str = "availability"  # when it cannot be known whether another node serves: availability | consistency
    track: tuple[Track, ...] = ()
    local_addresses: tuple[Address, ...] = ()  # those of `addresses` that full NAT of its services uses as sources
    revision: int = 0


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


@dataclass(frozen=True, slots=True)
class Config:
    """The fully resolved configuration of the cluster at one store revision."""

    revision: int = 0
    services: Mapping[ServiceId, VirtualService] = field(default_factory=dict)
    vip_groups: Mapping[str, VipGroup] = field(default_factory=dict)
    settings: Settings = Settings()


class Severity(StrEnum):
    ERROR = "error"  # the object was not taken over; its last good state stays
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in what people wrote: where (store key, or file:line:col), which field, why, what to do."""

    where: str
    field: str
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        text = f"{self.where}: {self.field}: {self.message}" if self.field else f"{self.where}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


# --- what the data plane holds -------------------------------------------------------------------------------


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


# --- election ------------------------------------------------------------------------------------------------


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


# --- counters and connections --------------------------------------------------------------------------------


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
