"""Values of maps `config` and `timeouts` (lb_config.h): time-outs by state, and what holds for every service. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from lbnode.dataplane.xdp.layout import ConfigFlag, State
from lbnode.model import DropRules, OwnTimeouts, Timeouts

# IPVS's defaults in seconds (net/netfilter/ipvs/ip_vs_proto_tcp.c, _udp.c); three of them can be set.
_FIXED_S = {
    State.SYN_SENT: 120,
    State.SYN_RECV: 60,
    State.TIME_WAIT: 120,
    State.CLOSE: 10,
    State.CLOSE_WAIT: 60,
    State.LAST_ACK: 30,
    State.LISTEN: 120,
    State.SYNACK: 120,
}


def timeouts_by_state(timeouts: Timeouts) -> Mapping[State, int]:
    """Seconds; `ipvsadm --set tcp tcpfin udp` sets ESTABLISHED, FIN_WAIT and UDP."""
    return _FIXED_S | {
        State.NONE: 0,
        State.ESTABLISHED: timeouts.tcp_s,
        State.FIN_WAIT: timeouts.tcp_fin_s,
        State.UDP: timeouts.udp_s,
        State.TEMPLATE: 0,  # each its own
    }


_SET = (State.ESTABLISHED, State.FIN_WAIT, State.UDP)
_OWN = struct.Struct("=16I")


def _own_by_state(own: OwnTimeouts) -> Mapping[State, int]:
    """Seconds."""
    return {
        state: seconds
        for state, seconds in zip(_SET, (own.tcp_s, own.tcp_fin_s, own.udp_s), strict=True)
        if seconds is not None
    }


def _row(by_state: Mapping[State, int]) -> list[int]:
    """Milliseconds, as __u32[16] by state."""
    return [by_state.get(state, 0) * 1000 for state in State] + [0] * (16 - len(State))


def pack_own(own: OwnTimeouts) -> bytes:
    """Value of map `timeouts`."""
    return _OWN.pack(*_row(_own_by_state(own)))


def unpack_own(data: bytes) -> OwnTimeouts:
    """What `pack_own` reverses."""
    by_state = _OWN.unpack(data)
    return OwnTimeouts(*(by_state[state] // 1000 or None for state in _SET))


def timeout_ms(row: bytes, state: State) -> int:
    """Of a value of either map."""
    return int(_OWN.unpack_from(row)[state])


def shortest(found: Iterable[OwnTimeouts]) -> OwnTimeouts:
    """The smallest of each kind."""
    all_of = list(found)
    kinds = ([one.tcp_s for one in all_of], [one.tcp_fin_s for one in all_of], [one.udp_s for one in all_of])
    return OwnTimeouts(*(min((value for value in kind if value is not None), default=None) for kind in kinds))


@dataclass(frozen=True, slots=True)
class Config:
    """Value of map `config`."""

    timeouts: Timeouts
    seed: int  # 64 bits, random, chosen once
    sync: bool = False
    icmp_rate: int = 1000  # ICMP errors per second
    cookie_key: int = 0  # 128 bits, random, chosen once
    drop: DropRules = field(default_factory=DropRules)
    shortest: OwnTimeouts = field(default_factory=OwnTimeouts)  # of the services' own; `unpack` does not tell it

    _FORMAT = struct.Struct("=16IQIIQQ16I")

    def pack(self) -> bytes:
        by_state = timeouts_by_state(self.timeouts)
        soonest = {state: min(seconds, by_state[state]) for state, seconds in _own_by_state(self.shortest).items()}
        flags = ConfigFlag.SYNC if self.sync else ConfigFlag(0)
        if self.drop.ip_options:
            flags |= ConfigFlag.DROP_IP_OPTIONS
        if self.drop.bad_checksums:
            flags |= ConfigFlag.DROP_BAD_CHECKSUMS
        key = self.cookie_key & 0xFFFFFFFFFFFFFFFF, self.cookie_key >> 64
        return self._FORMAT.pack(
            *_row(by_state), self.seed, flags, self.icmp_rate, *key, *_row({**by_state, **soonest})
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        numbers = cls._FORMAT.unpack(data)
        timeouts, (seed, flags, icmp_rate, low, high) = numbers[:16], numbers[16:21]
        tcp, fin, udp = (timeouts[state] // 1000 for state in (State.ESTABLISHED, State.FIN_WAIT, State.UDP))
        drop = DropRules(bool(flags & ConfigFlag.DROP_IP_OPTIONS), bool(flags & ConfigFlag.DROP_BAD_CHECKSUMS))
        return cls(Timeouts(tcp, fin, udp), seed, bool(flags & ConfigFlag.SYNC), icmp_rate, high << 64 | low, drop)
