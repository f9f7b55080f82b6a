"""One VIP group on this node, as the driver keeps it: configuration, machine, place, and what to tell about it."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

from lbnode.election.machine import Machine, VirtualRouter
from lbnode.election.placement import Placement
from lbnode.model import Role, VipGroup, VrrpState


class Member:
    """One VIP group on this node."""

    def __init__(self, group: VipGroup, node: str) -> None:
        self.name = group.name
        self.reconfigure(group, node)
        self.machine: Machine | None = None
        self.placement = Placement(None, None, (), False, ())
        self.since = time.time()
        self.reason = "starting"
        self.send_problem = ""
        self.other_problems: tuple[str, ...] = ()
        self.reported: Role | None = None

    def reconfigure(self, group: VipGroup, node: str) -> None:
        self.group = group
        self.priority = group.priorities[node]
        self.peers = tuple(priority for name, priority in group.priorities.items() if name != node)
        self.addresses = frozenset(vip.address for vip in group.addresses if isinstance(vip.address, IPv4Address))

    @property
    def active(self) -> bool:
        return self.machine is not None and self.machine.state is VrrpState.ACTIVE

    @property
    def started(self) -> bool:
        return self.machine is not None and self.machine.state is not VrrpState.INITIALIZE

    def router(self) -> VirtualRouter:
        assert self.placement.source is not None
        interval_cs = max(1, round(self.group.advert_interval_s * 100))
        group, placement = self.group, self.placement
        return VirtualRouter(
            group.vrid,
            self.priority,
            interval_cs,
            placement.advertised,
            self.placement.source,
            group.preempt,
            self.peers,
        )

    def role(self) -> Role:
        machine = self.machine
        problems = [*self.placement.problems, *self.other_problems, self.send_problem, machine.alarm if machine else ""]
        return Role(
            self.name,
            machine.state if machine else VrrpState.INITIALIZE,
            self.priority,
            self.since,
            self.reason,
            machine.active_address if machine else None,
            "; ".join(problem for problem in problems if problem),
        )
