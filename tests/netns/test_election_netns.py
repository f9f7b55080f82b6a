"""The election between real processes in network namespaces: faults, reconfiguration, adoption."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from lbnode.election.messages import Setup
from lbnode.election.packet import Advert, encode
from lbnode.lab.netns import Net, ip
from lbnode.model import VipAddress
from tests.netns.election_lab import ALONE, BOTH, GROUP, LINK_LOCAL_VIP, VIP, VIP6, Daemon, Lab, until

pytestmark = [pytest.mark.root]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Net(f"lbt-el{os.getpid()}") as net:
        yield Lab(net)


@pytest.fixture
def pair(lab: Lab) -> tuple[Daemon, Daemon]:
    return lab.pair()


def test_one_of_two_holds_the_vip_and_the_client_reaches_it(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    assert lab.holds("a") and not lab.holds("b")
    until(lambda: lab.client_reaches("a"), "the client reaches a")
    (held,) = [entry for entry in lab.addresses("a") if str(entry.address) == VIP]
    assert (held.prefix_len, held.ours) == (32, True)  # no second route to the subnet


def test_kill_9_of_the_daemon_and_a_restart_move_nothing(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    removals, process, since = lab.count_removals("a"), a.driver_pid(), a.roles[-1]["since"]
    a.kill(signal.SIGKILL)
    a = lab.daemon("a", GROUP)
    until(lambda: a.state == "active", "the next one holds the group")
    until(lambda: not os.path.exists(f"/proc/{process}"), "the process before has stepped aside")
    until(lambda: b.roles[-1]["active_address"] == "192.0.2.1", "b follows on")
    assert (removals(), a.roles[-1]["since"]) == (0, since)
    assert any("follows one of an earlier lbnoded: it held front" in event for event in a.events)
    assert "active" not in {role["state"] for role in b.roles}
    a.handover("front")  # and it is a whole one
    until(lambda: lab.holds("b") and not lab.holds("a"), "a hands over")


def test_a_backup_that_is_restarted_stays_backup(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    b.kill(signal.SIGKILL)
    b = lab.daemon("b", GROUP)
    until(lambda: b.state == "backup" and b.roles[-1]["active_address"] == "192.0.2.1", "b follows a")
    assert any("it held no group" in event for event in b.events)
    assert lab.holds("a") and a.state == "active"


def test_a_process_that_hangs_cannot_step_aside_and_is_killed(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, _b = pair
    process = a.driver_pid()
    os.kill(process, signal.SIGSTOP)
    a.kill(signal.SIGKILL)
    a = lab.daemon("a", GROUP)
    until(lambda: not os.path.exists(f"/proc/{process}"), "it is killed")
    until(lambda: lab.holds("b") and not lab.holds("a"), "the VIP moves")
    assert any("did not step aside within 1 s" in event for event in a.events)


def test_a_daemon_that_stays_away_moves_the_vip_and_never_both_hold_it(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    with lab.never_both():
        a.kill(signal.SIGKILL)
        until(lambda: lab.holds("b") and not lab.holds("a"), "the VIP moves to b")
        until(lambda: lab.client_reaches("b"), "the client reaches b")
    assert b.roles[-1]["reason"] == "released by 192.0.2.1"  # no time-out was waited for
    a = lab.daemon("a", GROUP)
    with lab.never_both():
        until(lambda: a.state == "backup" and a.roles[-1]["active_address"] == "192.0.2.2", "a comes back as backup")
        assert lab.holds("b") and not lab.holds("a")


def test_sigterm_hands_over(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    with lab.never_both():
        a.kill(signal.SIGTERM)
        assert not lab.holds("a")
        until(lambda: lab.holds("b"), "b takes over")
    until(lambda: b.roles[-1]["reason"] == "released by 192.0.2.1", "b says why")


def test_handover_on_request_stays_handed_over(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    with lab.never_both():
        a.handover("front")
        until(lambda: b.state == "active" and a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
    assert lab.holds("b") and not lab.holds("a")


def test_kill_9_of_the_election_process_takes_the_vip_off_and_starts_another(
    lab: Lab, pair: tuple[Daemon, Daemon]
) -> None:
    a, _b = pair
    old = a.driver_pid()
    with lab.never_both():
        os.kill(old, signal.SIGKILL)
        until(lambda: lab.holds("b"), "b takes over")
        until(lambda: a.state == "backup" and a.driver_pid() not in (0, old), "a takes part again")
        until(lambda: a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
    assert not lab.holds("a")
    assert any("died, starting another one: exit status -9" in event for event in a.events)


def test_what_a_killed_node_left_behind_is_removed_at_its_return(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, _b = pair
    driver = a.driver_pid()
    os.kill(a.process.pid, signal.SIGSTOP)  # so that it cannot clean up after its child
    os.kill(driver, signal.SIGKILL)
    a.kill(signal.SIGKILL)
    until(lambda: lab.holds("b"), "b takes over")
    assert lab.holds("a")
    a = lab.daemon("a", GROUP)
    until(lambda: not lab.holds("a"), "the leftover is removed")
    until(lambda: a.state == "backup" and lab.client_reaches("b"), "the client reaches b")


def test_silent_isolation_is_taken_over_and_after_the_heal_one_is_left_and_reachable(
    lab: Lab, pair: tuple[Daemon, Daemon]
) -> None:
    a, _b = pair
    lab.isolate("a")
    until(lambda: lab.holds("b"), "b takes over")
    until(lambda: lab.client_reaches("b"), "the client reaches b")
    lab.heal("a")
    until(lambda: not lab.holds("b"), "the lower priority yields")
    until(lambda: lab.client_reaches("a"), "the client learns the winner")
    assert lab.holds("a") and a.state == "active"


def test_loss_of_carrier_releases_the_vip_and_its_return_does_not_take_it_back(
    lab: Lab, pair: tuple[Daemon, Daemon]
) -> None:
    a, _b = pair
    ip("-n", lab.net.ns("sw"), "link", "set", "to-a", "down")
    until(lambda: not lab.holds("a") and lab.holds("b"), "the VIP moves")
    until(lambda: a.problem == "interface front is down or has no carrier", "a says why")
    ip("-n", lab.net.ns("sw"), "link", "set", "to-a", "up")
    until(lambda: a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
    assert a.problem == "" and lab.holds("b") and not lab.holds("a")


def test_an_election_process_that_was_stopped_gives_way_when_it_runs_again(
    lab: Lab, pair: tuple[Daemon, Daemon]
) -> None:
    a, _b = pair
    driver = a.driver_pid()
    os.kill(driver, signal.SIGSTOP)
    until(lambda: lab.holds("b"), "b takes over")  # a's kernel answers on: what a data plane lease is for
    os.kill(driver, signal.SIGCONT)
    until(lambda: not lab.holds("a"), "a gives way")
    until(lambda: a.roles[-1]["active_address"] == "192.0.2.2", "a follows b")
    assert lab.holds("b") and "did not run for" in a.roles[-1]["reason"]


def test_a_hung_election_process_does_not_hold_up_the_stop_nor_keep_the_vip(
    lab: Lab, pair: tuple[Daemon, Daemon]
) -> None:
    a, _b = pair
    driver = a.driver_pid()
    os.kill(driver, signal.SIGSTOP)
    a.kill(signal.SIGTERM)
    assert not lab.holds("a") and not os.path.exists(f"/proc/{driver}")


def test_an_interface_that_vanishes_and_returns(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, _b = pair
    lab.net.run("a", "ip", "link", "del", "front")
    until(lambda: lab.holds("b"), "b takes over")
    until(lambda: "no interface" in a.problem, "a says why it takes no part")
    lab.net.plug("a", "front", "192.0.2.1/24", "sw", "to-a")
    until(lambda: a.roles[-1]["active_address"] == "192.0.2.2" and a.problem == "", "a follows b")
    assert lab.holds("b") and not lab.holds("a")


def test_a_sole_member_is_active_at_once_and_kill_9_and_restart_flap_nothing(lab: Lab) -> None:
    a = lab.daemon("a", ALONE)
    until(lambda: a.state == "active" and lab.holds("a"), "the sole member is active")
    assert "sole member" in a.roles[-1]["reason"]
    removals = lab.count_removals("a")
    a.kill(signal.SIGKILL)
    assert lab.holds("a")
    a = lab.daemon("a", ALONE)
    until(lambda: a.state == "active", "the next one adopts")
    os.kill(driver := a.driver_pid(), signal.SIGKILL)
    until(lambda: any("died" in event for event in a.events), "its process is started again")
    until(lambda: a.driver_pid() not in (0, driver) and a.problem == "" and a.state == "active", "and adopts")
    assert {role["state"] for role in a.roles} == {"initialize", "active"}
    assert [role["state"] for role in a.roles].index("active") == 1  # never back to initialize
    assert lab.holds("a") and removals() == 0
    a.kill(signal.SIGTERM)  # an upgrade: the pinned data plane goes on, and so does its address
    assert lab.holds("a") and removals() == 0


def test_reconfiguration_without_losing_the_role(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    removals, seen = lab.count_removals("a"), len(a.roles)
    more = replace(GROUP, addresses=(*GROUP.addresses, VipAddress(ip_address("192.0.2.11"), 24)), advert_interval_s=0.2)
    a.configure(more)
    until(lambda: lab.holds("a", "192.0.2.11"), "the address is added")
    until(lambda: "192.0.2.1 announces 192.0.2.10, 192.0.2.11" in b.problem, "b sees that its group differs")
    b.configure(more)
    until(lambda: b.problem == "", "the groups are equal")
    assert removals() == 0
    for daemon in (a, b):
        daemon.configure(replace(GROUP, priorities={"a": 100, "b": 150}))
    until(lambda: not lab.holds("a", "192.0.2.11"), "the address is removed")
    until(lambda: a.roles[-1]["priority"] == 100, "the priority is taken over")
    assert lab.holds("a") and {role["state"] for role in a.roles[seen:]} == {"active"}
    assert [event for event in b.events if "became active" in event] == []
    a.configure()
    until(lambda: not lab.holds("a") and lab.holds("b"), "a removed group moves to the peer")


def test_an_interface_that_comes_later_is_waited_for(lab: Lab) -> None:
    named = replace(ALONE, addresses=(VipAddress(ip_address("198.51.100.1"), 24, "back"), *ALONE.addresses))
    a = lab.daemon("a", named)
    until(lambda: "198.51.100.1: no interface back" in a.problem, "it says what is missing")
    until(lambda: lab.holds("a"), "the other address is served")
    lab.net.plug("a", "back", "198.51.100.2/24", "sw", "to-a-back")
    until(lambda: lab.holds("a", "198.51.100.1") and a.problem == "", "the address goes to the new interface")


def test_addresses_on_two_interfaces_move_together(lab: Lab) -> None:
    both = replace(GROUP, addresses=(*GROUP.addresses, VipAddress(ip_address("198.51.100.1"), 24)))
    for name, address in (("a", "198.51.100.2/24"), ("b", "198.51.100.3/24")):
        lab.net.plug(name, "back", address, "sw", f"to-{name}-back")
    lab.daemon("a", both)
    until(lambda: lab.holds("a") and lab.holds("a", "198.51.100.1"), "a holds both")
    b = lab.daemon("b", both)
    until(lambda: b.state == "backup", "b follows")
    ip("-n", lab.net.ns("sw"), "link", "set", "to-a-back", "down")  # not the interface VRRP runs on
    until(lambda: lab.holds("b") and lab.holds("b", "198.51.100.1"), "b holds both")
    assert not lab.holds("a") and not lab.holds("a", "198.51.100.1")
    until(lambda: b.problem == "", "b has no problem")


def test_two_groups_on_one_interface_move_on_their_own(lab: Lab) -> None:
    other = replace(GROUP, name="other", vrid=52, addresses=(VipAddress(ip_address("192.0.2.20"), 24),))
    a = lab.daemon("a", GROUP, other)
    until(lambda: lab.holds("a") and lab.holds("a", "192.0.2.20"), "a holds both")
    b = lab.daemon("b", GROUP, other)
    until(lambda: len({r["group"] for r in b.roles if r["active_address"] == "192.0.2.1"}) == 2, "b follows both")
    a.handover("other")
    until(lambda: lab.holds("b", "192.0.2.20"), "b takes the second")
    assert lab.holds("a") and not lab.holds("b") and not lab.holds("a", "192.0.2.20")


def test_a_vrid_used_twice_is_reported_and_the_first_group_works(lab: Lab) -> None:
    twin = replace(GROUP, name="twin", addresses=(VipAddress(ip_address("192.0.2.20"), 24),))
    a = lab.daemon("a", GROUP, twin)
    until(lambda: lab.holds("a"), "the first is served")
    until(lambda: any("VRID 51 is used by VIP group front" in role["problem"] for role in a.roles), "it is reported")
    assert not lab.holds("a", "192.0.2.20")


def test_a_vip_that_somebody_deletes_is_restored(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    removals = lab.count_removals("a")
    lab.net.run("a", "ip", "addr", "del", f"{VIP}/32", "dev", "front")
    until(lambda: lab.holds("a"), "it is put back")
    assert removals() == 1


def test_an_address_of_the_operator_is_never_taken_off(lab: Lab) -> None:
    lab.net.run("b", "ip", "addr", "add", f"{VIP}/24", "dev", "front")
    b = lab.daemon("b", GROUP)
    until(lambda: f"{VIP} was put on front by someone else" in b.problem, "the conflict is reported")
    b.kill(signal.SIGTERM)
    assert lab.holds("b")


def test_malformed_packets_are_counted_and_change_nothing(lab: Lab, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    rng = random.Random(1)
    good = encode(Advert(51, 255, 10, (IPv4Address(VIP),), IPv4Address("192.0.2.100")))
    broken = [good[:i] for i in range(len(good))]
    broken += [good[:i] + bytes([good[i] ^ 1 << rng.randrange(8)]) + good[i + 1 :] for i in range(len(good))]
    broken += [rng.randbytes(rng.randrange(60)) for _ in range(100)]
    broken.append(b"\x21" + good[1:])
    before = len(a.roles), len(b.roles)
    lab.send_raw(broken)
    for daemon in pair:
        until(lambda d=daemon: any("front dropped" in event for event in d.events), f"{daemon.name} counts them")
        until(lambda d=daemon: any("checksum is wrong" in event for event in d.events), f"{daemon.name} says why")
    assert (len(a.roles), len(b.roles)) == before
    assert lab.holds("a") and not lab.holds("b")
    a.handover("front")  # both still work
    until(lambda: lab.holds("b"), "a handover still works")


def test_the_own_address_of_another_node_as_a_vip_is_refused(lab: Lab) -> None:
    mistaken = replace(GROUP, addresses=(*GROUP.addresses, VipAddress(ip_address("192.0.2.2"), 24)))
    b = lab.daemon("b", mistaken)
    until(lambda: lab.holds("b"), "b becomes active alone")
    until(lambda: "ip addr del 192.0.2.2/24 dev front" in b.problem, "b says that its own address floats")
    a = lab.daemon("a", replace(mistaken, preempt=True))
    until(lambda: lab.holds("a") and not lab.holds("b"), "a takes over the rest")
    assert not lab.holds("a", "192.0.2.2") and lab.holds("b", "192.0.2.2")
    assert "192.0.2.2 is another router's own address" in a.problem


def test_both_families_move_as_one_and_ipv6_leftovers_are_removed(lab: Lab) -> None:
    a = lab.daemon("a", BOTH)
    until(lambda: lab.holds("a") and lab.holds("a", VIP6), "a becomes active")
    b = lab.daemon("b", BOTH)
    until(lambda: b.state == "backup" and lab.client_reaches("a", VIP6), "b follows, the client reaches a")
    assert (a.problem, b.problem) == ("", "")
    (held,) = [entry for entry in lab.addresses("a") if str(entry.address) == VIP6]
    assert (held.prefix_len, held.ours) == (128, True)
    driver = a.driver_pid()
    os.kill(a.process.pid, signal.SIGSTOP)  # so that it cannot clean up after its child
    os.kill(driver, signal.SIGKILL)
    a.kill(signal.SIGKILL)
    until(lambda: lab.holds("b", VIP6), "b takes over")
    assert lab.holds("a", VIP6)
    a = lab.daemon("a", BOTH)
    until(lambda: not lab.holds("a", VIP6) and not lab.holds("a", LINK_LOCAL_VIP), "the leftovers are removed")
    until(lambda: a.state == "backup" and lab.client_reaches("b", VIP6), "the client reaches b")


def test_nodes_with_one_key_elect_each_other_and_refuse_a_forged_advertisement(lab: Lab) -> None:
    setup = Setup({1: bytes(range(32))}, frozenset("ab"))
    a = lab.daemon("a", GROUP, setup=setup)
    until(lambda: lab.holds("a"), "a becomes active")
    b = lab.daemon("b", GROUP, setup=setup)
    until(lambda: b.state == "backup" and b.roles[-1]["active_address"] == "192.0.2.1", "b follows a")
    lab.send_raw([encode(Advert(51, 254, 10, (IPv4Address(VIP),), IPv4Address("192.0.2.100")))] * 3)
    for daemon in (a, b):
        until(lambda d=daemon: any("no authentication trailer" in event for event in d.events), "it is refused")
    assert lab.holds("a") and a.state == "active" and b.roles[-1]["active_address"] == "192.0.2.1"
    until(lambda: "192.0.2.100 uses VRID 51, too" in a.problem, "and an alarm")
    with lab.never_both():
        a.kill(signal.SIGTERM)
        until(lambda: lab.holds("b"), "a signed release is heard")


def test_a_thousand_addresses_move_and_every_one_is_announced(lab: Lab) -> None:
    vips = [ip_address("203.0.113.0") + n for n in range(1, 201)]
    vips += [ip_address("2001:db8:1::") + n for n in range(1, 801)]
    many = replace(GROUP, addresses=(*GROUP.addresses, *(VipAddress(vip, vip.max_prefixlen, "front") for vip in vips)))
    a = lab.daemon("a", many)
    until(lambda: len([e for e in lab.addresses("a") if e.ours]) == 1001, "a holds all")
    b = lab.daemon("b", many)
    until(lambda: b.state == "backup", "b follows")
    heard = lab.count_announcements()
    a.kill(signal.SIGTERM)
    until(lambda: len([e for e in lab.addresses("b") if e.ours]) == 1001, "b holds all")
    assert not [e for e in lab.addresses("a") if e.ours]
    until(lambda: set(vips) <= heard(), "the client hears an announcement of each")
    assert {role["state"] for role in b.roles[-2:]} <= {"backup", "active"} and b.problem == ""
    assert not any("did not run" in event for event in (*a.events, *b.events))
