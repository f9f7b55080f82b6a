"""What the programs count, as user space reads it: maps `gauges`, `half_open`, `*_stats`, `admissions`, `events`, and
the moves in `clock`.

Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import Admission, Counters


@dataclass(frozen=True, slots=True)
class Gauge:
    active: int
    inactive: int
    overloaded: int = 0  # the upper threshold that was reached
    persistent: int = 0

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        return cls(*struct.unpack("=iiIi", data))

    @property
    def idle(self) -> bool:
        """Nothing is tracked."""
        return not (self.active or self.inactive or self.persistent)


@dataclass(frozen=True, slots=True)
class HalfOpen:
    """Value of map `half_open`."""

    entries: int
    cookie_ms: int = 0  # when the last cookie was sent, by the programs' clock; 0 = never

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        return cls(*struct.unpack("=iI", data))


def unpack_counters(per_cpu: bytes, gauge: Gauge | None = None) -> Counters:
    """Of map `server_stats` or `service_stats`: the values of all CPUs one after the other."""
    columns = zip(*struct.iter_unpack("=5Q", per_cpu), strict=True)
    connections, packets_in, packets_out, bytes_in, bytes_out = (sum(column) for column in columns)
    gauge = gauge or Gauge(0, 0)
    return Counters(
        connections, packets_in, packets_out, bytes_in, bytes_out, gauge.active, gauge.inactive, gauge.persistent
    )


_REFUSALS = (  # in the order of struct admission
    Event.DROP_DENIED,
    Event.DROP_RATE,
    Event.DROP_NO_SERVER,
    Event.DROP_OVERLOADED,
    Event.DROP_TABLE_FULL,
    Event.DROP_NO_LOCAL_PORT,
)
NOTHING_REFUSED = Admission(dict.fromkeys((event.label for event in _REFUSALS), 0))


def unpack_admission(per_cpu: bytes) -> Admission:
    """Of map `admissions`: the values of all CPUs one after the other."""
    if per_cpu == bytes(len(per_cpu)):
        return NOTHING_REFUSED  # of nearly all services, which may be thousands
    totals = [sum(column) for column in zip(*struct.iter_unpack("=10Q", per_cpu), strict=True)]
    return Admission(dict(zip(NOTHING_REFUSED.refused, totals, strict=False)), *totals[len(_REFUSALS) :])


def unpack_event(per_cpu: bytes) -> int:
    """One element of map `events` over all CPUs. ENTRIES counts up and down, so the values are signed."""
    return sum(value for (value,) in struct.iter_unpack("=q", per_cpu))


def unpack_moves(clock: bytes) -> int:
    """Element of map `clock`: connections that were moved to their other buckets, modulo 2^32."""
    return int(struct.unpack_from("=I", clock, 8)[0])


class Moves:
    """The same as a `total` that only grows, if it is read at least once in 2^32 moves, which take minutes."""

    def __init__(self) -> None:
        self.total = 0

    def update(self, clock: bytes) -> None:
        self.total += (unpack_moves(clock) - self.total) % (1 << 32)


class CpuPackets:
    """Packets of balanced connections by CPU, both directions, out of the services' counters.

    Those are zeroed now and then, and given to other services; `total` only grows.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, ...]] = {}  # by index of the service
        self.total: tuple[int, ...] = ()

    def update(self, stats: Mapping[int, bytes]) -> None:
        """`stats`: elements of map `service_stats` by index, of all services that there are."""
        new: dict[int, tuple[int, ...]] = {}
        for index, per_cpu in stats.items():
            packets = tuple(incoming + outgoing for _, incoming, outgoing, _, _ in struct.iter_unpack("=5Q", per_cpu))
            before = self._seen.get(index, (0,) * len(packets))
            grown = [now - then if now >= then else now for now, then in zip(packets, before, strict=True)]
            self.total = tuple(map(sum, zip(self.total or (0,) * len(packets), grown, strict=True)))
            new[index] = packets
        self._seen = new
