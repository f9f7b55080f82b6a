"""The last minute, one figure per second, for sparklines. Pure."""

from __future__ import annotations

LENGTH = 60


def append(history: tuple[float, ...], value: float, count: int = 1) -> tuple[float, ...]:
    """History with `value` added `count` times (once per second it stands for), oldest first, at most LENGTH."""
    return (*history, *(value for _ in range(min(count, LENGTH))))[-LENGTH:]
