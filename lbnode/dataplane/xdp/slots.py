"""Lists and tables of the schedulers as the map `slots` holds them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import cycle, islice, repeat
from math import gcd

from lbnode.dataplane.xdp import maglev
from lbnode.dataplane.xdp.layout import SH_SLOTS, SLOT_EMPTY, Scheduler, ServiceFlag
from lbnode.model import ProgrammedServer

_FLAGS = {"port": ServiceFlag.HASH_PORT, "fallback": ServiceFlag.HASH_FALLBACK}


def flags(names: Iterable[str]) -> ServiceFlag:
    """Of scheduler flags as the model names them: sh-port, mh-fallback."""
    return reduce(lambda one, other: one | other, (_FLAGS[name.partition("-")[2]] for name in names), ServiceFlag(0))


def flag_names(scheduler: Scheduler, value: int) -> frozenset[str]:
    return frozenset(f"{scheduler.name.lower()}-{name}" for name, flag in _FLAGS.items() if flag & value)


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


def table(scheduler: Scheduler, members: Sequence[tuple[int, ProgrammedServer]]) -> list[int]:
    """The slots of sh and mh; empty for the others. `members`: index and server, newest first."""
    if scheduler is Scheduler.SH:
        return _source_hashing(members)
    if scheduler is Scheduler.MH:
        return _maglev(members)
    return []


def _source_hashing(members: Sequence[tuple[int, ProgrammedServer]]) -> list[int]:
    """ip_vs_sh_reassign: round the list, each server as many slots in a row as its weight, at least one."""
    if not members:
        return [SLOT_EMPTY] * SH_SLOTS
    runs = (index for index, server in cycle(members) for _ in repeat(None, max(server.weight, 1)))
    return list(islice(runs, SH_SLOTS))


def _maglev(members: Sequence[tuple[int, ProgrammedServer]]) -> list[int]:
    positions = maglev.table([server.id for _, server in members], [server.weight for _, server in members])
    return [SLOT_EMPTY if position is None else members[position][0] for position in positions]
