"""The event journal: a bounded log of what happened, to what, why and by whom. Shown by CLI, UI and stderr."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lbnode.watched import Watched

log = logging.getLogger("lbnode.journal")


class Kind(StrEnum):
    """Which part of the data flow an event belongs to."""

    CONFIG = "config"
    STORE = "store"
    HEALTH = "health"
    ELECTION = "election"
    DATAPLANE = "dataplane"
    SYNC = "sync"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Event:
    seq: int  # grows by one per event, from 1 at daemon start
    time: float  # Unix time, for display only
    node: str
    kind: Kind
    what: str  # the object: service id, "SERVICE/SERVER", VIP group, store key, peer
    message: str  # past tense: "went down", "became active"
    why: str = ""  # "connect refused 3 times", "advertisement timer expired"
    who: str = ""  # the operator or program behind it, where known


class Journal:
    """Keeps the last `capacity` events; `latest` is the newest sequence number, to wait on."""

    def __init__(self, node: str, capacity: int = 2000) -> None:
        self._node = node
        self._events: deque[Event] = deque(maxlen=capacity)
        self.latest: Watched[int] = Watched(0)

    def record(self, kind: Kind, what: str, message: str, why: str = "", who: str = "") -> Event:
        event = Event(self.latest.value + 1, time.time(), self._node, kind, what, message, why, who)
        self._events.append(event)
        log.info("%s %s %s%s%s", kind, what, message, f": {why}" if why else "", f" (by {who})" if who else "")
        self.latest.set(event.seq)
        return event

    def since(self, seq: int, limit: int = 500) -> Sequence[Event]:
        """Events newer than `seq`, oldest first, at most the newest `limit`."""
        return [event for event in self._events if event.seq > seq][-limit:]
