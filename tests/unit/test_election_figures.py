"""The histogram of lateness, and the diagram of the state machine."""

from __future__ import annotations

from lbnode.election.diagram import _LEADS_TO, _MEANS, dot
from lbnode.election.events import Input
from lbnode.election.figures import BUCKETS_S, AdvertFigures, Lateness
from lbnode.election.machine import TRANSITIONS


def test_lateness_goes_into_the_first_bucket_that_holds_it() -> None:
    lateness = Lateness()
    for late in (0, 100_000, 100_001, 3_000_000, 999_000_000):
        lateness.note(late)
    assert lateness.figures("front") == AdvertFigures("front", (2, 1, 0, 1, 0, 0, 0, 0, 1), 1.002200001)
    assert len(lateness.figures("front").late) == len(BUCKETS_S) + 1


def test_the_diagram_has_every_row_of_the_table_and_says_where_it_leads() -> None:
    text = dot()
    assert text.count(" / ") == len(TRANSITIONS)
    assert set(_MEANS) == set(Input)
    assert set(_LEADS_TO) <= set(TRANSITIONS.values())
    assert 'backup -> active [label="timer fires / take over"];' in text
    assert text.startswith("digraph election {\n") and text.endswith("}\n")
