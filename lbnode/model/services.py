"""Virtual services and real servers as they are configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from healthcheck.spec import CheckSpec
from lbnode.model.identity import Netmask, Network, ServerId, ServiceId


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
    mss: int | None = None  # octets, the largest that either side may announce through the gateway; None = any
    access: Access = Access()
    timeouts: OwnTimeouts = OwnTimeouts()
