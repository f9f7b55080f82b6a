"""Deliberate bugs. A simulation that does not find each of them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from lbnode.election import machine
from lbnode.election.events import Input
from lbnode.election.heartbeat import Conversation
from lbnode.election.machine import Machine
from lbnode.election.member import Member
from lbnode.election.packet import RELEASE_PRIORITY, Advert
from lbnode.election.router import VirtualRouter
from lbnode.model import VrrpState
from tests.sim.election.process import ElectionProcess

Patch = pytest.MonkeyPatch


def lease_of_four_intervals(patch: Patch) -> None:
    patch.setattr(VirtualRouter, "dark_after", property(lambda router: 4 * router.interval))


def no_socket_drain(patch: Patch) -> None:
    """The timer first, then what was heard."""
    patch.setattr(ElectionProcess, "drains", False)


def no_announcement_on_contact(patch: Patch) -> None:
    def assert_role(self: Machine, now: int, _reason: str, _: Advert | None) -> None:
        self._advertise_now(now)

    for kind in (Input.EQUAL, Input.INFERIOR):
        patch.setitem(machine.TRANSITIONS, (VrrpState.ACTIVE, kind), assert_role)


def loser_says_nothing(patch: Patch) -> None:
    """keepalived's default: whoever yields does so without a last advertisement."""

    def yield_role(self: Machine, now: int, reason: str, advert: Advert | None) -> None:
        self._withdraw()
        self._become_backup(now, reason)
        self._follow(now, reason, advert)

    patch.setitem(machine.TRANSITIONS, (VrrpState.ACTIVE, Input.SUPERIOR), yield_role)


def inverted_tie_rule(patch: Patch) -> None:
    def classify(self: VirtualRouter, advert: Advert) -> Input:
        if advert.priority == RELEASE_PRIORITY:
            return Input.RELEASE
        if advert.priority == self.priority:
            return Input.SUPERIOR if advert.source < self.source else Input.EQUAL
        return Input.SUPERIOR if advert.priority > self.priority else Input.INFERIOR

    patch.setattr(VirtualRouter, "classify", classify)


def two_intervals_of_patience(patch: Patch) -> None:
    patch.setattr(Machine, "_down_interval", lambda self: 2 * self._active_interval + self._skew_time())


def holds_on_without_gateway(patch: Patch) -> None:
    patch.setattr(Member, "gives_up", lambda _member, _now: "")


def does_not_care_who_hears_it(patch: Patch) -> None:
    patch.setattr(Conversation, "is_deaf", lambda _conversation, _now, _within: False)


def heir_starts_anew(patch: Patch) -> None:
    patch.setattr(Machine, "resume", lambda machine, now, reason, *_: machine.start(now, reason))


def heir_counts_in_its_own_interval(patch: Patch) -> None:
    resume = Machine.resume
    patch.setattr(Machine, "resume", lambda machine, now, reason, sent_at, _: resume(machine, now, reason, sent_at))


def preempts_without_waiting(patch: Patch) -> None:
    """Serves while the other one has not yielded yet: too short for the profiles' figures."""

    def take_over(self: Machine, now: int, reason: str, advert: Advert | None) -> None:
        self._take_over(now, reason, advert)
        if not self.serving:
            self._serve(now)

    patch.setitem(machine.TRANSITIONS, (VrrpState.BACKUP, Input.TIMER), take_over)


# Each with the profile that is to catch it.
MUTANTS: Mapping[str, tuple[Callable[[Patch], None], str]] = {
    "lease of 4 intervals": (lease_of_four_intervals, "local"),
    "no socket drain": (no_socket_drain, "local"),
    "no announcement on contact": (no_announcement_on_contact, "isolation"),
    "loser says nothing": (loser_says_nothing, "isolation"),
    "tie rule inverted": (inverted_tie_rule, "isolation"),
    "two intervals of patience": (two_intervals_of_patience, "local"),
    "holds on without the gateway": (holds_on_without_gateway, "2-lan"),
    "does not care who hears it": (does_not_care_who_hears_it, "2-one-way-both"),
    "heir starts anew": (heir_starts_anew, "2-upgrade"),
    "heir counts in its own interval": (heir_counts_in_its_own_interval, "2-changes"),
}
