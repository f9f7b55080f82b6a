"""ip_vs's generic netlink messages: dataclasses to attributes and back. Pure.

Layouts and numbers: linux/ip_vs.h. Numbers are in host order, but ports and an IPv4 netmask in network order; an
address takes 16 bytes in either family. Malformed answers raise DataPlaneError.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address

from lbnode.dataplane.ipvs.genl import attribute, attributes
from lbnode.errors import DataPlaneError
from lbnode.model import Address, L4Protocol, ServerId, ServiceId, Timeouts

FAMILY_NAME, VERSION = "IPVS", 1
AF_INET, AF_INET6 = 2, 10


class Command(IntEnum):
    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    NEW_DAEMON = 9
    DEL_DAEMON = 10
    GET_DAEMON = 11
    SET_CONFIG = 12
    GET_CONFIG = 13
    GET_INFO = 15
    ZERO = 16
    FLUSH = 17


class Flags(IntFlag):
    """Of a service. SCHED_1..3 mean what the scheduler says: sh and mh have fallback (1) and port (2)."""

    PERSISTENT = 1
    HASHED = 2  # the kernel's own
    ONE_PACKET = 4
    SCHED_1 = 8
    SCHED_2 = 16
    SCHED_3 = 32


class Method(IntEnum):
    """How packets reach a destination; LOCAL and BYPASS are the kernel's own and never set from outside."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    DIRECT = 3
    BYPASS = 4


class TunnelType(IntEnum):
    IPIP = 0
    GUE = 1
    GRE = 2


class TunnelFlags(IntFlag):
    NO_CHECKSUM = 0
    CHECKSUM = 1
    REMOTE_CHECKSUM = 2


class DaemonState(IntEnum):
    MASTER = 1
    BACKUP = 2


@dataclass(frozen=True, slots=True)
class Stats:
    """Totals since creation or last zero, and rates per second. The kernel refreshes them every two seconds."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections_rate: int = 0
    packets_in_rate: int = 0
    packets_out_rate: int = 0
    bytes_in_rate: int = 0
    bytes_out_rate: int = 0


@dataclass(frozen=True, slots=True)
class Service:
    """netmask: IPv4, the mask as a number (0xffffffff = host); IPv6, the prefix length (128 = host)."""

    id: ServiceId
    scheduler: str
    flags: Flags
    timeout_s: int
    netmask: int
    pe_name: str = ""
    stats: Stats = Stats()


@dataclass(frozen=True, slots=True)
class Destination:
    id: ServerId
    method: Method
    weight: int
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel_type: TunnelType = TunnelType.IPIP
    tunnel_port: int = 0
    tunnel_flags: TunnelFlags = TunnelFlags.NO_CHECKSUM
    active: int = 0
    inactive: int = 0
    persistent: int = 0  # connection templates
    stats: Stats = Stats()


@dataclass(frozen=True, slots=True)
class Daemon:
    """The kernel's connection synchronisation. Zero and None leave a value to the kernel (ipvsadm(8))."""

    state: DaemonState
    interface: str
    sync_id: int = 0
    max_len: int = 0
    group: Address | None = None
    port: int = 0
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class Info:
    version: tuple[int, int, int]
    connection_table_size: int  # hash buckets, not a limit


_PROTOCOL_NUMBERS = {L4Protocol.TCP: 6, L4Protocol.UDP: 17, L4Protocol.SCTP: 132}
_PROTOCOLS = {number: protocol for protocol, number in _PROTOCOL_NUMBERS.items()}

_SERVICE, _DEST, _DAEMON, _TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP = range(1, 7)
_SVC_AF, _SVC_PROTOCOL, _SVC_ADDR, _SVC_PORT, _SVC_FWMARK, _SVC_SCHED, _SVC_FLAGS, _SVC_TIMEOUT = range(1, 9)
_SVC_NETMASK, _SVC_STATS, _SVC_PE, _SVC_STATS64 = range(9, 13)
_DEST_ADDR, _DEST_PORT, _DEST_METHOD, _DEST_WEIGHT, _DEST_UPPER, _DEST_LOWER = range(1, 7)
_DEST_ACTIVE, _DEST_INACTIVE, _DEST_PERSISTENT, _DEST_STATS, _DEST_FAMILY, _DEST_STATS64 = range(7, 13)
_DEST_TUN_TYPE, _DEST_TUN_PORT, _DEST_TUN_FLAGS = range(13, 16)
_DAEMON_STATE, _DAEMON_IFN, _DAEMON_SYNC_ID, _DAEMON_MAXLEN, _DAEMON_GROUP, _DAEMON_GROUP6 = range(1, 7)
_DAEMON_PORT, _DAEMON_TTL = range(7, 9)
_INFO_VERSION, _INFO_CONN_TAB_SIZE = range(1, 3)
_STATS_FIELDS = 10  # attributes 1 to 10 in the order of Stats
_STATS_KINDS = tuple(range(1, _STATS_FIELDS + 1))
_STATS64 = struct.Struct("=" + "HHQ" * _STATS_FIELDS)

_U8, _U16, _BE16, _U32, _BE32, _U64 = (struct.Struct(f) for f in ("=B", "=H", "!H", "=I", "!I", "=Q"))
# An attribute with its header, padded: one call instead of three on the way of 10,000 operations.
_A8, _A16, _A32 = struct.Struct("=HHB3x"), struct.Struct("=HHH2x"), struct.Struct("=HHI")
_KEY = struct.Struct("=HH HHH2x HHH2x HH16s HH2s2x")  # nest, family, protocol, address, port
_DEST_KEY = struct.Struct("=HHH2x HH16s HH2s2x")  # family, address, port


def _u8(kind: int, value: int) -> bytes:
    return _A8.pack(5, kind, value)


def _u16(kind: int, value: int) -> bytes:
    return _A16.pack(6, kind, value)


def _u32(kind: int, value: int) -> bytes:
    return _A32.pack(8, kind, value)


def _string(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _wide(address: Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def _family(version: int) -> int:
    return AF_INET6 if version == 6 else AF_INET


# --- encoding -----------------------------------------------------------------------------------------------


def encode_key(service_id: ServiceId) -> bytes:
    """What identifies a service: enough for GET, DEL and ZERO, and in front of every destination."""
    family = _family(service_id.family)
    if service_id.fwmark:
        return attribute(_SERVICE, _u16(_SVC_AF, family) + _u32(_SVC_FWMARK, service_id.fwmark))
    assert service_id.protocol is not None and service_id.address is not None
    protocol, port = _PROTOCOL_NUMBERS[service_id.protocol], _BE16.pack(service_id.port)
    wide = _wide(service_id.address)
    return _KEY.pack(
        *(_KEY.size, _SERVICE, 6, _SVC_AF, family, 6, _SVC_PROTOCOL, protocol),
        *(20, _SVC_ADDR, wide, 6, _SVC_PORT, port),
    )


def encode_service(service: Service) -> bytes:
    """The whole service, for NEW and SET; SET replaces everything that it has."""
    netmask = _BE32 if service.id.family == 4 else _U32
    body = (
        encode_key(service.id)[4:]
        + _string(_SVC_SCHED, service.scheduler)
        + attribute(_SVC_FLAGS, _U32.pack(service.flags) + b"\xff\xff\xff\xff")  # value, then mask: all of them
        + _u32(_SVC_TIMEOUT, service.timeout_s)
        + attribute(_SVC_NETMASK, netmask.pack(service.netmask))
    )
    if service.pe_name:
        body += _string(_SVC_PE, service.pe_name)
    return attribute(_SERVICE, body)


def encode_destination_key(service_id: ServiceId, server_id: ServerId) -> bytes:
    """For DEL_DEST."""
    return encode_key(service_id) + attribute(_DEST, _destination_key(server_id))


def encode_destination(service_id: ServiceId, destination: Destination) -> bytes:
    """For NEW_DEST and SET_DEST; SET replaces everything that it has."""
    body = (
        _destination_key(destination.id)
        + _u32(_DEST_METHOD, destination.method)
        + _u32(_DEST_WEIGHT, destination.weight)
        + _u32(_DEST_UPPER, destination.upper_threshold)
        + _u32(_DEST_LOWER, destination.lower_threshold)
    )
    if destination.method is Method.TUNNEL:
        body += (
            _u8(_DEST_TUN_TYPE, destination.tunnel_type)
            + attribute(_DEST_TUN_PORT, _BE16.pack(destination.tunnel_port))
            + _u16(_DEST_TUN_FLAGS, destination.tunnel_flags)
        )
    return encode_key(service_id) + attribute(_DEST, body)


def _destination_key(server_id: ServerId) -> bytes:
    family, wide = _family(server_id.address.version), _wide(server_id.address)
    return _DEST_KEY.pack(6, _DEST_FAMILY, family, 20, _DEST_ADDR, wide, 6, _DEST_PORT, _BE16.pack(server_id.port))


def encode_timeouts(timeouts: Timeouts) -> bytes:
    """For SET_CONFIG; 0 keeps what the kernel has."""
    pairs = ((_TIMEOUT_TCP, timeouts.tcp_s), (_TIMEOUT_TCP_FIN, timeouts.tcp_fin_s), (_TIMEOUT_UDP, timeouts.udp_s))
    return b"".join(_u32(kind, value) for kind, value in pairs)


def encode_daemon(daemon: Daemon) -> bytes:
    """For NEW_DAEMON and DEL_DAEMON."""
    body = _u32(_DAEMON_STATE, daemon.state) + _string(_DAEMON_IFN, daemon.interface)
    body += _u32(_DAEMON_SYNC_ID, daemon.sync_id)
    if daemon.max_len:
        body += _u16(_DAEMON_MAXLEN, daemon.max_len)
    if daemon.group is not None:
        body += attribute(_DAEMON_GROUP if daemon.group.version == 4 else _DAEMON_GROUP6, daemon.group.packed)
    if daemon.port:
        body += _u16(_DAEMON_PORT, daemon.port)
    if daemon.ttl:
        body += _u8(_DAEMON_TTL, daemon.ttl)
    return attribute(_DAEMON, body)


# --- decoding -----------------------------------------------------------------------------------------------


def _number(layout: struct.Struct, value: bytes | None) -> int:
    """0 where the kernel is too old to send the attribute."""
    return int(layout.unpack_from(value)[0]) if value is not None else 0


def _address(family: int, value: bytes) -> Address:
    return IPv6Address(value[:16]) if family == AF_INET6 else IPv4Address(value[:4])


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode("ascii", "replace")


def _stats(found: dict[int, bytes], wide: int, narrow: int) -> Stats:
    """From STATS64 (Linux 4.1), else from STATS, whose counters but bytes wrap at 2**32."""
    if len(plain := found.get(wide, b"")) == _STATS64.size:  # as it comes: with no padding between
        kinds_and_values = _STATS64.unpack(plain)
        if kinds_and_values[1::3] == _STATS_KINDS:
            return Stats(*kinds_and_values[2::3])
    fields = attributes(found.get(wide) or found.get(narrow, b""))
    return Stats(*(int.from_bytes(fields.get(kind, b""), sys.byteorder) for kind in range(1, _STATS_FIELDS + 1)))


def _nested(body: bytes, kind: int) -> dict[int, bytes]:
    try:
        return attributes(attributes(body)[kind])
    except KeyError:
        raise DataPlaneError("ip_vs sent an answer without its object; is the kernel newer than lbnode?") from None


def _service_id(found: dict[int, bytes]) -> ServiceId:
    family = _number(_U16, found[_SVC_AF])
    if fwmark := _number(_U32, found.get(_SVC_FWMARK)):
        return ServiceId(None, None, 0, fwmark=fwmark, inet6=family == AF_INET6)
    protocol = _PROTOCOLS[_number(_U16, found[_SVC_PROTOCOL])]
    address = _address(family, found[_SVC_ADDR])
    return ServiceId(protocol, address, _number(_BE16, found[_SVC_PORT]), inet6=family == AF_INET6)


def decode_service(body: bytes) -> Service:
    found = _nested(body, _SERVICE)
    try:
        service_id = _service_id(found)
        return Service(
            service_id,
            _text(found[_SVC_SCHED]),
            Flags(_number(_U32, found[_SVC_FLAGS])),
            _number(_U32, found[_SVC_TIMEOUT]),
            _number(_BE32 if service_id.family == 4 else _U32, found[_SVC_NETMASK]),
            _text(found.get(_SVC_PE, b"")),
            _stats(found, _SVC_STATS64, _SVC_STATS),
        )
    except (KeyError, struct.error, ValueError) as error:
        raise DataPlaneError(f"ip_vs sent a service that cannot be read: {error!r}") from None


def decode_destination(body: bytes, service_family: int) -> Destination:
    """service_family: 4 or 6, for kernels before 3.18, whose destinations do not name theirs."""
    found = _nested(body, _DEST)
    try:
        family = _number(_U16, found.get(_DEST_FAMILY)) or _family(service_family)
        return Destination(
            ServerId(_address(family, found[_DEST_ADDR]), _number(_BE16, found[_DEST_PORT])),
            Method(_number(_U32, found[_DEST_METHOD]) & 7),
            _number(_U32, found[_DEST_WEIGHT]),
            _number(_U32, found[_DEST_UPPER]),
            _number(_U32, found[_DEST_LOWER]),
            TunnelType(_number(_U8, found.get(_DEST_TUN_TYPE))),
            _number(_BE16, found.get(_DEST_TUN_PORT)),
            TunnelFlags(_number(_U16, found.get(_DEST_TUN_FLAGS))),
            _number(_U32, found.get(_DEST_ACTIVE)),
            _number(_U32, found.get(_DEST_INACTIVE)),
            _number(_U32, found.get(_DEST_PERSISTENT)),
            _stats(found, _DEST_STATS64, _DEST_STATS),
        )
    except (KeyError, struct.error, ValueError) as error:
        raise DataPlaneError(f"ip_vs sent a destination that cannot be read: {error!r}") from None


def decode_timeouts(body: bytes) -> Timeouts:
    found = attributes(body)
    return Timeouts(*(_number(_U32, found.get(kind)) for kind in (_TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP)))


def decode_daemon(body: bytes) -> Daemon:
    found = _nested(body, _DAEMON)
    group = found.get(_DAEMON_GROUP) or found.get(_DAEMON_GROUP6)
    try:
        return Daemon(
            DaemonState(_number(_U32, found[_DAEMON_STATE])),
            _text(found[_DAEMON_IFN]),
            _number(_U32, found[_DAEMON_SYNC_ID]),
            _number(_U16, found.get(_DAEMON_MAXLEN)),
            ip_address(group) if group else None,
            _number(_U16, found.get(_DAEMON_PORT)),
            _number(_U8, found.get(_DAEMON_TTL)),
        )
    except (KeyError, struct.error, ValueError) as error:
        raise DataPlaneError(f"ip_vs sent a sync daemon that cannot be read: {error!r}") from None


def decode_info(body: bytes) -> Info:
    found = attributes(body)
    version = _number(_U32, found.get(_INFO_VERSION))
    return Info((version >> 16, version >> 8 & 255, version & 255), _number(_U32, found.get(_INFO_CONN_TAB_SIZE)))
