"""What a program leaves behind when a packet was run through it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lbnode.dataplane.xdp.explain.table import Entry
from lbnode.dataplane.xdp.layout import Event
from lbnode.model import Counters


@dataclass(frozen=True, slots=True)
class Traces:
    """What a program left behind."""

    verdict: str  # "send" | "pass" | "drop"
    frame: bytes  # as it came out
    events: Mapping[Event, int]  # counted; without the table's fill
    server: int | None  # index, if the packet was counted for one
    counted: Counters  # for that server
    entry: Entry | None  # what the table has for the packet afterwards
    new_template: bool  # the entry's template was not there before
