"""Value of map `config` (lb.h: struct config): time-outs by state, and what else holds for every service. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from lbnode.dataplane.xdp.layout import ConfigFlag, State
from lbnode.model import DropRules, Timeouts

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


@dataclass(frozen=True, slots=True)
class Config:
    """Value of map `config`."""

    timeouts: Timeouts
    seed: int  # 64 bits, random, chosen once
    sync: bool = False
    icmp_rate: int = 1000  # ICMP errors per second
    cookie_key: int = 0  # 128 bits, random, chosen once
    drop: DropRules = field(default_factory=DropRules)

    _FORMAT = struct.Struct("=16IQIIQQ")

    def pack(self) -> bytes:
        by_state = timeouts_by_state(self.timeouts)
        seconds = [by_state[state] for state in State] + [0] * (16 - len(State))
        flags = ConfigFlag.SYNC if self.sync else ConfigFlag(0)
        if self.drop.ip_options:
            flags |= ConfigFlag.DROP_IP_OPTIONS
        if self.drop.bad_checksums:
            flags |= ConfigFlag.DROP_BAD_CHECKSUMS
        key = self.cookie_key & 0xFFFFFFFFFFFFFFFF, self.cookie_key >> 64
        return self._FORMAT.pack(*(second * 1000 for second in seconds), self.seed, flags, self.icmp_rate, *key)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        *timeouts, seed, flags, icmp_rate, low, high = cls._FORMAT.unpack(data)
        tcp, fin, udp = (timeouts[state] // 1000 for state in (State.ESTABLISHED, State.FIN_WAIT, State.UDP))
        drop = DropRules(bool(flags & ConfigFlag.DROP_IP_OPTIONS), bool(flags & ConfigFlag.DROP_BAD_CHECKSUMS))
        return cls(Timeouts(tcp, fin, udp), seed, bool(flags & ConfigFlag.SYNC), icmp_rate, high << 64 | low, drop)
