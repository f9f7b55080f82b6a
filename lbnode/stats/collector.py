"""Polls the data plane's counters once a second and publishes them with rates and history."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lbnode.errors import DataPlaneError
from lbnode.model import Counters, Rates, ServerId, ServiceCounters, ServiceId
from lbnode.stats import history
from lbnode.stats.rates import rates_between
from lbnode.watched import Watched

log = logging.getLogger(__name__)

_BATCH = 500  # services between two breaths: the event loop is held for a few ms at most
_NOTHING = Counters()


class CountersSource(Protocol):
    """The part of lbnode.dataplane.base.DataPlane that is needed here."""

    async def counters(self) -> Mapping[ServiceId, ServiceCounters]: ...


@dataclass(frozen=True, slots=True)
class StatsSnapshot:
    """Everything at one moment. Services and servers that the data plane no longer has are absent."""

    time: float = 0.0  # Unix time of the poll; 0 = none has succeeded yet
    counters: Mapping[ServiceId, ServiceCounters] = field(default_factory=dict)
    service_rates: Mapping[ServiceId, Rates] = field(default_factory=dict)
    server_rates: Mapping[tuple[ServiceId, ServerId], Rates] = field(default_factory=dict)
    history: Mapping[ServiceId, Sequence[float]] = field(default_factory=dict)  # connections/s, oldest first
    errors: int = 0  # polls that failed since start
    problem: str = ""  # why the last poll failed; the figures are those of the last one that succeeded


class Collector:
    """`stats` is renewed each `interval_s` while `run` runs. `clock` (Unix time, for display) is for tests."""

    def __init__(
        self, plane: CountersSource, interval_s: float = 1.0, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.stats: Watched[StatsSnapshot] = Watched(StatsSnapshot())
        self._plane = plane
        self._interval_s = interval_s
        self._clock = clock
        self._polled_at: float | None = None  # loop time of the last poll that succeeded

    async def run(self) -> None:
        """Poll until cancelled. A poll that fails is counted, and the last figures stay."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                await self._poll()
            except DataPlaneError as error:
                self._failed(str(error))
            due = max(due + self._interval_s, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _poll(self) -> None:
        counters = await self._plane.counters()
        now = asyncio.get_running_loop().time()
        first = self._polled_at is None
        elapsed_s = 0.0 if self._polled_at is None else now - self._polled_at
        self._polled_at = now
        seconds = max(1, round(elapsed_s / self._interval_s))  # more than one: polls failed in between
        last = self.stats.value
        service_rates: dict[ServiceId, Rates] = {}
        server_rates: dict[tuple[ServiceId, ServerId], Rates] = {}
        histories: dict[ServiceId, Sequence[float]] = {}
        for number, (service_id, service) in enumerate(counters.items(), 1):
            before = last.counters.get(service_id)
            # A service that is new since the last poll counts from zero; at the first poll nobody knows since when.
            totals = before.total if before else service.total if first else _NOTHING
            rates = service.rates.get(None) or rates_between(totals, service.total, elapsed_s)
            service_rates[service_id] = rates
            for server_id, now_counters in service.servers.items():
                then = before.servers.get(server_id, _NOTHING) if before else now_counters if first else _NOTHING
                server_rates[service_id, server_id] = service.rates.get(server_id) or rates_between(
                    then, now_counters, elapsed_s
                )
            past = tuple(last.history.get(service_id, ()))
            histories[service_id] = past if first else history.append(past, rates.connections, seconds)
            if number % _BATCH == 0:
                await asyncio.sleep(0)
        if last.problem:
            log.info("counters of the data plane can be read again")
        self.stats.set(
            StatsSnapshot(self._clock(), counters, service_rates, server_rates, histories, errors=last.errors)
        )

    def _failed(self, problem: str) -> None:
        last = self.stats.value
        if last.problem != problem:
            log.warning("counters of the data plane cannot be read, the last ones stay: %s", problem)
        self.stats.set(replace(last, errors=last.errors + 1, problem=problem))
