"""How long the election process of a daemon that died serves on, waiting for the next one. Pure; times are in ns.

Meanwhile nobody checks servers or follows the configuration, but a VIP that moves costs more than a few seconds of
that. Carrying millions of connections over to new maps may take the next daemon a minute: it says when it gets on.
"""

from __future__ import annotations

AWAY = 10_000_000_000  # until the next daemon comes
STEP = (
    20_000_000_000  # from one sign of it to the next: verifying programs takes seconds, much longer on a busy machine
)
LONGEST = 300_000_000_000  # in all, for one that gets on slowly, or fails and is started again and again


class Patience:
    def __init__(self, gone_at: int) -> None:
        """gone_at: when the daemon died."""
        self._gone_at = self._heard_at = gone_at

    def heard(self, now: int) -> None:
        """The next daemon has come, or gets on."""
        self._heard_at = now

    @property
    def ends(self) -> int:
        came = self._heard_at > self._gone_at
        return min(self._heard_at + (STEP if came else AWAY), self._gone_at + LONGEST)

    def why(self, now: int) -> str:
        """It has ended."""
        waited = f"{(now - self._gone_at) / 1e9:.0f} s"
        if self._heard_at == self._gone_at:
            return f"no lbnoded for {waited}"
        return f"the next lbnoded came, but did not take over within {waited}"
