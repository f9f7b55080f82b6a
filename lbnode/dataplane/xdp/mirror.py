"""Services and servers as the maps hold them: the mirror in memory, and between its entries and the model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from lbnode.dataplane.xdp import layout, slots
from lbnode.model import (
    Access,
    Address,
    ConnectionRate,
    Netmask,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
)


@dataclass(slots=True)
class Server:
    index: int
    generation: int
    rank: int  # order of adding
    programmed: ProgrammedServer
    last_weight: int  # that was not 0
    group: int = 0  # index in map `groups`; 0 = in none
    pool: int = 0  # index in map `pools`; 0 = none


@dataclass(slots=True)
class Service:
    entry: layout.Service
    programmed: ProgrammedService  # without its servers: they are below
    servers: dict[ServerId, Server] = field(default_factory=dict)  # oldest first; the list in the map: newest first
    listed: Sequence[int] = ()  # the list in the map: indexes of servers
    table_key: Sequence[object] | None = None  # slots.table_key of the table in the map; None: not known

    def keep_port(self, server: ProgrammedServer) -> bool:
        """ip_vs_sched_persist: what serves several ports leaves a client's as it is; so does a server with port 0."""
        several = self.programmed.id.port == 0 and self.programmed.persistent_s > 0
        return several or server.id.port == 0


def members(servers: Iterable[Server]) -> list[slots.Member]:
    return [slots.Member(one.index, one.programmed.id, one.programmed.weight, one.last_weight) for one in servers]


def has_lists(service: ProgrammedService) -> bool:
    return bool(service.access.allow or service.access.deny)


def configured(entry: layout.Service, wanted: ProgrammedService) -> layout.Service:
    """The entry with what the configuration says, list and tables aside."""
    flags = slots.flags(wanted.scheduler, wanted.scheduler_flags)
    if wanted.one_packet:
        flags |= layout.ServiceFlag.ONE_PACKET
    if wanted.id.port == 0:
        flags |= layout.ServiceFlag.MARKED if wanted.id.fwmark else layout.ServiceFlag.ALL_PORTS
    if wanted.syn_proxy is not None:
        flags |= layout.ServiceFlag.SYN_PROXY
    rate = wanted.access.rate
    if has_lists(wanted):
        flags |= layout.ServiceFlag.LISTS
    if rate is not None:
        flags |= layout.ServiceFlag.RATE
    return replace(
        entry,
        scheduler=layout.SCHEDULERS[wanted.scheduler],
        flags=flags,
        syn_proxy=wanted.syn_proxy or 0,
        mss=wanted.mss or 0,
        persistent_s=int(wanted.persistent_s),
        persistent_mask=_mask_of(wanted.persistent_netmask, wanted.id.family),
        rate_mask=0 if rate is None else _mask_of(rate.prefix_len, wanted.id.family),
        rate=0 if rate is None else rate.rate,
        burst=0 if rate is None else rate.burst,
    )


def service_of(service_id: ServiceId, entry: layout.Service) -> ProgrammedService:
    """What `configured` reverses; the lists are in map `prefixes`."""
    rate = None
    if entry.flags & layout.ServiceFlag.RATE:
        prefix_len = (32 if service_id.family == 4 else 128) - (~entry.rate_mask & layout.ALL_BITS).bit_length()
        rate = ConnectionRate(entry.rate, entry.burst, prefix_len)
    return ProgrammedService(
        service_id,
        entry.scheduler.name.lower(),
        slots.flag_names(entry.scheduler, entry.flags),
        entry.persistent_s,
        _netmask_of(entry.persistent_mask, service_id.family),
        bool(entry.flags & layout.ServiceFlag.ONE_PACKET),
        access=Access(rate=rate),
        syn_proxy=entry.syn_proxy if entry.flags & layout.ServiceFlag.SYN_PROXY else None,
        mss=entry.mss or None,
    )


def _mask_of(netmask: Netmask | None, family: int) -> int:
    """128 bits; IPv4 addresses are mapped into IPv6."""
    if netmask is None:
        return layout.ALL_BITS
    if isinstance(netmask, int):
        bits = 32 if family == 4 else 128
        return layout.ALL_BITS & ~((1 << bits - netmask) - 1)
    return layout.ALL_BITS & ~0xFFFFFFFF | int(netmask)


def _netmask_of(mask: int, family: int) -> Netmask | None:
    """What `_mask_of` reverses."""
    holes = ~mask & layout.ALL_BITS
    if not holes:
        return None
    if holes & holes + 1 == 0:
        return (32 if family == 4 else 128) - holes.bit_length()
    return IPv4Address(mask & 0xFFFFFFFF)


def server_of(index: int, entry: layout.Server, local_addresses: tuple[Address, ...]) -> Server:
    """`local_addresses`: what its pool holds."""
    programmed = ProgrammedServer(
        ServerId(entry.address, entry.port),
        entry.weight,
        entry.forward,
        entry.upper_threshold,
        entry.lower_threshold,
        entry.tunnel,
        local_addresses,
        bool(entry.flags & layout.ServerFlag.TOA),
    )
    return Server(index, entry.generation, entry.rank, programmed, entry.last_weight, entry.group, entry.pool)
