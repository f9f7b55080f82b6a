"""The connection table's alarm: once when it begins, once when it ends, a problem as long as it lasts."""

from __future__ import annotations

from lbnode.alarms import TableAlarm
from lbnode.dataplane.base import PlaneStatus
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
    event, problem = alarm.look(status(60, refused=5))
    assert event is not None
    assert event[0] == "connection table is full"
    assert problem is not None
    assert problem.severity is Severity.ERROR
    assert "5 packets" in problem.message
    assert "node.toml" in problem.hint
    assert alarm.look(status(60, refused=5))[1] is None


def test_a_plane_without_a_limit_never_alarms() -> None:
    assert TableAlarm().look(status(10, size=0)) == (None, None)
