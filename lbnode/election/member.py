"""One VIP group on this node, as the driver keeps it: configuration, machine, place, and what to tell about it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from lbnode.election.authentication import OFF, Authentication, Mode
from lbnode.election.endpoint import Endpoint, Style
from lbnode.election.machine import Machine, VirtualRouter
from lbnode.election.messages import Setup
from lbnode.election.packet import ChecksumForm
from lbnode.election.placement import NOWHERE
from lbnode.model import Role, VipGroup, VrrpState


class Member:
    """One VIP group on this node."""

    def __init__(self, group: VipGroup, node: str, setup: Setup) -> None:
        self.name = group.name
        self.reconfigure(group, node, setup)
        self.machine: Machine | None = None
        self.endpoint = Endpoint()
        self.placement = NOWHERE
        self.since = time.time()
        self.reason = "starting"
        self.send_problem = ""
        self.was_sent = False  # the last advertisement, by one way at least
        self.other_problems: tuple[str, ...] = ()
        self.reported: Role | None = None

    def reconfigure(self, group: VipGroup, node: str, setup: Setup) -> None:
        self.group = group
        self.authentication, self.authentication_problem = authentication_for(group, setup)
        self.priority = group.priorities[node]
        self.peers = tuple(priority for name, priority in group.priorities.items() if name != node)
        self.addresses = frozenset(vip.address for vip in group.addresses)

    @property
    def active(self) -> bool:
        return self.machine is not None and self.machine.state is VrrpState.ACTIVE

    @property
    def started(self) -> bool:
        return self.machine is not None and self.machine.state is not VrrpState.INITIALIZE

    def speaks_on(self, index: int, version: int) -> bool:
        link = self.placement.link
        return link is not None and link.index == index and any(s.version == version for s in self.placement.sources)

    def router(self) -> VirtualRouter:
        """For the machine; the placement has sources."""
        group, (source, *second) = self.group, self.placement.sources
        return VirtualRouter(
            group.vrid,
            self.priority,
            self._interval_cs,
            self.placement.advertised,
            source,
            group.preempt,
            self.peers,
            second[0] if second else None,
        )

    def configure_endpoint(self) -> None:
        group = self.group
        form = None if group.checksum == "auto" else ChecksumForm(group.checksum)
        style = Style(group.version, form, group.unicast_peers, self.authentication)
        self.endpoint.configure(group.vrid, self._interval_cs, self.placement.speakers, style)

    @property
    def _interval_cs(self) -> int:
        return max(1, round(self.group.advert_interval_s * 100))

    def role(self, address_problems: Iterable[str]) -> Role:
        machine = self.machine
        problems = [
            *address_problems,
            *self.placement.problems,
            *self.other_problems,
            self.send_problem,
            self.authentication_problem,
        ]
        problems += [machine.alarm if machine else "", self.endpoint.alarm]
        return Role(
            self.name,
            machine.state if machine else VrrpState.INITIALIZE,
            self.priority,
            self.since,
            self.reason,
            machine.active_address if machine else None,
            "; ".join(problem for problem in problems if problem),
        )


def authentication_for(group: VipGroup, setup: Setup) -> tuple[Authentication, str]:
    """What the group demands, and why it cannot be had.

    "auto" is on where every member has our keys, and then asks for no common clock: see Authentication.fresh.
    """
    send_key = next(iter(setup.keys), 0)
    if group.authentication == "auto":
        if not setup.keys or len(group.priorities) < 2 or not setup.nodes.issuperset(group.priorities):
            return OFF, ""
        return Authentication(Mode.ENFORCE, setup.keys, send_key), ""
    mode = Mode(group.authentication)
    if mode is not Mode.OFF and not setup.keys:
        return OFF, f"authentication is {mode}, but node.toml has no keys: set [election] keys_file, or [sync] key_file"
    return Authentication(mode, setup.keys, send_key, fresh=True), ""
