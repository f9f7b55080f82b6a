"""This node's VIP groups: each is made to fit its configuration and the interfaces there are.

Started where it can run, stopped where it cannot any more, resumed if the process before held it; what is left over is
removed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lbnode.election.actions import Actions, now_ns
from lbnode.election.dual import DualPath
from lbnode.election.machine import Machine
from lbnode.election.member import Member, why_unauthenticated
from lbnode.election.messages import Setup
from lbnode.election.placement import Place, Placement, place
from lbnode.errors import DataPlaneError
from lbnode.model import Address, VipGroup

SCAN_PAUSE = 50_000_000  # ns between two looks at the interfaces, however many notifications come
RETRY_SCAN = 1_000_000_000  # ns until the next look when something is amiss that netlink will not tell about


class Groups:
    """members: by the group's name. scan_at: ns, when to look at the interfaces next; None: when something changes."""

    def __init__(
        self, node: str, members: dict[str, Member], actions: Actions, taken: set[Address], warn: Callable[[str], None]
    ) -> None:
        """taken: addresses that another router has. warn: puts a text into the journal."""
        self.members = members
        self.setup = Setup()
        self.maintenance = False  # nothing is held here that another node could hold
        self.store: bool | None = None  # whether the shared store answers; None: there is none
        self.held: dict[str, Any] = {}  # of the process before, and not resumed yet
        self.configured = False
        self.scan_at: int | None = None
        self._scanned_at = 0
        self._node = node
        self._actions = actions
        self._vips = actions.vips
        self._taken = taken
        self._warn = warn
        self._notes: dict[str, str] = {}  # by group, what was said about its authentication

    def scan_soon(self) -> None:
        self.scan_at = min(self.scan_at or 1 << 62, self._scanned_at + SCAN_PAUSE)

    def is_due(self) -> bool:
        if self._vips.interfaces.listing:  # when it is there, it leads here again
            self.scan_at = None
        return self.scan_at is not None and now_ns() >= self.scan_at and not self._vips.claiming

    def scan_after_work(self) -> None:
        """The worker has done something: what is next?"""
        failed = self._vips.macvlans.failed or self._vips.interfaces.outdated
        self.scan_at = min(self.scan_at or 1 << 62, now_ns() + (RETRY_SCAN if failed else 0))

    def configure(self, groups: list[VipGroup]) -> None:
        if not self.configured:  # not before: the process before this one hears the heartbeats until it abdicates
            self._actions.dual = DualPath(self.setup, self._node)
            if self._actions.dual.problem:
                self._warn(self._actions.dual.problem)
        self.configured = True
        self._taken.clear()
        wanted = {group.name: group for group in groups if self._node in group.priorities}
        for name in self.members.keys() - wanted.keys():
            self.stop(self.members.pop(name), "removed from the configuration")
        for name, group in wanted.items():
            member = self.members.get(name)
            if member is None:
                self.members[name] = member = Member(group, self._node, self.setup)
                member.ownership.store = self.store
                continue
            if member.group.vrid != group.vrid:
                self.stop(member, f"the VRID changed to {group.vrid}")
            member.reconfigure(group, self._node, self.setup)
        for member in self.members.values():
            self._actions.dual.converse(member, now_ns())
            why = why_unauthenticated(member.group, self.setup)
            if why and self._notes.get(member.name) != why:
                self._warn(f"advertisements of VIP group {member.name} are not authenticated: {why}")
            self._notes[member.name] = why
        self.scan_at = now_ns()

    def scan(self) -> None:
        """Look at the interfaces and make every group fit to them: start, stop, restore, remove what is left over."""
        self._scanned_at, self.scan_at = now_ns(), None
        if self._vips.interfaces.outdated:
            self._vips.scan_later()
            return
        for member in self.members.values():
            self._fit(member)
        if self.configured:
            self._vips.keep([place for one in self.members.values() for place in one.placement.places], self._held())
        self._actions.close_sockets(self.members.values())

    def _held(self) -> list[Place]:
        return [place for member in self.members.values() if member.active for place in member.placement.places]

    def _fit(self, member: Member) -> None:
        was_running = member.placement.running
        placement = place(member.group, self._vips.links, self._vips.present, sole=not member.peers, taken=self._taken)
        clash = self._clash(member, placement)
        able = placement.link is not None and (placement.running or not member.peers) and not clash
        member.weigh(self._vips.links.values(), now_ns())
        resting = "maintenance" if self.maintenance and member.peers else ""
        able = able and not member.authentication_problem and not member.fault and not resting
        moved = (
            member.started
            and placement.link != member.placement.link
            and (
                placement.link is None
                or member.placement.link is None
                or placement.link.index != member.placement.link.index
            )
        )
        if member.machine is not None and member.started and (not able or moved):
            problems = [resting, *placement.problems, clash, member.authentication_problem, member.fault]
            member.machine.stop(now_ns(), "; ".join(filter(None, problems)) or "its interface changed")
            self._actions.perform(member)
        member.placement = placement
        member.other_problems = (clash,) if clash else ()
        if not able:
            return
        member.configure_endpoint(now_ns())
        if not self._actions.open_sockets(member):
            self.scan_at = self._scanned_at + RETRY_SCAN
            return
        now = now_ns()
        if member.machine is None or not member.started:
            member.machine = Machine(member.router())
            member.machine.name_of = member.name_of
            self._start(member, now)
        elif member.machine.router != member.router():
            member.machine.reconfigure(member.router(), now)
        serving = member.machine.serving
        if serving and (self._vips.claim(placement.places, now) or (placement.running and not was_running)):
            member.machine.announce(now)
        self._actions.perform(member)

    def _start(self, member: Member, now: int) -> None:
        assert member.machine is not None
        held = self.held.pop(member.name, None)
        if held is None or held["vrid"] != member.group.vrid:
            member.machine.start(now)
            return
        member.machine.resume(now, held["reason"], held["sent_at"], held.get("dark_after"))
        self._actions.perform(member)
        if member.active:
            member.since = held["since"]

    def _clash(self, member: Member, placement: Placement) -> str:
        for other in self.members.values():
            if other.name == member.name:
                break
            link = other.placement.link
            same_link = link is not None and placement.link is not None and link.index == placement.link.index
            families = {source.version for source in placement.sources}
            same_family = not families.isdisjoint(source.version for source in other.placement.sources)
            if same_link and same_family and other.group.vrid == member.group.vrid:
                return f"VRID {member.group.vrid} is used by VIP group {other.name} on the same interface"
        return ""

    def stop(self, member: Member, reason: str) -> None:
        if member.machine is not None:
            member.machine.stop(now_ns(), reason)
            self._actions.perform(member)

    def leave(self, reason: str) -> None:
        """Release the groups that have other members; what a sole member holds stays."""
        for member in self.members.values():
            if member.peers:
                self.stop(member, reason)
        self._vips.worker.finish()
        if self.configured:
            with suppress(DataPlaneError):  # what was made last
                self._vips.scan()
            self._vips.keep(self._held(), self._held())
            self._vips.worker.finish()
