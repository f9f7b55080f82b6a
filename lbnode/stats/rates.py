"""Counters -> rates per second. Pure."""

from __future__ import annotations

from lbnode.model import Counters, Rates

IDLE = Rates()


def rates_between(before: Counters, after: Counters, elapsed_s: float) -> Rates:
    """Rates per second of what was counted in `elapsed_s`; all zero if no time has passed.

    A counter that fell was zeroed or created anew in between: what it shows now has been counted since.
    """
    if elapsed_s <= 0 or before == after:
        return IDLE
    return Rates(
        _increase(before.connections, after.connections) / elapsed_s,
        _increase(before.packets_in, after.packets_in) / elapsed_s,
        _increase(before.packets_out, after.packets_out) / elapsed_s,
        _increase(before.bytes_in, after.bytes_in) / elapsed_s,
        _increase(before.bytes_out, after.bytes_out) / elapsed_s,
    )


def _increase(before: int, after: int) -> int:
    return after - before if after >= before else after
