"""Probes every target at its time, within bounds, and tells about changes of verdicts.

set_targets ─▶ schedule ─▶ probe ─▶ tracker ─▶ verdicts, on_change
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from random import Random

from healthcheck import probes
from healthcheck.probes import ProbeImpossible
from healthcheck.schedule import Schedule
from healthcheck.spec import Health, Result, Target, Verdict
from healthcheck.tracker import Tracker

log = logging.getLogger(__name__)

TICK_S = (
    0.01  # probes that fall due together start together: at most 100 rounds a second, whatever the number of targets
)
STALL_S = 0.1  # a timeout noticed this much too late means that this process stood still, not the server
COMPLAIN_EVERY_S = 60.0


class _Check:
    """What is probed, on behalf of one key or of several that want the very same."""

    __slots__ = ("keys", "probe", "stalled", "target", "tracker")

    def __init__(self, target: Target, tracker: Tracker) -> None:
        self.target = target  # its key is empty
        self.tracker = tracker
        self.keys: set[str] = set()
        self.probe: asyncio.Future[Result] | None = None
        self.stalled = False  # the last result was thrown away


class _Verdicts(Mapping[str, Verdict]):
    """A live view: always the latest verdict of each key."""

    def __init__(self, checks: Mapping[str, _Check]) -> None:
        self._checks = checks

    def __getitem__(self, key: str) -> Verdict:
        return self._checks[key].tracker.verdict

    def __iter__(self) -> Iterator[str]:
        return iter(self._checks)

    def __len__(self) -> int:
        return len(self._checks)


class Runner:
    """Checks a changing set of targets for as long as `run` runs. For use within one event loop.

    `on_change` gets the verdicts whose health or reason has changed, and only those, at most once per turn of the
    loop. `concurrency` bounds the probes under way, each of which holds one file descriptor; by default half of what
    this process may open. `random`, `start` and `clock` (Unix time, for display) are for tests.
    """

    def __init__(
        self,
        on_change: Callable[[Mapping[str, Verdict]], None],
        *,
        concurrency: int | None = None,
        random: Random | None = None,
        start: Callable[[Target], asyncio.Future[Result]] = probes.start,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._on_change = on_change
        self._concurrency = concurrency or max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._start = start
        self._clock = clock
        self._schedule: Schedule[_Check] = Schedule(random or Random())
        self._by_key: dict[str, _Check] = {}
        self._by_target: dict[Target, _Check] = {}  # under the target without its key
        self._unscheduled: set[_Check] = set()
        self._running: set[_Check] = set()
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._asleep_until: float | None = None  # loop time; None = until woken
        self._bug: BaseException | None = None
        self._complained_at = -COMPLAIN_EVERY_S

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """The verdict of every target, live, with the time and latency of its last probe."""
        return _Verdicts(self._by_key)

    @property
    def all_known(self) -> bool:
        """Every target has been probed at least once."""
        return all(verdict.health is not Health.UNKNOWN for verdict in self.verdicts.values())

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Check these from now on, and nothing else.

        A target that stays as it is notices nothing. One whose spec changes keeps its verdict and is probed anew
        within a second. One whose address or port changes is a new server: unknown.
        """
        wanted = {target.key: target for target in targets}
        old = dict(self._by_key)
        for key, check in old.items():
            if key not in wanted or _without_key(wanted[key]) != check.target:
                del self._by_key[key]
                check.keys.discard(key)
        for key, target in wanted.items():
            if key not in self._by_key:
                self._add(key, _without_key(target), old.get(key))
        for check in [check for check in self._by_target.values() if not check.keys]:
            self._remove(check)
        self._wake.set()

    async def run(self) -> None:
        """Probe until cancelled; a bug in a probe ends it with that exception. Leaves no probe behind."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                if self._bug is not None:
                    raise self._bug
                self._begin_due(loop.time())
                due = self._schedule.next_due() if len(self._running) < self._concurrency else None
                self._asleep_until = None if due is None else max(due, loop.time() + TICK_S)
                try:
                    async with asyncio.timeout_at(self._asleep_until):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            running = [check.probe for check in self._running if check.probe is not None]
            for probe in running:
                probe.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _begin_due(self, now: float) -> None:
        for check in self._unscheduled:
            self._schedule.add(check, check.target.spec.interval_s, check.target.spec.jitter, now)
        self._unscheduled.clear()
        for check in self._schedule.take_due(now, self._concurrency - len(self._running)):
            self._running.add(check)
            check.probe = self._start(check.target)
            check.probe.add_done_callback(partial(self._ended, check))

    def _ended(self, check: _Check, probe: asyncio.Future[Result]) -> None:
        if len(self._running) >= self._concurrency:
            self._wake.set()  # there is room again
        self._running.discard(check)
        check.probe = None
        if probe.cancelled():
            return
        now = asyncio.get_running_loop().time()
        error = probe.exception()
        if isinstance(error, ProbeImpossible):
            self._complain(str(error), now)
            self._put_back(check, now)
        elif error is not None:
            self._bug = error
            self._wake.set()
        else:
            result = probe.result()
            late = not result.ok and result.latency_s > check.target.spec.timeout_s + STALL_S
            check.stalled = late and not check.stalled  # twice in a row counts: an overloaded gateway must still judge
            self._put_back(check, now, at_once=check.stalled)
            if check.stalled:
                self._complain(f"held up for {result.latency_s - check.target.spec.timeout_s:.1f} s", now)
            else:
                self._take(check, result)

    def _put_back(self, check: _Check, now: float, *, at_once: bool = False) -> None:
        due = self._schedule.put_back(check, now, at_once=at_once)
        if self._asleep_until is None or due < self._asleep_until:
            self._wake.set()

    def _take(self, check: _Check, result: Result) -> None:
        before = check.tracker.verdict
        after = check.tracker.record(result, self._clock())
        if after.health is not before.health or after.reason != before.reason:
            self._tell(check.keys)

    def _tell(self, keys: Iterable[str]) -> None:
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._notify)
        self._changed.update(keys)

    def _notify(self) -> None:
        changed = {key: self._by_key[key].tracker.verdict for key in self._changed if key in self._by_key}
        self._changed.clear()
        if changed:
            self._on_change(changed)

    def _add(self, key: str, target: Target, old: _Check | None) -> None:
        check = self._by_target.get(target)
        if check is None:
            tracker = Tracker(target.spec.rise, target.spec.fall)
            if old is not None and (old.target.address, old.target.port) == (target.address, target.port):
                tracker.inherit(old.tracker)
            check = self._by_target[target] = _Check(target, tracker)
            self._unscheduled.add(check)
        check.keys.add(key)
        self._by_key[key] = check

    def _remove(self, check: _Check) -> None:
        del self._by_target[check.target]
        if check in self._unscheduled:
            self._unscheduled.discard(check)
        else:
            self._schedule.remove(check)
        if check.probe is not None:
            check.probe.cancel()

    def _complain(self, what: str, now: float) -> None:
        if now >= self._complained_at + COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("health checks: %s; results are passed over until this is better, verdicts stay", what)


def _without_key(target: Target) -> Target:
    return replace(target, key="")
