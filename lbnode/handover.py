"""Whether a VIP group can be handed over, from what the election's heartbeats and the shared store tell. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from lbnode.control import NodeInfo
from lbnode.errors import ConfigError
from lbnode.model import Role, VipGroup, VrrpState


def check_handover(
    group: VipGroup,
    role: Role,
    node: str,
    others: Collection[NodeInfo],
    silent: Collection[str],
    to: str = "",
    resting: Collection[str] = (),
) -> None:
    """ConfigError, which says what to do, if this `node` may not give the group to `to`, or to the best Backup.

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
    backups = {*role.backups, *_with_role(others, group.name, VrrpState.BACKUP)} - {*resting}
    unknown = set(silent) & (group.priorities.keys() - {node}) - backups - {*resting}
    if not backups and not unknown:
        raise ConfigError(f"{where}: no other node is backup now: nobody would take over")
    if not to or to in backups or {to} == unknown | backups:
        return
    if to in unknown:
        why = f"{to} and {node} exchange no heartbeats"
        raise ConfigError(f"{where}: {why}, so it cannot be named; without a name the best backup takes over")
    these = f"these are: {', '.join(sorted(backups))}" if backups else "none is known here"
    raise ConfigError(f"{where}: {to} is not backup now; {these}")


def _active_node(role: Role, others: Iterable[NodeInfo]) -> str:
    """Its name, or its address; "" = not known."""
    told = next(_with_role(others, role.group, VrrpState.ACTIVE), "")
    return role.active_node or told or str(role.active_address or "")


def _with_role(nodes: Iterable[NodeInfo], group: str, state: VrrpState) -> Iterator[str]:
    return (
        one.name for one in nodes if one.reachable and any(r.group == group and r.state is state for r in one.roles)
    )
