"""The connection table's alarm: once when it begins, once when it ends, a problem as long as it lasts."""

from __future__ import annotations

from lbnode.alarms import FloodAlarm, TableAlarm
from lbnode.dataplane.base import PlaneStatus, SynProxyStatus
from lbnode.model import Severity


def status(used: int, refused: int = 0, size: int = 100) -> PlaneStatus:
    return PlaneStatus("test", (), used, size, {"table-full": refused}, adopted=False)


def test_filling_and_emptying_are_told_once_each() -> None:
    alarm = TableAlarm()
    assert alarm.look(status(79)) == (None, None)
    event, problem = alarm.look(status(80))
    assert event == ("connection table is filling up", "80 of 100 connections")
    assert problem is not None
    assert problem.severity is Severity.WARNING
    event, problem = alarm.look(status(75))
    assert event is None
    assert problem is not None
    assert alarm.look(status(69)) == (("connection table has room again", "69 of 100 connections"), None)
    assert alarm.look(status(69)) == (None, None)


def test_refused_connections_alarm_at_any_fill() -> None:
    alarm = TableAlarm()
    assert alarm.look(status(60, refused=2)) == (None, None), "found by a restart: that is over"
    event, problem = alarm.look(status(60, refused=7))
    assert event is not None
    assert event[0] == "connection table is full"
    assert problem is not None
    assert problem.severity is Severity.ERROR
    assert "5 packets" in problem.message
    assert "node.toml" in problem.hint
    assert alarm.look(status(60, refused=7))[1] is None


def test_a_plane_without_a_limit_never_alarms() -> None:
    assert TableAlarm().look(status(10, size=0)) == (None, None)


def proxy(half_open: int, *, flooded: bool, service: str = "tcp:192.0.2.10:80") -> SynProxyStatus:
    return SynProxyStatus(service, half_open, 100, flooded)


def test_a_flood_is_told_when_it_begins_and_when_it_is_over_by_service() -> None:
    alarm = FloodAlarm()
    assert alarm.look([proxy(99, flooded=False)]) == ([], [])
    events, problems = alarm.look([proxy(100, flooded=True), proxy(0, flooded=False, service="tcp:192.0.2.10:81")])
    why = "100 half-open connections, limit 100: SYNs are answered with cookies"
    assert events == [("tcp:192.0.2.10:80", "SYN flood began", why)]
    (problem,) = problems
    assert (problem.where, problem.field) == ("services/tcp:192.0.2.10:80", "syn_proxy")
    assert problem.severity is Severity.WARNING
    events, problems = alarm.look([proxy(100, flooded=True)])
    assert events == [] and len(problems) == 1
    events, problems = alarm.look([])
    assert [event[:2] for event in events] == [("tcp:192.0.2.10:80", "SYN flood is over")]
    assert problems == []
