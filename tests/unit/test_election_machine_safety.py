"""What the state machine adds to RFC 9568: epochs, fences, successors, delays, degraded Actives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbnode.election.machine import Machine
from lbnode.election.router import MILLISECOND
from lbnode.model import VrrpState
from tests.unit.election_machine import (
    ROUTER,
    T0,
    I,
    active,
    advert,
    backup,
    hear,
    kinds,
    said,
)


def test_of_two_actives_the_later_epoch_wins_whatever_the_priority() -> None:
    machine, t = active()
    machine.epoch = 5
    machine.receive(advert(250), t + 1, epoch=4)
    assert (machine.state, kinds(machine)) == (VrrpState.ACTIVE, ["advert 150", "Lease", "Announce"])
    machine.receive(advert(50), t + 2, epoch=6)
    assert (machine.state, said(machine)) == (VrrpState.BACKUP, "192.0.2.3 became active after us")


def test_without_both_epochs_the_priority_decides_as_in_the_rfc() -> None:
    for own, theirs in ((0, 6), (5, 0), (5, 5)):
        machine, t = active()
        machine.epoch = own
        machine.receive(advert(50), t + 1, epoch=theirs)
        assert machine.state is VrrpState.ACTIVE
        machine.receive(advert(250), t + 2, epoch=theirs)
        assert machine.state is VrrpState.BACKUP


def test_an_active_yields_to_one_that_does_not_hear_it_and_does_not_preempt_it() -> None:
    machine, t = active(replace(ROUTER, preempt=True))
    machine.name_of = lambda _: "gw2"
    machine.receive(advert(50), t + 1, deaf=True)
    assert (machine.state, said(machine)) == (VrrpState.BACKUP, "gw2 is active, too, and does not hear us")
    for step in range(1, 50):
        machine.receive(advert(50), t + step * I, deaf=True)
        machine.handle_timer(t + step * I)
    assert machine.state is VrrpState.BACKUP


def test_a_backup_that_may_not_take_over_says_why_and_tries_again_each_interval() -> None:
    machine = backup()
    t = machine.get_timer() or 0
    machine.handle_timer(t, "cut off")
    assert (machine.state, machine.refused, machine.get_timer()) == (VrrpState.BACKUP, "cut off", t + I)
    machine.handle_timer(t + I)
    assert (machine.state, machine.refused) == (VrrpState.ACTIVE, "")


def test_an_active_that_may_not_hold_the_group_releases_it() -> None:
    machine, t = active()
    machine.fence(t + 1, "etcd names gw2 as the owner since then")
    assert kinds(machine) == ["Lease", "Withdraw", "advert 0", "Changed"]
    assert machine.state is VrrpState.BACKUP
    machine.fence(t + 2, "again")
    assert kinds(machine) == []


def test_the_store_is_asked_an_interval_before_the_timer_fires() -> None:
    machine = backup()
    hear(machine, T0 + I, 250)
    assert machine.ask_at == (machine.get_timer() or 0) - I > T0 + 3 * I
    assert active()[0].ask_at is None


def test_a_takeover_says_how_long_nobody_was_heard_and_since_when_the_lease_was_over() -> None:
    machine = backup()
    machine.name_of = lambda _: "gw1"
    hear(machine, T0 + I, 250)
    machine.handle_timer(T0 + I + 345 * MILLISECOND)
    assert said(machine) == "no advertisement from gw1 for 345 ms, its lease ended 95 ms ago"


def test_preempt_delay_is_counted_from_the_last_sign_of_a_better_one() -> None:
    machine = backup(replace(ROUTER, preempt=True, preempt_delay=20 * I))
    hear(machine, T0 + I, 250)
    for step in range(2, 22):
        hear(machine, T0 + step * I, 50)
        machine.handle_timer(T0 + step * I)
        assert (machine.state is VrrpState.ACTIVE) is (step == 21), step


def test_nobody_takes_over_within_the_startup_delay_not_even_a_released_group() -> None:
    machine = Machine(replace(ROUTER, startup_delay=20 * I))
    machine.start(T0)
    assert machine.get_timer() == T0 + 20 * I
    hear(machine, T0 + I, 250)
    hear(machine, T0 + 2 * I, 0)
    assert machine.get_timer() == T0 + 20 * I
    machine.handle_timer(T0 + 20 * I)
    assert machine.state is VrrpState.ACTIVE


def test_a_degraded_active_is_preempted_without_preemption_by_whoever_has_the_higher_priority() -> None:
    for degraded, state in ((False, VrrpState.BACKUP), (True, VrrpState.ACTIVE)):
        machine = backup()
        for step in range(1, 12):
            machine.receive(advert(90), T0 + step * I, degraded=degraded)
            machine.handle_timer(T0 + step * I)
        assert machine.state is state


@pytest.mark.parametrize("designation_first", [True, False])
@pytest.mark.parametrize("ours", [True, False])
def test_a_named_successor_takes_over_at_once_and_the_others_wait_for_it(ours: bool, designation_first: bool) -> None:
    machine = backup(replace(ROUTER, priority=50, peers=(250, 150)) if ours else ROUTER)
    hear(machine, T0 + I, 250)
    t = T0 + 2 * I
    if designation_first:
        machine.designate(ours, t)
    hear(machine, t, 0)
    if not designation_first:
        machine.designate(ours, t)
    assert machine.get_timer() == (t if ours else t + 3 * I + (256 - 150) * I // 256)


def test_one_that_had_to_give_up_preempts_again_as_configured() -> None:
    machine, t = active(replace(ROUTER, preempt=True))
    machine.fence(t + 1, "cut off: neither a peer nor the gateway is reachable")
    for step in range(1, 20):
        hear(machine, t + step * I, 50)
        machine.handle_timer(t + step * I)
    assert machine.state is VrrpState.ACTIVE
