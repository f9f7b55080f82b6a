"""Rise and fall: when results of probes become a verdict. Pure; time is an argument.

The first result decides at once, so that a restarted checker agrees with the world after one probe. From then on only
`fall` failures in a row take a target down and only `rise` successes in a row bring it up again:

            ok ──▶ UP ────── fall failures in a row ─────▶ DOWN
    UNKNOWN                                                  │
        failed ──▶ DOWN      UP ◀── rise successes in a row ─┘
"""

from __future__ import annotations

from healthcheck.spec import Health, Result, Verdict

UNCHECKED = Verdict(Health.UNKNOWN)


class Tracker:
    """The verdict on one target."""

    __slots__ = ("_fall", "_last_ok", "_rise", "verdict")

    def __init__(self, rise: int, fall: int) -> None:
        if rise < 1 or fall < 1:
            raise ValueError(f"rise {rise}, fall {fall}: both count results in a row and must be at least 1")
        self._rise = rise
        self._fall = fall
        self.verdict = UNCHECKED
        self._last_ok: bool | None = None

    def record(self, result: Result, now: float) -> Verdict:
        """Take a probe's result into account; `now` is Unix time, for display.

        The verdict's reason is that of the latest failure, and is cleared once the target is up and its last probe
        succeeded: a server that is up with a reason is failing, one that is down tells why it went down.
        """
        before = self.verdict
        streak = before.streak + 1 if result.ok == self._last_ok else 1
        self._last_ok = result.ok
        health = self._judge(before.health, result.ok, streak)
        reason = result.reason
        if result.ok and health is Health.DOWN:
            reason = before.reason
        since = before.since if health is before.health else now
        self.verdict = Verdict(health, reason, since, now, result.latency_s, streak)
        return self.verdict

    def _judge(self, health: Health, ok: bool, streak: int) -> Health:
        if ok:
            return Health.UP if health is Health.UNKNOWN or streak >= self._rise else health
        return Health.DOWN if health is Health.UNKNOWN or streak >= self._fall else health

    def inherit(self, other: Tracker) -> None:
        """Go on from another tracker's verdict, under this one's own rise and fall."""
        self.verdict = other.verdict
        self._last_ok = other._last_ok
