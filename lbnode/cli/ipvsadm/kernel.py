"""Between ipvsadm's commands and ip_vs's own objects, for `lbadm --direct`. Pure.

A Command becomes what ipvsadm would send; what the kernel answers becomes rows as GET /api/v1/services gives them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from lbnode.cli.ipvsadm import table as words
from lbnode.cli.ipvsadm.grammar import Command
from lbnode.cli.ipvsadm.help import NOT_ROOT
from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import (
    Daemon,
    DaemonState,
    Destination,
    Flags,
    Method,
    Service,
    Stats,
    TunnelFlags,
    TunnelType,
)
from lbnode.model import Connection, ServiceId, Timeouts, flags_of

Json = Mapping[str, Any]

_SCHEDULER_BITS = (Flags.SCHED_1, Flags.SCHED_2, Flags.SCHED_3)  # in the order of flags_of()
_METHODS = {"masquerade": Method.MASQUERADE, "direct": Method.DIRECT, "tunnel": Method.TUNNEL}
_FORWARD = {method: forward for forward, method in _METHODS.items()}
_CHECKSUMS = {
    "nocsum": TunnelFlags.NO_CHECKSUM,
    "csum": TunnelFlags.CHECKSUM,
    "remcsum": TunnelFlags.REMOTE_CHECKSUM,
}
_CHECKSUM_NAMES = {flags: name for name, flags in _CHECKSUMS.items()}
_HOST_MASK = {4: 0xFFFFFFFF, 6: 128}


# --- commands ------------------------------------------------------------------------------------------------


def request(command: Command) -> tuple[codec.Command, bytes]:
    """What ipvsadm sends for a command that changes something."""
    service = command.service
    key = codec.encode_key(service) if service is not None else b""
    match command.name:
        case "add-service":
            return codec.Command.NEW_SERVICE, codec.encode_service(_service(command))
        case "edit-service":
            return codec.Command.SET_SERVICE, codec.encode_service(_service(command))
        case "delete-service":
            return codec.Command.DEL_SERVICE, key
        case "flush":
            return codec.Command.FLUSH, b""
        case "zero":
            return codec.Command.ZERO, key
        case "set":
            assert command.timeouts is not None
            return codec.Command.SET_CONFIG, codec.encode_timeouts(Timeouts(*command.timeouts))
        case "start-daemon":
            return codec.Command.NEW_DAEMON, codec.encode_daemon(_daemon(command))
        case "stop-daemon":
            return codec.Command.DEL_DAEMON, codec.encode_daemon(_daemon(command))
    assert service is not None and command.server is not None
    match command.name:
        case "add-server":
            return codec.Command.NEW_DEST, codec.encode_destination(service, _destination(command))
        case "edit-server":
            return codec.Command.SET_DEST, codec.encode_destination(service, _destination(command))
        case _:
            return codec.Command.DEL_DEST, codec.encode_destination_key(service, command.server)


def _service(command: Command) -> Service:
    assert command.service is not None
    flags = Flags.PERSISTENT if command.persistent_s else Flags(0)
    if command.one_packet:
        flags |= Flags.ONE_PACKET
    for name, bit in zip(flags_of(command.scheduler), _SCHEDULER_BITS, strict=True):
        if name in command.scheduler_flags:
            flags |= bit
    mask = _HOST_MASK[command.service.family] if command.netmask is None else command.netmask
    engine = command.persistence_engine
    return Service(command.service, command.scheduler, flags, command.persistent_s, mask, engine)


def _destination(command: Command) -> Destination:
    assert command.server is not None
    tunnel = command.tunnel
    return Destination(
        command.server,
        _METHODS[command.forward],
        command.weight,
        command.upper_threshold,
        command.lower_threshold,
        TunnelType[tunnel.type.upper()],
        tunnel.port,
        _CHECKSUMS[tunnel.checksum],
    )


def _daemon(command: Command) -> Daemon:
    """What was not given is left to the kernel."""
    daemon, given = command.daemon, command.options
    return Daemon(
        DaemonState[command.daemon_state.upper()],
        daemon.interface,
        daemon.syncid,
        daemon.maxlen,
        daemon.group if "mcast-group" in given else None,
        daemon.port if "mcast-port" in given else 0,
        daemon.ttl if "mcast-ttl" in given else 0,
    )


# --- rows ----------------------------------------------------------------------------------------------------


def service_row(service: Service, destinations: Sequence[Destination]) -> Json:
    flags = service.flags
    names = zip(flags_of(service.scheduler), _SCHEDULER_BITS, strict=True)
    return {
        "id": str(service.id),
        "scheduler": service.scheduler,
        "effective_scheduler": service.scheduler,
        "scheduler_flags": [name for name, bit in names if bit in flags],
        "persistent_s": service.timeout_s if Flags.PERSISTENT in flags else 0,
        "persistent_netmask": _netmask(service.id, service.netmask),
        "persistence_engine": service.pe_name,
        "one_packet": Flags.ONE_PACKET in flags,
        **_figures(service.stats, 0, 0, 0),
        "servers": [_server_row(item) for item in destinations],
    }


def _netmask(service: ServiceId, mask: int) -> str | int:
    return mask if service.family == 6 else str(IPv4Address(mask))


def _server_row(item: Destination) -> Json:
    return {
        "id": str(item.id),
        "forward": _FORWARD.get(item.method, "direct"),
        "configured_weight": item.weight,
        "effective_weight": item.weight,
        "upper_threshold": item.upper_threshold,
        "lower_threshold": item.lower_threshold,
        "tunnel": {
            "type": item.tunnel_type.name.lower(),
            "port": item.tunnel_port,
            "checksum": _CHECKSUM_NAMES.get(item.tunnel_flags, "nocsum"),
        },
        **_figures(item.stats, item.active, item.inactive, item.persistent),
    }


def _figures(stats: Stats, active: int, inactive: int, persistent: int) -> Json:
    return {
        "counters": {
            "connections": stats.connections,
            "packets_in": stats.packets_in,
            "packets_out": stats.packets_out,
            "bytes_in": stats.bytes_in,
            "bytes_out": stats.bytes_out,
            "active": active,
            "inactive": inactive,
            "persistent": persistent,
        },
        "rates": {
            "connections": stats.connections_rate,
            "packets_in": stats.packets_in_rate,
            "packets_out": stats.packets_out_rate,
            "bytes_in": stats.bytes_in_rate,
            "bytes_out": stats.bytes_out_rate,
        },
    }


def daemon_row(daemon: Daemon) -> Json:
    return {
        "interface": daemon.interface,
        "syncid": daemon.sync_id,
        "maxlen": daemon.max_len,
        "group": str(daemon.group),
        "port": daemon.port,
        "ttl": daemon.ttl,
    }


def connection_row(item: Connection) -> Json:
    return {
        "protocol": item.protocol,
        "client": (str(item.client[0]), item.client[1]),
        "virtual": (str(item.virtual[0]), item.virtual[1]),
        "server": (str(item.server[0]), item.server[1]),
        "state": item.state,
        "expires_s": item.expires_s,
        "pe_name": item.pe_name,
        "pe_data": item.pe_data,
    }


# --- errors --------------------------------------------------------------------------------------------------

_SERVICE_MISSING = {errno.ESRCH: words.SERVICE_UNKNOWN}
_ERRORS: Mapping[str, Mapping[int, str]] = {
    "add-service": {errno.EEXIST: words.SERVICE_EXISTS, errno.ENOENT: words.SCHEDULER_UNKNOWN},
    "edit-service": {**_SERVICE_MISSING, errno.ENOENT: words.SCHEDULER_UNKNOWN},
    "delete-service": _SERVICE_MISSING,
    "zero": _SERVICE_MISSING,
    "list": _SERVICE_MISSING,
    "add-server": {errno.ESRCH: words.SERVICE_UNDEFINED, errno.EEXIST: words.SERVER_EXISTS},
    "edit-server": {errno.ESRCH: words.SERVICE_UNDEFINED, errno.ENOENT: words.SERVER_UNKNOWN},
    "delete-server": {errno.ESRCH: words.SERVICE_UNDEFINED, errno.ENOENT: words.SERVER_UNKNOWN},
    "start-daemon": {errno.EEXIST: words.DAEMON_EXISTS},
    "stop-daemon": {errno.ESRCH: words.DAEMON_UNKNOWN},
}
_COMMON_ERRORS = {
    errno.EPERM: NOT_ROOT,
    errno.EINVAL: words.INVALID,
    errno.ENOPROTOOPT: "Protocol not available",
    errno.ENOENT: "Protocol not available",  # of the look-up: this kernel has no ip_vs
    errno.ENOMEM: "Memory allocation problem",
    errno.EOPNOTSUPP: "Operation not supported with IPv6",
    errno.EAFNOSUPPORT: "Operation not supported with specified address family",
    errno.EMSGSIZE: "Module is wrong version",
}


def explain(command: str, code: int) -> str:
    """ipvsadm's words for the kernel's errno; `command`: a Command's name, or "" for the look-up of ip_vs."""
    return _ERRORS.get(command, {}).get(code) or _COMMON_ERRORS.get(code) or os.strerror(code)
