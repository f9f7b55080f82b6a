"""Maps of the real servers: their values with next hop and tunnel, and pools of local addresses."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from lbnode.dataplane.xdp.layout.addresses import NO_ADDRESS, pack_address, unpack_address
from lbnode.dataplane.xdp.layout.enums import ServerFlag
from lbnode.dataplane.xdp.layout.sizes import POOL_SIZE, SERVER_SIZE
from lbnode.model import IPIP, Address, ForwardingMethod, Tunnel, TunnelChecksum, TunnelType

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
_HEADER = {4: 20, 6: 40}


def tunnel_overhead(outer_family: int, tunnel: Tunnel) -> int:
    """Bytes in front of a packet: the outer IP header; GUE: UDP and 4 bytes; GRE: 4 bytes, with a checksum 8."""
    gre = 8 if tunnel.checksum is TunnelChecksum.FULL else 4
    return _HEADER[outer_family] + {TunnelType.IPIP: 0, TunnelType.GUE: 12, TunnelType.GRE: gre}[tunnel.type]


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
