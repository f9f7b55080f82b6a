"""When the data plane's state deserves an operator's attention. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lbnode.dataplane.base import PlaneStatus, SynProxyStatus
from lbnode.model import Problem, Severity

ALARM_AT = 0.8  # of the connection table; lbnode's own refuses connections from 0.9 on, and more from 0.95
CLEAR_BELOW = 0.7
TABLE = "data plane", "connections"  # where, field of its problem
TABLE_FULL = "table-full"  # the drop reason of data planes that refuse new connections for want of room
HINT = "raise `connections` of [dataplane] in node.toml, or look for a flood in `lbctl get connections`"


@dataclass(slots=True)
class TableAlarm:
    """Watches the connection table: filling above 80 %, refusing connections, and well again below 70 %."""

    alarmed: bool = False
    refused: int | None = None  # packets of refused connections, at the last look; a restart finds those of before

    def look(self, status: PlaneStatus) -> tuple[tuple[str, str] | None, Problem | None]:
        """(what happened since the last look and why, the problem that there is now)."""
        refused = status.drops.get(TABLE_FULL, 0)
        newly_refused = 0 if self.refused is None else max(0, refused - self.refused)
        self.refused = refused
        fill = status.connections / status.connections_max if status.connections_max else 0.0
        used = f"{status.connections} of {status.connections_max} connections"
        event = None
        if not self.alarmed and (fill >= ALARM_AT or newly_refused):
            self.alarmed = True
            event = ("connection table is full" if newly_refused else "connection table is filling up", used)
        elif self.alarmed and fill < CLEAR_BELOW and not newly_refused:
            self.alarmed = False
            event = ("connection table has room again", used)
        if not self.alarmed:
            return event, None
        message = f"connection table: {used}"
        if newly_refused:
            message += f"; {newly_refused} packets of new connections were refused in the last second"
        severity = Severity.ERROR if newly_refused else Severity.WARNING
        return event, Problem(*TABLE, message, HINT, severity)


FLOOD_HINT = "clients get through by SYN cookies; look for where it comes from, or raise syn_proxy if these are clients"


@dataclass(slots=True)
class FloodAlarm:
    """Watches the services that are defended against SYN floods."""

    flooded: set[str] = field(default_factory=set)  # services, at the last look

    def look(self, proxies: Iterable[SynProxyStatus]) -> tuple[list[tuple[str, str, str]], list[Problem]]:
        """(service, what happened since the last look, and why), and the problems that there are now."""
        now = {one.service: one for one in proxies if one.flooded}
        why = {
            one.service: f"{one.half_open} half-open connections, limit {one.threshold}: SYNs are answered with cookies"
            for one in now.values()
        }
        events = [(service, "SYN flood began", why[service]) for service in now if service not in self.flooded]
        events += [(service, "SYN flood is over", "no cookie was needed lately") for service in self.flooded - set(now)]
        self.flooded = set(now)
        problems = [
            Problem(f"services/{service}", "syn_proxy", f"SYN flood: {text}", FLOOD_HINT, Severity.WARNING)
            for service, text in why.items()
        ]
        return sorted(events), problems
