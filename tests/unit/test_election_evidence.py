"""What a node concludes from everything it hears about one VIP group."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbnode.election.heartbeat import Beat, Conversation
from lbnode.election.machine import Machine
from lbnode.election.member import Member
from lbnode.election.messages import Setup
from lbnode.election.packet import Advert
from lbnode.election.router import VirtualRouter
from lbnode.model import VipAddress, VipGroup

VIP, OURS, THEIRS, GATEWAY = (ip_address(f"192.0.2.{n}") for n in (10, 1, 2, 254))
GROUP = VipGroup("front", 51, (VipAddress(VIP, 24),), {"a": 200, "b": 100})
I = 100_000_000  # noqa: E741 - Advertisement_Interval, ns
T0 = 10**12
BEAT = Beat("front", "b", THEIRS, False, True, False, 100, 0, 22, 1, (0, 0), b"")


def active_member() -> Member:
    """Node a, Active and owner with epoch 3, in conversation with b."""
    member = Member(GROUP, "a", Setup())
    member.machine = Machine(VirtualRouter(51, 200, 10, (VIP,), OURS, peers=(100,)))
    member.machine.start(T0 - 100 * I)
    member.machine.handle_timer(member.machine.get_timer() or 0)
    member.machine.epoch = 3
    member.conversations = {"b": Conversation(11, T0 - 100 * I)}
    member.ownership.store = True
    return member


def hear(member: Member, now: int, *, active: bool, gateway: bool = False) -> None:
    """A heartbeat of b that answers one of ours."""
    talk = member.conversations["b"]
    echo = talk.next(now)[:2]
    talk.receive(replace(BEAT, active=active, gateway=gateway, sequence=now, echo=echo), now, member.patience)


def test_an_active_gives_up_when_the_store_names_a_node_that_says_it_is_active_as_well() -> None:
    member = active_member()
    hear(member, T0, active=True)
    member.ownership.name("b", 4, T0)
    assert member.refuses_to_hold(T0 + I) == ""  # b has the time to say otherwise
    hear(member, T0 + I, active=True)
    assert "etcd names b" in member.refuses_to_hold(T0 + 2 * I)


def test_a_claim_that_came_after_its_node_had_yielded_fences_nobody() -> None:
    member = active_member()
    hear(member, T0, active=True)
    member.ownership.name("b", 4, T0)
    hear(member, T0 + I, active=False)
    assert member.outdated_owner(T0 + I) and member.refuses_to_hold(T0 + 2 * I) == ""


def test_what_a_node_said_before_it_was_named_proves_nothing() -> None:
    member = active_member()
    hear(member, T0 - I, active=False)
    member.ownership.name("b", 4, T0)
    assert not member.outdated_owner(T0 + I)
    assert "etcd names b" in member.refuses_to_hold(T0 + 2 * I)


def test_an_owner_vouches_for_itself_by_the_gateways_answer_to_a_question_asked_now() -> None:
    member = active_member()
    member.gateways.configure([GATEWAY], I, T0 - 100 * I)
    member.gateways.heard(GATEWAY, b"", T0 - 1)
    member.questioned_at = T0
    assert not member.vouches(T0 + 1)  # it may have been cut off a moment ago
    member.gateways.heard(GATEWAY, b"", T0 + 2)
    assert member.vouches(T0 + 3)


def test_an_owner_that_hears_members_but_not_the_gateway_does_not_vouch() -> None:
    """They may be cut off from the clients together; the node that asks may be where the clients are."""
    member = active_member()
    member.gateways.configure([GATEWAY], I, T0 - 100 * I)
    hear(member, T0 - I // 2, active=False)
    member.questioned_at = T0
    assert member.refuses_to_hold(T0 + 1) == "" and not member.vouches(T0 + 1)


@pytest.mark.parametrize("answers", [True, False])
def test_an_active_that_would_give_up_for_the_gateway_asks_it_once_more(answers: bool) -> None:
    """At short intervals what it knows may be ten of them old, and the gateway back."""
    member = active_member()
    member.gateways.configure([GATEWAY], I, T0 - 100 * I)
    member.gateways.questions(T0 - 5 * I)
    hear(member, T0, active=False, gateway=True)
    assert "the gateway answers b" in member.refuses_to_hold(T0) and member.gives_up(T0) == ""
    assert member.gateways.questions(T0) == [(GATEWAY, b"")]
    if answers:
        member.gateways.heard(GATEWAY, b"", T0 + 1)
    assert ("the gateway answers b" in member.gives_up(T0 + I)) is not answers


def test_a_backup_vouches_for_nothing() -> None:
    member = active_member()
    assert member.machine is not None
    member.machine.stop(T0, "test")
    assert not member.vouches(T0)


def test_a_claim_of_a_moment_ago_is_a_sign_of_life_of_an_owner_that_is_not_heard() -> None:
    """Else both sides of a split LAN take over in turn: whoever is fenced releases the group to its own side."""
    member = Member(GROUP, "a", Setup())
    member.machine = Machine(VirtualRouter(51, 200, 10, (VIP,), OURS, peers=(100,)))
    member.machine.start(T0 - 100 * I)
    member.conversations = {"b": Conversation(11, T0 - 100 * I)}
    member.ownership.store = True
    member.ownership.name("b", 4, T0)
    assert "b is active and answers through etcd" in member.refuses_takeover(T0 + I)
    assert "answers" not in member.refuses_takeover(T0 + 4 * I)


def test_a_claim_of_the_active_that_is_silent_now_was_told_late() -> None:
    """It wrote the claim when it took over, and was heard since; its node may have lost its power."""
    member = Member(GROUP, "a", Setup())
    member.machine = Machine(VirtualRouter(51, 200, 10, (VIP,), OURS, peers=(100,)))
    member.machine.start(T0 - 100 * I)
    member.conversations = {"b": Conversation(11, T0 - 100 * I)}
    hear(member, T0 - 4 * I, active=True)
    member.machine.receive(Advert(51, 100, 10, (VIP,), THEIRS), T0 - 4 * I)
    member.ownership.store = True
    member.ownership.name("b", 4, T0)
    assert member.refuses_takeover(T0 + I) == ""


def test_who_is_heard_again_may_have_heard_another_active_meanwhile() -> None:
    member = active_member()
    hear(member, T0, active=False)
    assert member.regains_contact(T0) and not member.regains_contact(T0 + I)
    assert not member.regains_contact(T0 + 10 * I)  # silent
    hear(member, T0 + 11 * I, active=False)
    assert member.regains_contact(T0 + 11 * I)


def test_another_active_that_answers_for_our_addresses_is_a_contact_once_and_an_alarm() -> None:
    member = active_member()
    member.conversations.clear()  # keepalived: no heartbeats
    assert member.looks_for_rivals and not member.regains_contact(T0)
    member.rival = bytes(6), T0 + I
    assert member.regains_contact(T0 + I)
    member.rival = bytes(6), T0 + 2 * I
    assert not member.regains_contact(T0 + 2 * I)
    assert member.alarms(T0 + 2 * I) == ["00:00:00:00:00:00 answers for our addresses, too"]
    assert not member.alarms(T0 + 6 * I)


def test_who_sends_heartbeats_is_not_looked_for_by_other_ways() -> None:
    assert not active_member().looks_for_rivals
