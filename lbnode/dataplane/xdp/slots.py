"""Lists and tables of the schedulers as the map `slots` holds them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import cycle, islice, repeat
from math import gcd

from lbnode.dataplane.xdp import maglev
from lbnode.dataplane.xdp.layout import SH_SLOTS, SLOT_EMPTY, Scheduler, ServiceFlag
from lbnode.model import ServerId, flags_of

BY_LOAD = frozenset(
    {Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ, Scheduler.LBLC, Scheduler.LBLCR}
)  # their servers stand in groups
_BY_WEIGHT = frozenset({Scheduler.FO, Scheduler.OVF})
_FLAGS = (ServiceFlag.FLAG_1, ServiceFlag.FLAG_2, ServiceFlag.FLAG_3)  # in the order of flags_of


@dataclass(frozen=True, slots=True)
class Member:
    """A server of a service: `index` in map `servers`, `last_weight`: the last one that was not 0."""

    index: int
    id: ServerId
    weight: int
    last_weight: int


def flags(scheduler: str, names: Iterable[str]) -> ServiceFlag:
    """Of scheduler flags as the model names them: sh-port, flag-3."""
    bits = dict(zip(flags_of(scheduler), _FLAGS, strict=True))
    return reduce(lambda one, other: one | other, (bits[name] for name in names), ServiceFlag(0))


def flag_names(scheduler: Scheduler, value: int) -> frozenset[str]:
    return frozenset(name for name, flag in zip(flags_of(scheduler.name.lower()), _FLAGS, strict=True) if flag & value)


def wrr_parameters(weights: Sequence[int]) -> tuple[int, int]:
    """(max_weight, weight_gcd) as ip_vs_wrr.c computes them: largest weight - (gcd - 1), greatest common divisor."""
    divisor = gcd(*weights) if any(weights) else 1
    return (max(weights) - (divisor - 1) if any(weights) else 0), divisor


def wrr_start(current: int, max_weight: int, divisor: int) -> int:
    """wrr: the current weight after a change, from the one before it (ip_vs_wrr_dest_changed; 0 = none yet)."""
    if current > max_weight or not current:
        return max_weight
    return current // divisor * divisor + 1 if divisor > 1 else current


def carry_position(before: Sequence[int], after: Sequence[int], position: int) -> int:
    """rr: where in the new list the server stands that was chosen last (newest first; see struct service)."""
    if position >= len(before):
        return len(after)
    place = {index: at for at, index in enumerate(after)}
    for index in before[position::-1]:
        if index in place:
            return place[index]
    return len(after)


def order(scheduler: Scheduler, members: Sequence[Member]) -> list[int]:
    """The list of servers. `members`: newest first, as IPVS has them; fo and ovf want the largest weight first."""
    if scheduler in _BY_WEIGHT:
        members = sorted(members, key=lambda member: -member.weight)
    return [member.index for member in members]


def table_key(scheduler: Scheduler, members: Sequence[Member]) -> tuple[object, ...]:
    """What the table depends on: equal keys, equal tables."""
    if scheduler is Scheduler.MH:
        return (scheduler, *((member.index, member.id, member.last_weight) for member in members))
    if scheduler in (Scheduler.SH, Scheduler.TWOS):
        return (scheduler, *((member.index, member.weight) for member in members))
    if scheduler is Scheduler.DH:
        return (scheduler, *(member.index for member in members))
    return ()


def table(scheduler: Scheduler, members: Sequence[Member]) -> list[int]:
    """The slots of sh, dh, mh and twos; empty for the others. `members`: newest first."""
    if scheduler is Scheduler.SH:
        return _hashed(members, [max(member.weight, 1) for member in members])
    if scheduler is Scheduler.DH:
        return _hashed(members, [1] * len(members))
    if scheduler is Scheduler.MH:
        positions = maglev.table([one.id for one in members], [one.last_weight for one in members])
        return [SLOT_EMPTY if position is None else members[position].index for position in positions]
    if scheduler is Scheduler.TWOS:
        return alias_table([(member.index, member.weight) for member in members if member.weight])
    return []


def _hashed(members: Sequence[Member], turns: Sequence[int]) -> list[int]:
    """ip_vs_sh_reassign, ip_vs_dh_reassign: round the list, each server as many slots in a row as it has turns."""
    if not members:
        return [SLOT_EMPTY] * SH_SLOTS
    runs = (one.index for one, turn in cycle(zip(members, turns, strict=True)) for _ in repeat(None, turn))
    return list(islice(runs, SH_SLOTS))


def alias_table(weighted: Sequence[tuple[int, int]]) -> list[int]:
    """Walker's alias method (Vose, 1991) for (value, weight > 0): `struct draw` after `struct draw`, three slots each.

    The probability of a value is its weight's share, to 2^-32.
    """
    count, total = len(weighted), sum(weight for _, weight in weighted)
    share = [weight * count for _, weight in weighted]  # `total` is one whole element
    small = [at for at in range(count) if share[at] < total]
    large = [at for at in range(count) if share[at] >= total]
    slots: list[int] = [0] * (3 * count)
    for at, (value, _) in enumerate(weighted):
        slots[3 * at : 3 * at + 3] = value, 0xFFFFFFFF, value
    while small:
        less, more = small.pop(), large[-1]
        slots[3 * less + 1] = max((share[less] << 32) // total - 1, 0)
        slots[3 * less + 2] = weighted[more][0]
        share[more] -= total - share[less]
        if share[more] < total:
            small.append(large.pop())
    return slots
