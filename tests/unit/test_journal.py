"""The journal is bounded, ordered, and can be waited on."""

from __future__ import annotations

from lbnode.journal import Journal, Kind


def test_events_are_numbered_and_found_again() -> None:
    journal = Journal("gw1")
    for number in range(3):
        journal.record(Kind.HEALTH, f"server {number}", "went down", "connect refused", "check")
    assert [event.seq for event in journal.since(0)] == [1, 2, 3]
    (last,) = journal.since(2)
    assert (last.node, last.kind, last.what, last.message) == ("gw1", "health", "server 2", "went down")
    assert (last.why, last.who) == ("connect refused", "check")
    assert journal.latest.value == 3


def test_the_oldest_events_go_first() -> None:
    journal = Journal("gw1", capacity=5)
    for number in range(9):
        journal.record(Kind.NODE, str(number), "happened")
    assert [event.what for event in journal.since(0)] == ["4", "5", "6", "7", "8"]
    assert [event.what for event in journal.since(0, limit=2)] == ["7", "8"]
