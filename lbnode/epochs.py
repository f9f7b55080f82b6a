"""Epochs of VIP groups: which connection records are of a group's present owner, and which of an earlier one. Pure.

The shared store counts the changes of a group's owner (see lbnode.ownership). A gateway that was paused or cut off
while another took its group over still has records to send: what it saw last looks new to whoever gets it late. So
every record carries the epoch of the table that it comes from, and whoever knows of a later one refuses it.

- A node's table is of the epoch in which the node owned the group last, or of the latest one that it has taken records
  of while it did not serve the group. So what an Active sends when it has been overtaken is of its own, older epoch;
  also after it has noticed that, until its last changes are sent.
- Whoever takes a group over does not know its epoch until the store has written it. For HOLD_S nothing is sent then. If
  the store has not answered by that time, the records carry the epoch that the group was taken over from, unconfirmed.
- What an unconfirmed epoch is worth is a matter of the group's policy, as it is in the election (see election.fence).
  `availability` takes such records: one connection that is doubtful harms less than all that are lost. `consistency`
  refuses them until the store has answered, and so does a node that has taken over, and is unconfirmed itself, refuse
  those of the epoch that it took over from: two Actives translate one connection differently.
- Where no store is shared, or none has ever answered, all epochs are 0, and the last writer wins.

Of two records with an epoch that counts, the last writer wins as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lbnode.model import Address, Role, VipGroup, VrrpState

HOLD_S = 0.5  # etcd writes an owner within some milliseconds, or something is wrong with it


class Label(NamedTuple):
    """How old a connection record's table is. Not `confirmed`: of an Active that the store has not named owner yet."""

    epoch: int = 0
    confirmed: bool = True


class Kept(NamedTuple):
    """What is remembered of a group when everything stops. `newest`: the highest epoch that was seen; `table`: the one
    that this node's connections are of."""

    newest: int = 0
    table: int = 0


@dataclass(slots=True)
class _Group:
    newest: int = 0
    table: int = 0
    policy: str = "availability"
    active: bool = False  # this node
    owned: int = 0  # the epoch of that, once the store has written it
    held_until: float = 0.0
    unsent: bool = True  # there may be changes of connections from a time as Active, also of an earlier run


class Epochs:
    """Of all groups, on one node. Times are monotonic seconds. The group "" stands for addresses of no group."""

    def __init__(self, kept: Mapping[str, Kept] | None = None) -> None:
        """`kept`: by an earlier run. None: no store is shared, nothing is fenced."""
        self.group_of: Mapping[Address, str] = {}  # by virtual address
        self._fenced = kept is not None
        self._groups = {name: _Group(*group) for name, group in (kept or {}).items()}

    # --- what happens -----------------------------------------------------------------------------------------

    def set_groups(self, groups: Iterable[VipGroup]) -> None:
        """The configuration."""
        group_of: dict[Address, str] = {}
        for group in groups:
            self._group(group.name).policy = group.policy
            group_of.update((vip.address, group.name) for vip in group.addresses)
        self.group_of = group_of

    def take_roles(self, roles: Mapping[str, Role], now: float) -> None:
        """This node's roles; those of an Active carry its epoch as soon as it is confirmed."""
        for name in self._groups.keys() | roles.keys():
            group, role = self._group(name), roles.get(name)
            if role is None or role.state is not VrrpState.ACTIVE:
                group.active, group.owned = False, 0
                continue
            group.unsent = True
            if role.epoch:
                group.table, group.newest = role.epoch, max(group.newest, role.epoch)
            elif not group.active or group.owned:  # it has just taken over
                group.table, group.held_until = group.newest, now + HOLD_S
            group.active, group.owned = True, role.epoch

    def see(self, name: str, epoch: int) -> None:
        """The store names an owner of this epoch."""
        group = self._group(name)
        group.newest = max(group.newest, epoch)

    def given_up(self) -> frozenset[str]:
        """Groups that this node does not serve any more, and that it may have changes of."""
        return frozenset(name for name, group in self._groups.items() if group.unsent and not group.active)

    def all_sent(self, given_up: Iterable[str]) -> None:
        """Whatever has changed since these groups were given up, or before, is on its way to the peers."""
        for name in given_up:
            self._group(name).unsent = self._group(name).active

    def take(self, name: str, label: Label) -> None:
        """Records that carry this are taken into the table."""
        group = self._group(name)
        group.newest = max(group.newest, label.epoch)
        if not group.unsent:
            group.table = max(group.table, label.epoch)

    # --- what follows from it ---------------------------------------------------------------------------------

    def label(self, name: str) -> Label:
        """For the records that this node sends now."""
        group = self._group(name)
        return Label(group.table, not group.active or group.owned > 0)

    def holds(self, now: float) -> bool:
        """A group was taken over a moment ago: its epoch will be known soon, records wait for it."""
        return self._fenced and any(self._waits(group, now) for group in self._groups.values())

    def refusal(self, name: str, label: Label, now: float) -> str:
        """Why records of this group that carry `label` must not be taken; "" = they may."""
        group = self._group(name)
        if not self._fenced:
            return ""
        if label.epoch < group.newest:
            return f"of epoch {label.epoch}, the group has had epoch {group.newest} since"
        if group.policy != "consistency" or not group.newest:
            return ""
        if not label.confirmed:
            return f"taken over from epoch {label.epoch}, and the store has not confirmed it (policy consistency)"
        if group.active and not group.owned and label.epoch == group.table and not self._waits(group, now):
            return f"of epoch {label.epoch}, from which this node has taken over, unconfirmed (policy consistency)"
        return ""

    def newest(self, name: str) -> int:
        """The highest epoch that is known; 0 = none."""
        return self._group(name).newest

    def owned(self, name: str) -> int:
        """The epoch in which this node is Active, confirmed by the store; 0 = it is not, or it does not know it yet."""
        return self._group(name).owned

    def kept(self) -> dict[str, Kept]:
        """To be remembered: all groups that have ever had an epoch."""
        return {name: Kept(group.newest, group.table) for name, group in self._groups.items() if group.newest}

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    @staticmethod
    def _waits(group: _Group, now: float) -> bool:
        return group.active and not group.owned and now < group.held_until
