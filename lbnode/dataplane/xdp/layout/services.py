"""Maps of the services: their keys and values, lists of prefixes, groups of servers by load, VIPs."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Self

from lbnode.dataplane.xdp.layout.addresses import NO_ADDRESS, PROTOCOL_NUMBER, PROTOCOL_OF, pack_address, unpack_address
from lbnode.dataplane.xdp.layout.enums import Scheduler
from lbnode.dataplane.xdp.layout.sizes import ALL_BITS, GROUP_MEMBERS
from lbnode.model import Network, ServiceId

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
