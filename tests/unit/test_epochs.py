"""Epochs of VIP groups: whose connection records count."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lbnode.epochs import HOLD_S, Epochs, Kept, Label
from lbnode.model import Role, VipAddress, VipGroup, VrrpState

GROUP = "front"


def roles(state: VrrpState, epoch: int = 0) -> dict[str, Role]:
    return {GROUP: Role(GROUP, state, 100, 0.0, "test", epoch=epoch)}


ACTIVE, BACKUP = roles(VrrpState.ACTIVE), roles(VrrpState.BACKUP)


def node(policy: str = "availability", newest: int = 0, table: int = 0) -> Epochs:
    epochs = Epochs({GROUP: Kept(newest, table)})
    epochs.set_groups([VipGroup(GROUP, 51, (VipAddress(ip_address("192.0.2.10"), 24),), {"gw1": 100}, policy=policy)])
    return epochs


def test_records_of_an_older_epoch_are_refused_and_the_reason_names_both() -> None:
    epochs = node(newest=6)
    assert epochs.refusal(GROUP, Label(5), 0.0) == "of epoch 5, the group has had epoch 6 since"
    assert epochs.refusal(GROUP, Label(6), 0.0) == epochs.refusal(GROUP, Label(7), 0.0) == ""


def test_what_is_taken_raises_the_fence_as_the_store_does() -> None:
    epochs = node()
    epochs.take(GROUP, Label(3))
    assert epochs.refusal(GROUP, Label(2), 0.0) != ""
    epochs.see(GROUP, 4)
    assert epochs.refusal(GROUP, Label(3), 0.0) != ""
    epochs.see(GROUP, 1)  # an older view of the store
    assert epochs.newest(GROUP) == 4


def test_an_active_that_was_overtaken_sends_under_its_own_epoch_until_its_last_changes_are_sent() -> None:
    epochs = node()
    epochs.take_roles(roles(VrrpState.ACTIVE, 5), 0.0)
    epochs.see(GROUP, 6)
    epochs.take(GROUP, Label(6))
    assert epochs.label(GROUP) == (5, True)
    epochs.take_roles(BACKUP, 1.0)
    epochs.take(GROUP, Label(6))
    assert epochs.label(GROUP) == (5, True)
    epochs.all_sent(epochs.given_up())
    assert epochs.label(GROUP) == (5, True)  # it has taken nothing since
    epochs.take(GROUP, Label(6))
    assert epochs.label(GROUP) == (6, True)


def test_changes_are_of_the_group_that_was_given_up_before_they_were_collected() -> None:
    epochs = node()
    epochs.take_roles(roles(VrrpState.ACTIVE, 5), 0.0)
    given_up = epochs.given_up()  # none: it is collected now
    epochs.take_roles(BACKUP, 1.0)
    epochs.all_sent(given_up)
    epochs.take(GROUP, Label(6))
    assert epochs.label(GROUP) == (5, True)


def test_whoever_takes_over_waits_a_moment_for_its_epoch() -> None:
    epochs = node(newest=5)
    epochs.take_roles(ACTIVE, 10.0)
    assert epochs.holds(10.0) and epochs.holds(10.0 + HOLD_S / 2) and not epochs.holds(10.0 + HOLD_S)
    assert epochs.label(GROUP) == (5, False)
    epochs.take_roles(roles(VrrpState.ACTIVE, 6), 10.1)
    assert not epochs.holds(10.1) and epochs.label(GROUP) == (6, True)
    epochs.take_roles(ACTIVE, 20.0)  # another election process: what was confirmed was the former one's
    assert epochs.holds(20.1) and epochs.label(GROUP) == (6, False)


@pytest.mark.parametrize(("policy", "taken"), [("availability", True), ("consistency", False)])
def test_a_takeover_that_the_store_has_not_confirmed(policy: str, taken: bool) -> None:
    """etcd is away. Node b takes over from a, of epoch 5; c is a third node."""
    a, b, c = (node(policy, newest=5, table=5) for _ in "abc")
    a.take_roles(roles(VrrpState.ACTIVE, 5), 0.0)
    b.take_roles(ACTIVE, 0.0)
    now = HOLD_S
    assert b.label(GROUP) == (5, False) and a.label(GROUP) == (5, True)
    assert (c.refusal(GROUP, b.label(GROUP), now) == "") is taken
    assert (b.refusal(GROUP, a.label(GROUP), now) == "") is taken
    assert c.refusal(GROUP, a.label(GROUP), now) == "", "a is the last one that is known to own the group"
    assert b.refusal(GROUP, a.label(GROUP), now / 2) == "", "a may have handed over a moment ago"
    b.take_roles(roles(VrrpState.ACTIVE, 6), 1.0)  # etcd is back
    for other in (a, c):
        assert other.refusal(GROUP, b.label(GROUP), 1.0) == ""
        other.take(GROUP, b.label(GROUP))
    assert c.refusal(GROUP, a.label(GROUP), 1.0) != "" != b.refusal(GROUP, a.label(GROUP), 1.0)


@pytest.mark.parametrize("policy", ["availability", "consistency"])
def test_while_no_epoch_has_ever_been_known_everything_is_taken(policy: str) -> None:
    a, b = node(policy), node(policy)
    a.take_roles(ACTIVE, 0.0)
    assert b.refusal(GROUP, a.label(GROUP), 1.0) == a.refusal(GROUP, b.label(GROUP), 1.0) == ""


def test_without_a_shared_store_nothing_is_fenced_and_nothing_waits() -> None:
    epochs = Epochs()
    epochs.take(GROUP, Label(5))
    epochs.take_roles(ACTIVE, 0.0)
    assert not epochs.holds(0.0) and epochs.refusal(GROUP, Label(0, confirmed=False), 0.0) == ""


def test_a_node_that_comes_back_while_no_store_answers_goes_on_from_the_highest_epoch_it_has_seen() -> None:
    before = node()
    before.take_roles(roles(VrrpState.ACTIVE, 5), 0.0)
    before.see(GROUP, 6)
    back = Epochs(before.kept())
    assert back.label(GROUP) == (5, True), "its table is older, it has not seen a record of epoch 6"
    assert back.refusal(GROUP, Label(5), 0.0) != ""
    back.take_roles(ACTIVE, 1.0)
    assert back.label(GROUP) == (6, False)
    assert back.kept() == {GROUP: Kept(6, 6)}


def test_addresses_name_their_group_and_groups_without_an_epoch_are_not_kept() -> None:
    epochs = node()
    assert epochs.group_of == {ip_address("192.0.2.10"): GROUP}
    assert epochs.label("") == (0, True) and epochs.refusal("", Label(), 0.0) == ""
    assert epochs.kept() == {}


class Ownerships(RuleBasedStateMachine):
    """Two nodes, a store that counts owners, and tables: of which epoch is the newest change in each of them?

    Each owner changes connections under its epoch. A change that came after another node's is never overwritten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes = [node(), node()]
        self.epoch = 0
        self.owner: int | None = None  # by the store
        self.active = [False, False]  # also one that does not know yet that it was overtaken
        self.unsent: list[list[int]] = [[], []]  # true epochs of changes that the kernel has queued
        self.flying: list[tuple[int, Label, int]] = []  # (to, label, true epoch)

    @rule(number=st.integers(0, 1))
    def take_over(self, number: int) -> None:
        """With a store that answers at once; the other one may be paused, and goes on believing what it did.

        Whoever has given the group up collects its last changes at once, long before it could take over again.
        """
        if self.active[number] or self.unsent[number]:
            return
        self.now += 10
        self.epoch, self.owner, self.active[number] = self.epoch + 1, number, True
        self.nodes[number].take_roles(ACTIVE, self.now)
        self.nodes[number].see(GROUP, self.epoch)
        self.nodes[number].take_roles(roles(VrrpState.ACTIVE, self.epoch), self.now)

    @precondition(lambda self: self.owner is not None)
    @rule(number=st.integers(0, 1))
    def find_out(self, number: int) -> None:
        """A node learns who owns the group."""
        if number != self.owner:
            self.active[number] = False
            self.nodes[number].see(GROUP, self.epoch)
            self.nodes[number].take_roles(BACKUP, self.now)

    @rule(number=st.integers(0, 1))
    def change(self, number: int) -> None:
        """A packet of a connection; the kernel's lease lets it through while the node is Active."""
        if self.active[number]:
            self.unsent[number].append(self.nodes[number].label(GROUP).epoch)

    @rule(number=st.integers(0, 1))
    def collect(self, number: int) -> None:
        sender = self.nodes[number]
        given_up = sender.given_up()
        self.flying += [(1 - number, sender.label(GROUP), true) for true in self.unsent[number]]
        self.unsent[number] = []
        sender.all_sent(given_up)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """In any order: the datagrams of a paused node may be late by any time."""
        to, label, true = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        receiver = self.nodes[to]
        known = receiver.newest(GROUP)
        if receiver.refusal(GROUP, label, self.now) == "":
            assert true >= known, f"a change of epoch {true} was taken by a node that knew of {known}"
            receiver.take(GROUP, label)
        else:
            assert label.epoch < known, "nothing else is refused while the store answers"

    @invariant()
    def no_label_is_newer_than_what_it_stands_for(self) -> None:
        for _, label, true in self.flying:
            assert label.epoch == true

    @invariant()
    def the_owner_is_never_fenced(self) -> None:
        if self.owner is not None:
            label = self.nodes[self.owner].label(GROUP)
            assert label == (self.epoch, True)
            assert self.nodes[1 - self.owner].refusal(GROUP, label, self.now) == ""


TestOwnerships = Ownerships.TestCase


@given(st.lists(st.tuples(st.sampled_from(["see", "take"]), st.integers(0, 9)), max_size=30))
def test_the_highest_epoch_seen_never_goes_back(events: list[tuple[str, int]]) -> None:
    epochs, highest = node(), 0
    for what, epoch in events:
        if what == "see":
            epochs.see(GROUP, epoch)
        elif epochs.refusal(GROUP, Label(epoch), 0.0) == "":
            epochs.take(GROUP, Label(epoch))
        highest = max(highest, epoch)
        assert epochs.newest(GROUP) == highest
        assert Epochs(epochs.kept()).newest(GROUP) == highest
