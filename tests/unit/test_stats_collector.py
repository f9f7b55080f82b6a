"""Counters become rates and history: resets, failed polls, services that come and go. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.errors import DataPlaneError
from lbnode.model import Counters, Rates, ServerId, ServiceCounters, ServiceId
from lbnode.stats import history
from lbnode.stats.collector import Collector, StatsSnapshot
from lbnode.stats.rates import IDLE, rates_between
from tests.sim.virtual_time import run_virtual

WEB = ServiceId.of("tcp", "192.0.2.10", 80)
DNS = ServiceId.of("udp", "192.0.2.10", 53)
SERVER = ServerId(ip_address("198.51.100.1"), 80)
TOTALS = st.builds(Counters, *(st.integers(0, 2**64 - 1) for _ in range(5)))

CountersOf = Mapping[ServiceId, ServiceCounters]


class Plane:
    """Tells what `at` says for the number of the poll (from 0); raises what it returns if that is an error."""

    def __init__(self, at: Callable[[int], CountersOf | Exception]) -> None:
        self._at = at
        self._poll = -1

    async def counters(self) -> CountersOf:
        self._poll += 1
        answer = self._at(self._poll)
        if isinstance(answer, Exception):
            raise answer
        return answer


def serving(connections: int, service: ServiceId = WEB) -> CountersOf:
    counters = Counters(connections=connections)
    return {service: ServiceCounters(counters, {SERVER: counters})}


def collected(at: Callable[[int], CountersOf | Exception], polls: int, interval_s: float = 1.0) -> StatsSnapshot:
    """What the collector shows after so many polls."""

    async def main() -> StatsSnapshot:
        collector = Collector(Plane(at), interval_s)
        task = asyncio.create_task(collector.run())
        await asyncio.sleep((polls - 0.5) * interval_s)
        assert not task.done()
        task.cancel()
        return collector.stats.value

    return run_virtual(main())


def test_rates_that_the_data_plane_measures_itself_are_taken() -> None:
    measured, idle = Rates(7.0), Rates()

    def at(poll: int) -> CountersOf:
        still = Counters(connections=100 * (poll // 2))  # as ip_vs, which renews them every two seconds
        return {WEB: ServiceCounters(still, {SERVER: still}, {None: measured, SERVER: idle})}

    found = collected(at, 4)
    assert found.service_rates[WEB] == measured and found.history[WEB][-1] == 7.0
    assert found.server_rates[WEB, SERVER] == idle


@given(TOTALS, TOTALS, st.floats(0.001, 1000))
def test_a_rate_is_never_negative_and_exact_without_a_reset(
    before: Counters, after: Counters, elapsed_s: float
) -> None:
    rates = rates_between(before, after, elapsed_s)
    for name in ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out"):
        old, new, rate = getattr(before, name), getattr(after, name), getattr(rates, name)
        assert rate * elapsed_s == pytest.approx(new - old if new >= old else new)


def test_no_time_no_rate() -> None:
    assert rates_between(Counters(), Counters(5), 0.0) == IDLE
    assert rates_between(Counters(), Counters(5), -1.0) == IDLE


@given(st.lists(st.tuples(st.floats(0, 1e9), st.integers(1, 200)), max_size=20))
def test_history_keeps_the_newest_minute(samples: list[tuple[float, int]]) -> None:
    kept: tuple[float, ...] = ()
    for value, count in samples:
        kept = history.append(kept, value, count)
    everything = [value for value, count in samples for _ in range(count)]
    assert list(kept) == everything[-history.LENGTH :]


def test_rates_and_history_of_a_steady_service() -> None:
    stats = collected(lambda poll: serving(1000 + 50 * poll), polls=4)
    assert stats.counters[WEB].total.connections == 1150
    assert stats.service_rates[WEB] == Rates(connections=50.0)
    assert stats.server_rates[WEB, SERVER] == Rates(connections=50.0)
    assert stats.history[WEB] == (50.0, 50.0, 50.0)  # nobody knows how long the first 1000 took
    assert stats.errors == 0 and stats.problem == "" and stats.time > 0


def test_rates_are_per_second_whatever_the_interval() -> None:
    assert collected(lambda poll: serving(50 * poll), polls=3, interval_s=5.0).service_rates[WEB].connections == 10.0


def test_zeroed_counters_count_from_zero() -> None:
    assert collected(lambda poll: serving([900, 1000, 30][poll]), polls=3).service_rates[WEB].connections == 30.0


def test_a_removed_service_vanishes_and_a_new_one_counts_from_zero() -> None:
    stats = collected(lambda poll: serving(100, DNS) if poll < 2 else serving(7), polls=3)
    assert set(stats.counters) == set(stats.service_rates) == set(stats.history) == {WEB}
    assert set(stats.server_rates) == {(WEB, SERVER)}
    assert stats.service_rates[WEB].connections == 7.0


def test_failed_polls_are_counted_and_the_last_figures_stay() -> None:
    def at(poll: int) -> CountersOf | Exception:
        return DataPlaneError("map read: EBUSY") if poll in (2, 3) else serving(10 * poll)

    failing = collected(at, polls=4)
    assert failing.errors == 2 and failing.problem == "map read: EBUSY"
    assert failing.counters[WEB].total.connections == 10 and failing.service_rates[WEB].connections == 10.0

    recovered = collected(at, polls=5)
    assert recovered.errors == 2 and recovered.problem == ""
    assert recovered.service_rates[WEB].connections == 10.0  # 30 connections in 3 s
    assert recovered.history[WEB] == (10.0, 10.0, 10.0, 10.0)  # a figure for each second, the failed ones too


def test_a_bug_in_the_data_plane_is_not_hidden() -> None:
    async def main() -> None:
        await Collector(Plane(lambda poll: ZeroDivisionError())).run()

    with pytest.raises(ZeroDivisionError):
        run_virtual(main())
