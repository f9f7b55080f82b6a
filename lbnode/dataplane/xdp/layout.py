"""Mirror of bpf/lb.h: what lies in the maps, as frozen values with `pack()` and `unpack()`. Pure.

Byte layouts are those of the C structures in host order ("=": no padding but what stands there). What each field means
is documented in lb.h. Connection records are in records.py, time-outs in settings.py, counters in counts.py.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Self

from lbnode.model import (
    IPIP,
    Address,
    ForwardingMethod,
    L4Protocol,
    Network,
    ServiceId,
    Tunnel,
    TunnelChecksum,
    TunnelType,
)

LAYOUT_VERSION = 13
BUCKET_WAYS = 4
SLOT_EMPTY = 0xFFFFFFFF
MAX_SERVERS_PER_SERVICE = 65535
SH_SLOTS = 256  # of sh and dh
GROUP_MEMBERS = 16
ALL_BITS = (1 << 128) - 1
LEASES_MAX = 1024
LEASE_OF_TARGET = 0xFFFF
UNPINNED = frozenset({"capture", "captured", "capture_state"})  # maps that an instance of the program has for itself
POOL_ADDRESSES = 16

SERVICE_KEY_SIZE = 24
SERVICE_SIZE = 104
SERVER_SIZE = 104
POOL_SIZE = 272
GROUP_SIZE = 80
VIP_SIZE = 16
CONFIG_SIZE = 160
TIMEOUTS_SIZE = 64
STATS_SIZE = 40
GAUGE_SIZE = 16
HALF_OPEN_SIZE = 8
META_SIZE = 8
CLOCK_SIZE = 8
SWEEP_ARGS_SIZE = 8
BUCKET_SIZE = 512
REPLY_BUCKET_SIZE = 64
ENTRY_BYTES = (BUCKET_SIZE + REPLY_BUCKET_SIZE) // BUCKET_WAYS  # of the connection table


class State(IntEnum):
    """`enum conn_state`; the names are IPVS's."""

    NONE = 0
    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT = 4
    TIME_WAIT = 5
    CLOSE = 6
    CLOSE_WAIT = 7
    LAST_ACK = 8
    LISTEN = 9
    SYNACK = 10
    UDP = 11
    TEMPLATE = 12


class Scheduler(IntEnum):
    """`enum scheduler`: those that the data plane knows."""

    RR = 1
    WRR = 2
    WLC = 3
    SH = 4
    MH = 5
    LC = 6
    SED = 7
    NQ = 8
    FO = 9
    OVF = 10
    DH = 11
    LBLC = 12
    LBLCR = 13
    TWOS = 14


SCHEDULERS: Mapping[str, Scheduler] = {member.name.lower(): member for member in Scheduler}


class ServiceFlag(IntFlag):
    FLAG_1 = 1
    FLAG_2 = 2
    FLAG_3 = 4
    ONE_PACKET = 8
    MARKED = 16
    ALL_PORTS = 32
    SYN_PROXY = 64
    LISTS = 128
    RATE = 256


class ServerFlag(IntFlag):
    HOP = 1
    GONE = 2
    KEEP_PORT = 4
    TUNNEL_CHECKSUM = 8
    TUNNEL_REMOTE = 16
    LOCAL = 32
    TOA = 64
    CLAMP = 128


class ConfigFlag(IntFlag):
    SYNC = 1
    DROP_IP_OPTIONS = 2
    DROP_BAD_CHECKSUMS = 4
    SUCCESSOR = 8


class Event(IntEnum):
    """`enum event`."""

    ENTRIES = 0
    EVICTED = 1
    UNTRACKED = 2
    NO_CONNECTION = 3
    FRAGMENT = 4
    NO_NEIGHBOUR = 5
    STACK = 6
    ECHO = 7
    ICMP_TRANSLATED = 8
    ICMP_SENT = 9
    SYNC_LOST = 10
    IMPORTED = 11
    TOA_LEFT_OUT = 12
    COOKIE_SENT = 13
    COOKIE_ACCEPTED = 14
    COOKIE_REFUSED = 15
    DROP_NO_SERVER = 16
    DROP_TABLE_FULL = 17
    DROP_SERVER_GONE = 18
    DROP_IP_HEADER = 19
    DROP_TOO_BIG = 20
    DROP_NO_ROUTE = 21
    DROP_TTL = 22
    DROP_ERROR = 23
    DROP_NO_LEASE = 24
    DROP_SOLICITATION = 25
    DROP_CLAIM = 26
    DROP_BUNDLE = 27
    DROP_NO_LOCAL_PORT = 28
    DROP_NOT_OPEN = 29
    DROP_IP_CHECKSUM = 30
    DROP_L4_HEADER = 31
    DROP_L4_CHECKSUM = 32
    DROP_TCP_FLAGS = 33
    DROP_LAND = 34
    DROP_IP_OPTIONS = 35
    DROP_DENIED = 36
    DROP_RATE = 37

    @property
    def label(self) -> str:
        """For people and /metrics: `no-server` of DROP_NO_SERVER."""
        return self.name.removeprefix("DROP_").lower().replace("_", "-")


FIRST_DROP = 16


# enum forwarding
FORWARDING = (
    ForwardingMethod.MASQUERADE,
    ForwardingMethod.DIRECT,
    ForwardingMethod.TUNNEL,
    ForwardingMethod.FULLNAT,
)
FORWARD_NUMBER: Mapping[ForwardingMethod, int] = {method: number for number, method in enumerate(FORWARDING)}
# enum tunnel
TUNNELS = (TunnelType.IPIP, TunnelType.GUE, TunnelType.GRE)
_TUNNEL_FLAGS = {
    TunnelChecksum.NONE: ServerFlag(0),
    TunnelChecksum.FULL: ServerFlag.TUNNEL_CHECKSUM,
    TunnelChecksum.REMOTE: ServerFlag.TUNNEL_REMOTE,
}
# <netinet/in.h>
PROTOCOL_NUMBER: Mapping[L4Protocol, int] = {L4Protocol.TCP: 6, L4Protocol.UDP: 17, L4Protocol.SCTP: 132}
PROTOCOL_OF: Mapping[int, L4Protocol] = {number: protocol for protocol, number in PROTOCOL_NUMBER.items()}

_HEADER = {4: 20, 6: 40}


def tunnel_overhead(outer_family: int, tunnel: Tunnel) -> int:
    """Bytes in front of a packet: the outer IP header; GUE: UDP and 4 bytes; GRE: 4 bytes, with a checksum 8."""
    gre = 8 if tunnel.checksum is TunnelChecksum.FULL else 4
    return _HEADER[outer_family] + {TunnelType.IPIP: 0, TunnelType.GUE: 12, TunnelType.GRE: gre}[tunnel.type]


MAPPED = bytes(10) + b"\xff\xff"
NO_ADDRESS = bytes(16)


def pack_address(address: Address) -> bytes:
    """16 bytes; IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2)."""
    return MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def unpack_address(data: bytes) -> Address:
    return IPv4Address(data[12:16]) if data[:12] == MAPPED else IPv6Address(data)


# --- configuration ---------------------------------------------------------------------------------------------

_SERVICE_KEY = struct.Struct("=16s2sBBI")


def pack_service_key(service_id: ServiceId) -> bytes:
    """Key of map `services` (and what `unpack_service_key` reverses)."""
    address = NO_ADDRESS if service_id.address is None else pack_address(service_id.address)
    protocol = 0 if service_id.protocol is None else PROTOCOL_NUMBER[service_id.protocol]
    port = service_id.port.to_bytes(2, "big")
    return _SERVICE_KEY.pack(address, port, protocol, service_id.family, service_id.fwmark)


def unpack_service_key(data: bytes) -> ServiceId:
    address, port, protocol, family, mark = _SERVICE_KEY.unpack(data)
    if mark:
        return ServiceId(None, None, 0, fwmark=mark, inet6=family == 6)
    number = int.from_bytes(port, "big")
    return ServiceId(PROTOCOL_OF[protocol], unpack_address(address), number, inet6=family == 6)


@dataclass(frozen=True, slots=True)
class Service:
    """Value of map `services`. `list_at`, `table_at`: first slot of the ranges in map `slots`; `group`: in `groups`."""

    index: int
    scheduler: Scheduler
    epoch: int
    list_at: int
    list_len: int
    flags: int = 0  # ServiceFlag
    table_at: int = 0
    table_len: int = 0
    start: int = 0
    max_weight: int = 0
    weight_gcd: int = 0
    persistent_s: int = 0
    group: int = 0
    syn_proxy: int = 0
    persistent_mask: int = ALL_BITS
    rate_mask: int = 0
    rate: int = 0
    burst: int = 0
    mss: int = 0

    _FORMAT = struct.Struct("=14I16s16sIII4x")

    def pack(self) -> bytes:
        return self._FORMAT.pack(
            self.index,
            self.scheduler,
            self.flags,
            self.epoch,
            self.list_at,
            self.list_len,
            self.table_at,
            self.table_len,
            self.start,
            self.max_weight,
            self.weight_gcd,
            self.persistent_s,
            self.group,
            self.syn_proxy,
            self.persistent_mask.to_bytes(16, "big"),
            self.rate_mask.to_bytes(16, "big"),
            self.rate,
            self.burst,
            self.mss,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        index, scheduler, flags, epoch, list_at, list_len, *rest, mask, rate_mask, rate, burst, mss = (
            cls._FORMAT.unpack(data)
        )
        values = (*rest, int.from_bytes(mask, "big"), int.from_bytes(rate_mask, "big"), rate, burst, mss)
        return cls(index, Scheduler(scheduler), epoch, list_at, list_len, flags, *values)


class AccessKind(IntEnum):
    """`enum access`."""

    ALLOW = 1
    DENY = 2
    OTHERS = 3


@dataclass(frozen=True, slots=True)
class PrefixKey:
    """Key of map `prefixes`. `network` None: all of the service."""

    service: int  # index
    network: Network | None

    _FORMAT = struct.Struct("=II16s")

    def pack(self) -> bytes:
        if self.network is None:
            return self._FORMAT.pack(32, self.service, NO_ADDRESS)
        mapped = 96 if self.network.version == 4 else 0
        return self._FORMAT.pack(
            32 + mapped + self.network.prefixlen, self.service, pack_address(self.network.network_address)
        )

    @classmethod
    def unpack(cls, data: bytes, family: int) -> Self:
        """`family`: of the service. An entry of all 0 bits is a network's in IPv6, and the whole service in IPv4."""
        length, service, address = cls._FORMAT.unpack(data)
        if family == 4:
            network = ip_network((address[12:], length - 128)) if length >= 128 else None
            return cls(service, network)
        return cls(service, ip_network((address, length - 32)))


def unpack_prefix_service(key: bytes) -> int:
    """Index of the service (key of map `prefixes`)."""
    return int(struct.unpack("=4xI16x", key)[0])


@dataclass(frozen=True, slots=True)
class Group:
    """Value of map `groups`, with nothing remembered about its members' load."""

    next: int  # index; 0 = the last
    members: tuple[int, ...]  # GROUP_MEMBERS indexes of servers, or SLOT_EMPTY

    _FORMAT = struct.Struct(f"=IIQ{GROUP_MEMBERS}I")

    def pack(self) -> bytes:
        return self._FORMAT.pack(0, self.next, 0, *self.members)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        _, following, _, *members = cls._FORMAT.unpack(data)
        return cls(following, tuple(members))


@dataclass(frozen=True, slots=True)
class Hop:
    """Next hop of a server. `mtu` 0: unknown, packets are not checked."""

    ifindex: int
    source_mac: bytes
    target_mac: bytes
    mtu: int


@dataclass(frozen=True, slots=True)
class Server:
    """Value of map `servers`. `generation` 0 means that the index is unused."""

    address: Address
    port: int
    forward: ForwardingMethod
    generation: int
    service: int
    weight: int
    upper_threshold: int = 0
    lower_threshold: int = 0
    hop: Hop | None = None
    tunnel_source: Address | None = None  # None: the client's address is the outer source
    tunnel: Tunnel = IPIP
    lease: int = 0  # of its service's address; 0 = none needed, LEASE_OF_TARGET = the packet's target tells
    flags: int = 0  # ServerFlag, HOP and the tunnel's aside
    rank: int = 0
    last_weight: int = 0
    group: int = 0
    mark: int = 0
    pool: int = 0  # index in map `pools`; 0 = none
    mss: int = 0  # its service's

    _FORMAT = struct.Struct("=16s2sBBIIIII6sH6s2sIBBH16s6I")

    def pack(self) -> bytes:
        hop = self.hop or Hop(0, bytes(6), bytes(6), 0)
        flags = _TUNNEL_FLAGS[self.tunnel.checksum] | (ServerFlag.HOP if self.hop else ServerFlag(0))
        tunnelled = self.forward is ForwardingMethod.TUNNEL
        return self._FORMAT.pack(
            pack_address(self.address),
            self.port.to_bytes(2, "big"),
            FORWARD_NUMBER[self.forward],
            self.flags | flags,
            self.generation,
            self.service,
            self.weight,
            self.upper_threshold,
            self.lower_threshold,
            hop.target_mac,
            min(hop.mtu, 0xFFFF),
            hop.source_mac,
            self.tunnel.port.to_bytes(2, "big"),
            hop.ifindex,
            TUNNELS.index(self.tunnel.type),
            tunnel_overhead(self.address.version, self.tunnel) if tunnelled else 0,
            self.lease,
            NO_ADDRESS if self.tunnel_source is None else pack_address(self.tunnel_source),
            self.rank,
            self.last_weight,
            self.group,
            self.mark,
            self.pool,
            self.mss,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self | None:
        """None if the index is unused."""
        (address, port, forward, flags, generation, service, weight, upper, lower) = cls._FORMAT.unpack(data)[:9]
        target, mtu, source, tunnel_port, ifindex, kind, _, lease, tunnel_source, *rest = cls._FORMAT.unpack(data)[9:]
        if generation == 0:
            return None
        checksums = ServerFlag.TUNNEL_CHECKSUM | ServerFlag.TUNNEL_REMOTE
        checksum = next(one for one, flag in _TUNNEL_FLAGS.items() if flag == flags & checksums)
        return cls(
            unpack_address(address),
            int.from_bytes(port, "big"),
            FORWARDING[forward],
            generation,
            service,
            weight,
            upper,
            lower,
            Hop(ifindex, source, target, mtu) if flags & ServerFlag.HOP else None,
            None if tunnel_source == NO_ADDRESS else unpack_address(tunnel_source),
            Tunnel(TUNNELS[kind], int.from_bytes(tunnel_port, "big"), checksum),
            lease,
            flags & ~(checksums | ServerFlag.HOP),
            *rest,
        )


UNUSED_SERVER = bytes(SERVER_SIZE)


def pack_pool(addresses: Sequence[Address]) -> bytes:
    """Value of map `pools`: at most POOL_ADDRESSES addresses of one family."""
    return struct.pack("=I12x", len(addresses)) + b"".join(map(pack_address, addresses)).ljust(POOL_SIZE - 16, b"\0")


def unpack_pool(data: bytes) -> tuple[Address, ...]:
    (count,) = struct.unpack_from("=I", data)
    return tuple(unpack_address(data[at : at + 16]) for at in range(16, 16 + 16 * count, 16))


def unpack_affinity_key(data: bytes) -> int:
    """Index of the service (key of map `affinity`)."""
    return int(struct.unpack("=16xI4x", data)[0])


def unpack_source_key(data: bytes) -> int:
    """Index of the service (key of map `sources`)."""
    return int(struct.unpack("=16xI4x", data)[0])


def pack_vip(services: int) -> bytes:
    """Value of map `vips`; its key is `pack_address(address)`."""
    return struct.pack("=I12x", services)


def unpack_vip(data: bytes) -> int:
    """How many services have the address."""
    return int(struct.unpack("=I12x", data)[0])


def pack_meta(generation: int = 0) -> bytes:
    """`generation`: the last one that was given to a server."""
    return struct.pack("=II", LAYOUT_VERSION, generation)


def unpack_meta(data: bytes) -> int:
    """The layout version; 0 = the maps are new."""
    return int(struct.unpack("=II", data)[0])
