"""When a Backup takes the role from an Active that it hears, and when it serves then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbnode.election.events import Lease
from lbnode.election.machine import YIELD_WITHIN, Machine
from lbnode.model import VrrpState
from tests.unit.election_machine import ROUTER, T0, I, backup, hear, kinds


def test_a_preempting_backup_takes_over_after_an_advertisement_in_time_once_it_has_listened_long_enough() -> None:
    machine = backup(replace(ROUTER, preempt=True))
    for n in (1, 2, 3):
        hear(machine, T0 + n * I, 50)
        assert machine.get_timer() > T0 + (n + 1) * I
    hear(machine, T0 + 4 * I, 50)
    machine.handle_timer(T0 + 4 * I)
    assert kinds(machine)[-1] == "Changed" and machine.state is VrrpState.ACTIVE


def preempting() -> Machine:
    """At T0 + 11 * I it has just told a lower priority that it is Active."""
    machine = backup(replace(ROUTER, preempt=True))
    for n in (10, 11):
        hear(machine, T0 + n * I, 50)
    machine.handle_timer(T0 + 11 * I)
    assert kinds(machine) == ["advert 150", "Changed"]
    return machine


@pytest.mark.parametrize("yielding", [50, 0], ids=["a last advertisement", "a release"])
def test_whoever_preempts_serves_once_the_other_has_yielded(yielding: int) -> None:
    machine = preempting()
    hear(machine, T0 + 11 * I + 1, yielding)
    assert kinds(machine) == ["advert 150", "Lease", "Claim", "Announce"]
    assert machine.get_timer() == T0 + 12 * I + 1


def test_whoever_preempts_one_that_yields_in_silence_serves_a_moment_later() -> None:
    machine = preempting()
    machine.announce(T0 + 11 * I + 1)
    assert kinds(machine) == []
    now = machine.get_timer() or 0
    assert now == T0 + 11 * I + min(YIELD_WITHIN, I // 10)
    machine.handle_timer(now)
    assert machine.next_event() == Lease(T0 + 11 * I + I * 5 // 2)  # counted from the advertisement
    assert kinds(machine) == ["Claim", "Announce"]
    assert machine.get_timer() == T0 + 12 * I


def test_whoever_preempts_yields_to_a_better_one_without_having_served() -> None:
    machine = preempting()
    hear(machine, T0 + 11 * I + 1, 250)
    assert kinds(machine) == ["Lease", "Withdraw", "advert 150", "Changed"]
    assert machine.state is VrrpState.BACKUP and (machine.get_timer() or 0) > T0 + 14 * I


@pytest.mark.parametrize("gap", [I // 4, 2 * I], ids=["from the queue of a paused process", "after a pause"])
def test_a_preempting_backup_waits_for_an_active_that_may_be_paused(gap: int) -> None:
    machine = backup(replace(ROUTER, preempt=True))
    hear(machine, T0 + 10 * I, 50)
    hear(machine, T0 + 10 * I + gap, 50)
    assert machine.get_timer() > T0 + 11 * I + gap
    hear(machine, T0 + 11 * I + gap, 50)
    assert machine.get_timer() == T0 + 11 * I + gap


def test_a_preempting_backup_listens_anew_after_a_higher_priority() -> None:
    machine = backup(replace(ROUTER, preempt=True))
    hear(machine, T0 + 10 * I, 250)
    for n in (11, 12, 13):
        hear(machine, T0 + n * I, 50)
        assert machine.get_timer() > T0 + (n + 1) * I
    hear(machine, T0 + 14 * I, 50)
    assert machine.get_timer() == T0 + 14 * I
