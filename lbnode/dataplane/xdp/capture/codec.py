"""Mirror of bpf/lb_capture.h: the request as the program reads it, and the records that it writes. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Self

from lbnode.capture import PROTOCOLS, CaptureRequest
from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.layout import Event
from lbnode.errors import ConfigError

VERDICTS = ("passed", "dropped", "to-server", "to-client", "answered")  # enum capture_verdict
_SERVICE, _SERVER = 1, 2  # CAPTURE_*
_CAPTURE = struct.Struct("=Q16s16s16s16s5I2s2s2sBB7IQ")
_RECORD = struct.Struct("=QIIIIHBBBB2x")
CAPTURE_SIZE, RECORD_SIZE = _CAPTURE.size, _RECORD.size
_FIGURES_AT = 8 + 4 * 16 + 5 * 4 + 8 + 3 * 4
_DROPS = {event.label: event for event in Event if event >= layout.FIRST_DROP}


def pack(request: CaptureRequest, service_index: int, until_ns: int) -> bytes:
    """Value of map `capture`. `service_index`: of the request's service, else 0. ConfigError: no such reason."""
    if request.reason and request.reason not in _DROPS:
        raise ConfigError(f"reason: {request.reason!r} is none of {', '.join(sorted(_DROPS))}")
    service, server, port = request.service, request.server, request.port.to_bytes(2, "big")
    prefix, mask = _prefix(request.client)
    vip = layout.pack_address(service.address) if service and service.address else bytes(16)
    return _CAPTURE.pack(
        until_ns,
        prefix,
        mask,
        vip,
        layout.pack_address(server[0]) if server else bytes(16),
        (_SERVICE if service else 0) | (_SERVER if server else 0),
        sum(1 << VERDICTS.index(verdict) for verdict in request.verdicts),
        _DROPS[request.reason] if request.reason else 0,
        service_index,
        service.fwmark if service else 0,
        service.port.to_bytes(2, "big") if service else bytes(2),
        server[1].to_bytes(2, "big") if server else bytes(2),
        port,
        PROTOCOLS.get(request.protocol, 0),
        PROTOCOLS[service.protocol] if service and service.protocol else 0,
        request.snap,
        request.rate,
        request.count,
        *(0, 0, 0, 0),
        0,
    )


def _prefix(network: IPv4Network | IPv6Network | None) -> tuple[bytes, bytes]:
    """IPv4 addresses are mapped into IPv6."""
    if network is None:
        return bytes(16), bytes(16)
    mask = bytes([0xFF] * (16 - len(network.netmask.packed))) + network.netmask.packed
    return layout.pack_address(network.network_address), mask


@dataclass(frozen=True, slots=True)
class Figures:
    """What the program counted. `taken`: packets that matched; of them some may be `lost`."""

    taken: int
    over: int
    lost: int

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        return cls(*struct.unpack_from("=3I", data, _FIGURES_AT))


@dataclass(frozen=True, slots=True)
class CaptureRecord:
    time_ns: int  # CLOCK_BOOTTIME
    ifindex: int
    length: int
    server: int  # index
    leaves: bool
    verdict: str
    event: Event | None
    frame: bytes  # its first bytes, a VLAN tag put back in

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        time_ns, ifindex, length, captured, server, vlan, tagged, leaves, verdict, event = _RECORD.unpack_from(data)
        frame = data[_RECORD.size : _RECORD.size + captured]
        if tagged:  # the program works behind the tag (vlan.h)
            frame, length = frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:], length + 4
        known = Event(event) if event else None
        return cls(time_ns, ifindex, length, server, bool(leaves), VERDICTS[verdict], known, frame)
