"""Connections as they are listed, out of records. A million of them is usual: what is not wanted costs a comparison of
bytes, and of the others nothing is made but the result. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network

from lbnode import connection_line
from lbnode.connection_filter import ConnectionFilter
from lbnode.dataplane.xdp.layout import (
    FORWARD_NUMBER,
    MAPPED,
    PROTOCOL_NUMBER,
    State,
    pack_address,
    unpack_address,
)
from lbnode.dataplane.xdp.records import RECORD_SIZE
from lbnode.model import ForwardingMethod

# struct record of lb_conns.h: addresses, ports and protocol of `in`, addresses and ports of `out`, idle_ms, state,
# flags, forward, timeout_ms
_RECORD = struct.Struct("=16s16s2s2sB3x16s16s2s2s4xI4xBBBxI")
_SOURCE, _TARGET, _TARGET_PORT, _PROTOCOL = 0, 16, 34, 36
_SERVER, _SERVER_PORT = 40, 72
_MARK, _STATE, _FLAGS = 84, 88, 89
_ASSURED = 2  # CONN_ASSURED
_FULLNAT = FORWARD_NUMBER[ForwardingMethod.FULLNAT]
_TEMPLATE_STATES = {"NONE": 0, "ASSURED": _ASSURED}  # IPVS's names
_STATE_NAMES = [state.name for state in State]
_PROTOCOL_NAMES = {number: f'"{protocol}"' for protocol, number in PROTOCOL_NUMBER.items()}  # JSON
_number = int.from_bytes
_TEMPLATE = int(State.TEMPLATE)  # comparing with an IntEnum's member takes longer


@lru_cache(4096)  # a few VIPs and servers, and clients that come again
def _text(packed: bytes) -> str:
    if packed[:12] == MAPPED:
        return f"{packed[12]}.{packed[13]}.{packed[14]}.{packed[15]}"
    return str(unpack_address(packed))


class Selection:
    """Which records a filter wants."""

    def __init__(self, wanted: ConnectionFilter) -> None:
        self._equal: list[tuple[int, int, bytes]] = []  # from, to, what must stand there
        self._nothing = False
        self._ipv6 = False  # other families have the same mark
        self._assured: int | None = None  # of templates
        self._prefix: tuple[int, int] | None = None  # mask, network
        if wanted.service is not None:
            self._select_service(wanted)
        if wanted.server is not None:
            self._want(_SERVER, pack_address(wanted.server.address))
            self._want(_SERVER_PORT, wanted.server.port.to_bytes(2, "big"))
        if wanted.client is not None:
            bits = (32 if isinstance(wanted.client, IPv4Network) else 128) - wanted.client.prefixlen
            network = int.from_bytes(pack_address(wanted.client.network_address), "big")
            self._prefix = ((1 << 128) - (1 << bits), network)
        if wanted.state in _TEMPLATE_STATES:
            self._want(_STATE, bytes([State.TEMPLATE]))
            self._assured = _TEMPLATE_STATES[wanted.state]
        elif wanted.state in State.__members__:
            self._want(_STATE, bytes([State[wanted.state]]))
        elif wanted.state:
            self._nothing = True

    def _want(self, at: int, value: bytes) -> None:
        self._equal.append((at, at + len(value), value))

    def _select_service(self, wanted: ConnectionFilter) -> None:
        service = wanted.service
        assert service is not None
        self._want(_MARK, struct.pack("=I", service.fwmark))
        self._ipv6 = service.fwmark != 0 and service.inet6
        if service.fwmark and not service.inet6:
            self._want(_SOURCE, MAPPED)
        if service.address is not None and service.protocol is not None:
            self._want(_TARGET, pack_address(service.address))
            self._want(_PROTOCOL, bytes([PROTOCOL_NUMBER[service.protocol]]))
            if service.port:
                self._want(_TARGET_PORT, service.port.to_bytes(2, "big"))

    def offsets(self, data: bytes) -> Sequence[int]:
        """Where in `data`, whole records one after the other, the wanted ones begin."""
        if self._nothing:
            return ()
        found: Sequence[int] = range(0, len(data), RECORD_SIZE)
        for start, end, value in self._equal:
            found = [at for at in found if data[at + start : at + end] == value]
        if self._ipv6:
            found = [at for at in found if data[at : at + len(MAPPED)] != MAPPED]
        if self._assured is not None:
            found = [at for at in found if data[at + _FLAGS] & _ASSURED == self._assured]
        if self._prefix is not None:
            mask, network = self._prefix
            found = [at for at in found if int.from_bytes(data[at : at + 16], "big") & mask == network]
        return found


def line(data: bytes, at: int) -> str:
    """The connection of the record at this offset, as JSON. Templates have IPVS's states."""
    client, virtual, client_port, port, protocol, *rest = _RECORD.unpack_from(data, at)
    server, target, server_port, target_port, idle_ms, number, flags, forward, timeout_ms = rest
    state, local = _STATE_NAMES[number], "null"
    if number == _TEMPLATE:
        state = "ASSURED" if flags & _ASSURED else "NONE"
    elif forward == _FULLNAT:
        local = f'["{_text(target)}",{_number(target_port, "big")}]'
    return connection_line.line(
        _PROTOCOL_NAMES.get(protocol, "null"),
        f'["{_text(client)}",{_number(client_port, "big")}]',
        f'["{_text(virtual)}",{_number(port, "big")}]',
        f'["{_text(server)}",{_number(server_port, "big")}]',
        state,
        max(0, timeout_ms - idle_ms) / 1000,
        local,
    )
