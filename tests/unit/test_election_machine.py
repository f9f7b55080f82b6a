"""The state machine, row by row of RFC 9568 section 6.4."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbnode.election.events import FOREVER, Announce, Input, Lease
from lbnode.election.machine import TRANSITIONS, Machine
from lbnode.election.packet import Advert, Rejected, encode
from lbnode.election.router import CENTISECOND, SECOND
from lbnode.model import VrrpState
from tests.unit.election_machine import (
    ROUTER,
    T0,
    THEIRS,
    VIP,
    I,
    active,
    backup,
    events,
    hear,
    kinds,
)
from tests.unit.test_election_packet import ip_packet


def test_start_removes_leftovers_and_waits_the_active_down_interval() -> None:
    machine = Machine(ROUTER)
    machine.start(T0)
    assert kinds(machine) == ["Lease", "Withdraw", "Changed"]
    assert machine.get_timer() == T0 + 3 * I + (256 - 150) * I // 256


def test_takeover_advertises_then_claims_then_announces() -> None:
    machine = backup()
    now = machine.get_timer() or 0
    machine.handle_timer(now)
    assert kinds(machine) == ["advert 150", "Lease", "Claim", "Announce", "Changed"]
    assert machine.get_timer() == now + I


def test_a_sole_member_is_active_at_once_without_touching_what_it_adopts() -> None:
    machine = Machine(replace(ROUTER, peers=()))
    machine.start(T0)
    assert kinds(machine) == ["advert 150", "Lease", "Claim", "Announce", "Changed"]


@pytest.mark.parametrize("priority", [250, 150, 50])
def test_a_backup_that_does_not_preempt_follows_every_active(priority: int) -> None:
    machine = backup()
    hear(machine, T0 + I, priority, interval_cs=20)
    assert machine.get_timer() == T0 + I + 2 * (3 * I + (256 - 150) * I // 256)  # the Active's interval counts
    assert machine.active_address == THEIRS


def test_a_release_that_the_successors_advertisement_has_overtaken_is_ignored() -> None:
    machine = backup()
    hear(machine, T0 + I, 250)
    before = machine.get_timer()
    hear(machine, T0 + I + 1, 0, source=IPv4Address("192.0.2.4"))
    assert (machine.get_timer(), machine.active_address) == (before, THEIRS)


def test_release_by_an_unknown_active_waits_the_skew_time() -> None:
    machine = backup()
    hear(machine, T0 + I, 0)
    assert machine.get_timer() == T0 + I + (256 - 150) * I // 256


def test_the_best_remaining_member_takes_a_released_group_at_once() -> None:
    machine = backup()
    hear(machine, T0 + I, 250)
    hear(machine, T0 + 2 * I, 0)
    assert machine.get_timer() == T0 + 2 * I
    machine.handle_timer(T0 + 2 * I)
    assert kinds(machine)[:2] == ["advert 150", "Lease"]


def test_a_release_is_void_when_what_was_received_after_it_shows_a_successor() -> None:
    machine = backup()
    hear(machine, T0 + I, 250)
    hear(machine, T0 + 9 * I, 0)  # both were waiting while we were paused
    hear(machine, T0 + 9 * I, 50, source=IPv4Address("192.0.2.4"))
    machine.handle_timer(T0 + 9 * I)
    assert machine.state is VrrpState.BACKUP


def test_a_worse_remaining_member_waits_its_skew() -> None:
    machine = backup(replace(ROUTER, priority=50, peers=(250, 150)))
    hear(machine, T0 + I, 250)
    hear(machine, T0 + 2 * I, 0)
    assert machine.state is VrrpState.BACKUP
    assert machine.get_timer() == T0 + 2 * I + (256 - 50) * I // 256


def test_advertisements_keep_an_absolute_schedule_and_never_burst() -> None:
    machine, t = active(replace(ROUTER, peers=()))  # a sole member may be late as it likes
    machine.handle_timer(t + I + 30)
    assert machine.get_timer() == t + 2 * I
    machine.handle_timer(t + 9 * I)
    assert machine.get_timer() == min(t + 10 * I, machine._announcements.at)
    assert kinds(machine).count("advert 150") == 2


@pytest.mark.parametrize(
    ("priority", "source", "last"),
    [(151, "192.0.2.1", 150), (150, "192.0.2.3", 149)],
    ids=["higher priority", "same, higher address"],
)
def test_active_yields_to_a_superior_one_with_a_last_advertisement(priority: int, source: str, last: int) -> None:
    machine, t = active()
    hear(machine, t + 1, priority, source=IPv4Address(source))
    assert kinds(machine) == ["Lease", "Withdraw", f"advert {last}", "Changed"]
    assert (machine.state, machine.active_address) == (VrrpState.BACKUP, IPv4Address(source))


def test_whoever_yields_to_a_later_owner_of_lower_priority_does_not_look_better_at_the_end() -> None:
    """The winner does not know our epoch any more, and would yield to our priority: then nobody serves."""
    machine, t = active()
    machine.epoch = 1
    machine.receive(Advert(51, 50, 10, (VIP,), THEIRS), t + 1, epoch=2)
    assert kinds(machine) == ["Lease", "Withdraw", "advert 49", "Changed"]


@pytest.mark.parametrize(
    ("priority", "source"), [(149, "192.0.2.3"), (150, "192.0.2.1"), (0, "192.0.2.3")], ids=["lower", "tie", "release"]
)
def test_active_asserts_itself_and_announces_again_on_any_other_contact(priority: int, source: str) -> None:
    machine, t = active()
    hear(machine, t + 1, priority, source=IPv4Address(source))
    assert kinds(machine) == ["advert 150", "Lease", "Announce"]
    assert machine.get_timer() == t + 1 + I


def leases(machine: Machine) -> list[int]:
    return [event.until for event in events(machine) if isinstance(event, Lease)]


def test_each_advertisement_of_an_active_extends_the_lease_by_less_than_a_peer_waits() -> None:
    machine = backup()
    t = machine.get_timer() or 0
    machine.handle_timer(t)
    machine.handle_timer(t + I)
    hear(machine, t + I + 1, 50)
    assert leases(machine) == [at + 5 * I // 2 for at in (t, t + I, t + I + 1)]


def test_the_lease_of_a_sole_member_does_not_end_with_its_process() -> None:
    machine, t = active(replace(ROUTER, peers=()))
    machine.handle_timer(t + I)
    assert leases(machine) == [FOREVER]


def test_a_new_process_resumes_what_the_one_before_it_held_at_once() -> None:
    machine = Machine(ROUTER)
    machine.resume(T0, "a while ago", T0 - ROUTER.dark_after)
    assert kinds(machine) == ["advert 150", "Lease", "Claim", "Announce", "Changed"]
    assert (machine.state, machine.sent_at) == (VrrpState.ACTIVE, T0)


def test_a_new_process_that_comes_too_late_listens_first() -> None:
    machine = Machine(ROUTER)
    machine.resume(T0, "a while ago", T0 - ROUTER.dark_after - 1)
    assert kinds(machine) == ["Lease", "Withdraw", "Changed"]
    assert machine.state is VrrpState.BACKUP
    slower = Machine(ROUTER)
    slower.resume(T0, "a while ago", T0 - 2 * ROUTER.dark_after, 2 * ROUTER.dark_after)  # with twice the interval
    assert slower.state is VrrpState.ACTIVE
    sole = Machine(replace(ROUTER, peers=()))
    sole.resume(T0, "a while ago", 0)  # nobody else could have
    assert sole.state is VrrpState.ACTIVE


@pytest.mark.parametrize("leave", ["stop", "handover", "yield", "dark"])
def test_whoever_leaves_the_role_revokes_the_lease_first(leave: str) -> None:
    machine, t = active()
    match leave:
        case "stop":
            machine.stop(t + 1, "test")
        case "handover":
            machine.handover(t + 1)
        case "yield":
            hear(machine, t + 1, 250)
        case "dark":
            machine.handle_timer(t + 9 * I)
    assert events(machine)[0] == Lease(0)


def test_stop_withdraws_before_it_releases() -> None:
    machine, t = active()
    machine.stop(t + 1, "test")
    assert kinds(machine) == ["Lease", "Withdraw", "advert 0", "Changed"]
    assert machine.get_timer() is None


def test_a_stopped_backup_says_nothing() -> None:
    machine = backup()
    machine.stop(T0 + 1, "test")
    assert kinds(machine) == ["Changed"]


def test_announcements_follow_their_schedule_and_are_refreshed() -> None:
    machine, t = active(replace(ROUTER, interval_cs=4095))
    rounds: list[tuple[int, int]] = []
    while len(rounds) < 6:
        now = machine.get_timer() or 0
        machine.handle_timer(now)
        rounds += [((now - t) // CENTISECOND, event.count) for event in events(machine) if isinstance(event, Announce)]
    assert rounds == [(10, 5), (50, 5), (100, 5), (500, 5), (1500, 1), (2500, 1)]


def test_when_the_one_we_follow_gave_way_the_winner_speaks_within_an_interval_or_nobody_is_active() -> None:
    machine = backup()
    hear(machine, T0 + I, 200)
    machine.yielded(THEIRS, T0 + I)
    assert machine.get_timer() == T0 + 2 * I + (256 - 150) * I // 256
    hear(machine, T0 + I + 1, 250)  # the winner
    machine.yielded(IPv4Address("192.0.2.99"), T0 + I + 1)  # whom we do not follow
    assert machine.get_timer() == T0 + 4 * I + (256 - 150) * I // 256 + 1


def test_two_that_gave_way_to_each_other_wait_for_nobody_else() -> None:
    machine, t = active()
    machine.epoch = 1
    advert = Advert(51, 100, 10, (VIP,), THEIRS)
    machine.receive(advert, t + 1, epoch=2)
    assert machine.state is VrrpState.BACKUP
    machine.yielded(THEIRS, t + 2)
    assert machine.get_timer() == t + 2 + (256 - 150) * I // 256
    hear(machine, t + 3, 100)
    machine.yielded(THEIRS, t + 1 + I + 1)  # much later it gave way to a third
    assert machine.get_timer() == t + 1 + I + 1 + I + (256 - 150) * I // 256


def test_an_active_that_was_dark_steps_down_before_it_advertises() -> None:
    machine, t = active()
    machine.handle_timer(t + ROUTER.dark_after + 1)
    assert kinds(machine) == ["Lease", "Withdraw", "Changed"]
    assert machine.state is VrrpState.BACKUP


def test_an_active_that_was_dark_does_not_fight_the_peer_it_hears_first() -> None:
    machine, t = active()
    hear(machine, t + 10 * I, 50)
    assert kinds(machine) == ["Lease", "Withdraw", "Changed"]
    assert (machine.state, machine.active_address) == (VrrpState.BACKUP, THEIRS)


def test_an_active_that_was_only_late_carries_on() -> None:
    machine, t = active()
    machine.handle_timer(t + ROUTER.dark_after)
    assert kinds(machine) == ["advert 150", "Lease", "Announce"]


def test_a_backup_that_was_paused_listens_once_more_before_it_takes_over() -> None:
    machine = backup()
    late = (machine.get_timer() or 0) + I + 1
    machine.handle_timer(late)
    assert (machine.state, machine.get_timer()) == (VrrpState.BACKUP, late + I)
    machine.handle_timer(late + 5 * I)  # late again: it cannot wait for ever
    assert machine.state is VrrpState.ACTIVE


def test_handover_releases_and_does_not_preempt_the_successor() -> None:
    machine, t = active(replace(ROUTER, preempt=True))
    machine.handover(t + 1)
    assert kinds(machine) == ["Lease", "Withdraw", "advert 0", "Changed"]
    for step in range(1, 50):
        hear(machine, t + step * I, 50)
        machine.handle_timer(t + step * I)
    assert machine.state is VrrpState.BACKUP


def test_a_sole_member_does_not_hand_over() -> None:
    machine, t = active(replace(ROUTER, peers=()))
    machine.handover(t + 1)
    assert (machine.state, kinds(machine)) == (VrrpState.ACTIVE, [])


def test_reconfiguration_keeps_the_active_active_and_tells_at_once() -> None:
    machine, t = active()
    machine.reconfigure(replace(ROUTER, priority=140, interval_cs=20, addresses=(VIP, THEIRS)), t + 1)
    assert kinds(machine) == ["advert 140", "Lease", "Announce"]
    assert machine.get_timer() == t + 1 + 10 * CENTISECOND  # announcement round; advertisement after 20


def test_reconfiguration_of_a_backup_keeps_the_interval_of_the_active_it_follows() -> None:
    machine = backup()
    hear(machine, T0 + I, 250, interval_cs=100)
    machine.reconfigure(replace(ROUTER, interval_cs=1), T0 + 2 * I)
    assert (machine.get_timer() or 0) > T0 + 2 * I + 3 * SECOND


def test_other_addresses_in_the_advertisement_raise_an_alarm_but_are_not_dropped() -> None:
    machine = backup()
    other = Advert(51, 250, 10, (IPv4Address("192.0.2.11"),), THEIRS)
    machine.receive_datagram(ip_packet(encode(other), THEIRS), T0 + 1)
    assert "192.0.2.3 announces 192.0.2.11" in machine.alarm
    assert machine.active_address == THEIRS
    hear(machine, T0 + 2, 250)
    assert machine.alarm == ""


def test_every_state_answers_a_stop_and_the_table_names_no_unknown_state() -> None:
    for state in (VrrpState.BACKUP, VrrpState.ACTIVE):
        for kind in (Input.TIMER, Input.RELEASE, Input.SUPERIOR, Input.EQUAL, Input.INFERIOR, Input.STOP):
            assert (state, kind) in TRANSITIONS


def snapshot(machine: Machine) -> dict[str, object]:
    return {name: value for name, value in vars(machine).items() if name != "_events"}


@pytest.mark.parametrize("seed", range(4))
def test_mutated_packets_are_rejected_and_leave_the_state_unchanged(seed: int) -> None:
    """5,000 packets per seed: real ones with bytes flipped, cut, extended, checksum repaired or not."""
    rng = random.Random(seed)
    machine, t = active() if seed % 2 else (backup(), T0)
    now, rejected = t, 0
    for _ in range(5_000):
        advert = Advert(51, rng.choice((0, 50, 250)), 10, (VIP,) * rng.randint(1, 3), THEIRS)
        packet = bytearray(ip_packet(encode(advert), THEIRS))
        for _ in range(rng.randint(1, 4)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        if rng.random() < 0.3:
            del packet[rng.randrange(len(packet)) :]
        if rng.random() < 0.2:
            packet += rng.randbytes(rng.randint(1, 40))
        before = snapshot(machine)
        try:
            machine.receive_datagram(bytes(packet), now)
        except Rejected:
            rejected += 1
            assert snapshot(machine) == before and machine.next_event() is None
        events(machine)
    assert rejected > 4_000


@pytest.mark.parametrize("field", [("vrid", 0), ("vrid", 256), ("priority", 0), ("priority", 255), ("interval_cs", 0)])
def test_parameters_out_of_range_are_refused(field: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        replace(ROUTER, **{field[0]: field[1]})
