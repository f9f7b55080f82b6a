"""Whether a VIP group can be handed over, from what the election's heartbeats and the shared store tell. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from lbnode.control import NodeInfo
from lbnode.errors import ConfigError
from lbnode.model import Role, VipGroup, VrrpState


def heir(
    group: VipGroup,
    role: Role,
    node: str,
    others: Collection[NodeInfo],
    silent: Collection[str],
    to: str = "",
    resting: Collection[str] = (),
) -> str:
    """Who takes the group over if this `node` gives it up: `to`, or the best Backup; "" = a Backup, if there is one.

    ConfigError, which says what to do: it may not give it up.

    others: the nodes that the store tells of. silent: members that tell neither by the store nor by heartbeats whether
    they are Backup. VRRP alone finds the best of them; if none is there, this node takes the group back.
    resting: nodes in maintenance, of which it may still be told that they are Backup.
    """
    where = f"VIP group {group.name}"
    if role.state is not VrrpState.ACTIVE:
        active = _active_node(role, others)
        hint = f"{active} has it: run this there" if active else "no active node is known here"
        raise ConfigError(f"{where}: {node} is {role.state}, and only the active node can hand over; {hint}")
    if len(group.priorities) < 2:
        raise ConfigError(f"{where}: {node} is its only member; there is nobody to hand over to")
    known = (*_with_role(others, group.name, VrrpState.BACKUP), *role.backups)
    backups = [name for name in known if name not in resting]
    unknown = (set(silent) & (group.priorities.keys() - {node})).difference(backups, resting)
    if not backups and not unknown:
        raise ConfigError(f"{where}: no other node is backup now: nobody would take over")
    if not to:
        return next(iter(backups), "")
    if to in backups or {to} == unknown.union(backups):
        return to
    if to in unknown:
        why = f"{to} and {node} exchange no heartbeats"
        raise ConfigError(f"{where}: {why}, so it cannot be named; without a name the best backup takes over")
    these = f"these are: {', '.join(sorted({*backups}))}" if backups else "none is known here"
    raise ConfigError(f"{where}: {to} is not backup now; {these}")


def _active_node(role: Role, others: Iterable[NodeInfo]) -> str:
    """Its name, or its address; "" = not known."""
    told = next(iter(_with_role(others, role.group, VrrpState.ACTIVE)), "")
    return role.active_node or told or str(role.active_address or "")


def _with_role(nodes: Iterable[NodeInfo], group: str, state: VrrpState) -> Sequence[str]:
    """Their names, the highest priority first."""
    found = [
        (role.priority, one.name)
        for one in nodes
        for role in one.roles
        if one.reachable and role.group == group and role.state is state
    ]
    return [name for _, name in sorted(found, reverse=True)]
