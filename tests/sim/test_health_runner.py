"""The runner on virtual time, with servers that are a function: spacing, bounds, changes of targets, faults."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import pairwise
from random import Random

import pytest

from healthcheck.probes import ProbeImpossible
from healthcheck.runner import STALL_S, TICK_S, Runner
from healthcheck.spec import CheckSpec, Health, Result, Target, Verdict
from tests.sim.virtual_time import run_virtual

SPEC = CheckSpec(interval_s=2.0, timeout_s=1.0, rise=2, fall=3, jitter=0.1)
OK = Result(True, "", 0.01)
REFUSED = Result(False, "connect refused", 0.01)


def target(number: int, spec: CheckSpec = SPEC, key: str = "") -> Target:
    return Target(key or f"svc/{number}", ip_address("198.51.100.0") + number % 256, 80 + number // 256, spec)


@dataclass
class World:
    """Servers: `behave` tells what the n-th probe (from 0) of a server finds; a probe takes `takes_s`."""

    behave: Callable[[Target, int], Result | Exception] = lambda target, n: OK
    takes_s: float = 0.01
    started: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    under_way: int = 0
    most_under_way: int = 0
    changes: list[Mapping[str, Verdict]] = field(default_factory=list)

    def runner(self, targets: Sequence[Target], concurrency: int = 10_000) -> Runner:
        runner = Runner(
            self.changes.append, concurrency=concurrency, random=Random(1), start=self._start, clock=lambda: now()
        )
        runner.set_targets(targets)
        return runner

    def probes_of(self, target: Target) -> list[float]:
        return self.started[str(target.address), target.port]

    def _start(self, target: Target) -> asyncio.Future[Result]:
        assert target.key == ""
        return asyncio.get_running_loop().create_task(self._probe(target))

    async def _probe(self, target: Target) -> Result:
        starts = self.probes_of(target)
        starts.append(now())
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.under_way -= 1
        found = self.behave(target, len(starts) - 1)
        if isinstance(found, Exception):
            raise found
        return found


def now() -> float:
    return asyncio.get_running_loop().time()


def run_for(runner: Runner, world: World, seconds: float, *steps: Callable[[], None]) -> None:
    """Run for so long, then each step followed by as long again; afterwards no probe is left."""

    async def main() -> None:
        task = asyncio.create_task(runner.run())
        await asyncio.sleep(seconds)
        for step in steps:
            step()
            await asyncio.sleep(seconds)
        assert not task.done() or task.result()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.under_way == 0

    run_virtual(main())


def test_a_thousand_targets_are_probed_at_their_intervals() -> None:
    world = World()
    targets = [target(n) for n in range(1000)]
    runner = world.runner(targets)
    run_for(runner, world, 60.0)
    assert runner.all_known
    slack = 2 * TICK_S
    for one in targets:
        starts = world.probes_of(one)
        assert starts[0] <= 1000.0 + 1.0 + slack
        assert all(1.8 - slack <= b - a <= 2.2 + slack for a, b in pairwise(starts))
        assert len(starts) >= 27
    everything = sorted(start for starts in world.started.values() for start in starts)
    per_second = [sum(1 for start in everything if 1000.0 + s <= start < 1001.0 + s) for s in range(1, 60)]
    assert 400 < sum(per_second) / len(per_second) < 600  # 1000 targets, every 2 s
    assert len(world.changes) >= 1 and sum(len(change) for change in world.changes) == 1000


def test_when_every_server_hangs_the_bound_holds_and_nobody_starves() -> None:
    world = World(lambda target, n: Result(False, "timeout after 1 s connecting", 1.0), takes_s=1.0)
    targets = [target(n) for n in range(1000)]
    runner = world.runner(targets, concurrency=100)
    run_for(runner, world, 60.0)
    assert world.most_under_way == 100
    counts = [len(world.probes_of(one)) for one in targets]
    assert min(counts) >= 5 and max(counts) <= 7  # 100 slots of 1 s each: one round of 1000 takes 10 s
    assert all(verdict.health is Health.DOWN for verdict in runner.verdicts.values())


def test_down_after_fall_failures_up_after_rise_successes() -> None:
    world = World(lambda target, n: REFUSED if 3 <= n < 10 else OK)
    runner = world.runner([target(0)])
    run_for(runner, world, 60.0)
    healths = [change["svc/0"].health for change in world.changes]
    reasons = [change["svc/0"].reason for change in world.changes]
    assert healths == [Health.UP, Health.UP, Health.DOWN, Health.UP]  # the second tells the reason before the fall
    assert reasons == ["", "connect refused", "connect refused", ""]
    starts = world.probes_of(target(0))
    assert world.changes[2]["svc/0"].since == pytest.approx(starts[5] + 0.01)
    assert world.changes[3]["svc/0"].since == pytest.approx(starts[11] + 0.01)
    assert runner.verdicts["svc/0"].last_checked > 1055.0  # kept fresh without being told


def test_the_same_check_under_several_keys_is_one_probe() -> None:
    world = World()
    twins = [target(0, key="a/0"), target(0, key="b/0"), target(0, replace(SPEC, fall=1), key="c/0")]
    runner = world.runner(twins)
    run_for(runner, world, 20.0, lambda: runner.set_targets(twins[1:2]))
    assert {key for change in world.changes for key in change} == {"a/0", "b/0", "c/0"}
    before = [start for start in world.probes_of(twins[0]) if start < 1020.0]
    after = [start for start in world.probes_of(twins[0]) if start >= 1020.0]
    assert 18 <= len(before) <= 22 and 9 <= len(after) <= 11
    assert list(runner.verdicts) == ["b/0"] and runner.verdicts["b/0"].streak >= 18


def test_unchanged_targets_notice_nothing() -> None:
    world = World()
    runner = world.runner([target(0), target(1)])
    run_for(runner, world, 20.0, lambda: runner.set_targets([target(1), target(0), target(2)]))
    for n in (0, 1):
        assert all(1.8 - TICK_S <= b - a <= 2.2 + 2 * TICK_S for a, b in pairwise(world.probes_of(target(n))))
    assert runner.verdicts["svc/2"].health is Health.UP and runner.all_known


def test_a_changed_spec_keeps_the_verdict_and_probes_soon() -> None:
    world = World(lambda target, n: REFUSED)
    slow, slower = replace(SPEC, interval_s=600.0), replace(SPEC, interval_s=900.0)
    runner = world.runner([target(0, slow)])

    def change() -> None:
        runner.set_targets([target(0, slower)])
        assert runner.verdicts["svc/0"].health is Health.DOWN and runner.all_known

    run_for(runner, world, 30.0, change)
    assert len(world.changes) == 1
    first, second = world.probes_of(target(0))
    assert first <= 1001.1 and 1030.0 <= second <= 1031.1


def test_another_address_under_the_same_key_is_another_server() -> None:
    world = World()
    runner = world.runner([target(0)])

    def change() -> None:
        runner.set_targets([replace(target(1), key="svc/0")])
        assert runner.verdicts["svc/0"].health is Health.UNKNOWN and not runner.all_known

    run_for(runner, world, 10.0, change)
    assert runner.verdicts["svc/0"].health is Health.UP


def test_removed_targets_are_let_go_in_mid_probe() -> None:
    world = World(takes_s=50.0)
    runner = world.runner([target(n) for n in range(10)])
    left: list[int] = []
    run_for(runner, world, 5.0, lambda: runner.set_targets([]), lambda: left.append(world.under_way))
    assert left == [0] and world.most_under_way == 10
    assert world.changes == [] and dict(runner.verdicts) == {} and runner.all_known


def test_a_target_removed_and_brought_back_is_unknown_again() -> None:
    world = World(takes_s=3.0)
    runner = world.runner([target(0)])
    run_for(runner, world, 10.0, lambda: runner.set_targets([]), lambda: runner.set_targets([target(0)]))
    assert runner.verdicts["svc/0"].since > 1020.0


def test_a_fault_of_this_machine_says_nothing_about_servers(caplog: pytest.LogCaptureFixture) -> None:
    def behave(target: Target, n: int) -> Result | Exception:
        return ProbeImpossible("too many open files here") if 2 <= n < 20 else OK

    world = World(behave)
    runner = world.runner([target(n) for n in range(50)])
    run_for(runner, world, 60.0)
    assert sum(len(change) for change in world.changes) == 50
    assert all(verdict.health is Health.UP for verdict in runner.verdicts.values())
    assert len(world.probes_of(target(0))) < 35  # no busy loop
    assert "too many open files" in caplog.text and len(caplog.records) <= 2


def test_a_result_that_came_too_late_because_of_us_is_thrown_away_once() -> None:
    late = Result(False, "timeout after 1 s connecting", SPEC.timeout_s + 2 * STALL_S)
    once = World(lambda target, n: late if n % 4 == 2 else OK)
    spec = replace(SPEC, fall=1)
    runner = once.runner([target(0, spec)])
    run_for(runner, once, 60.0)
    assert [change["svc/0"].health for change in once.changes] == [Health.UP]
    starts = once.probes_of(target(0, spec))
    assert starts[3] - starts[2] < 0.1  # asked again at once

    always = World(lambda target, n: late if n > 0 else OK)
    runner = always.runner([target(0, spec)])
    run_for(runner, always, 60.0)
    assert runner.verdicts["svc/0"].health is Health.DOWN  # overloaded as we are, a dead server is found


def test_a_bug_in_a_probe_ends_the_runner() -> None:
    world = World(lambda target, n: ZeroDivisionError("bug"))

    async def main() -> None:
        await world.runner([target(0)]).run()

    with pytest.raises(ZeroDivisionError):
        run_virtual(main())


def test_changes_that_come_together_are_told_together() -> None:
    world = World()
    runner = world.runner([target(0, key=f"svc/{n}") for n in range(5)])
    run_for(runner, world, 5.0)
    assert len(world.changes) == 1 and len(world.changes[0]) == 5


def test_a_lone_target_is_probed_on_and_on() -> None:
    """While its probe runs nothing is waiting in the schedule; its end has to wake the runner."""
    world = World(takes_s=0.5)
    run_for(world.runner([target(0)]), world, 60.0)
    assert 28 <= len(world.probes_of(target(0))) <= 32
