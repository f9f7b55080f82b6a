"""The networks, which lose, delay, duplicate, reorder and cut: the LAN with its clients, and the paths beside it."""

from __future__ import annotations

import random
from enum import IntEnum


class Path(IntEnum):
    LAN = 0  # VRRP by multicast; the client and the gateway are here
    SYNC = 1  # heartbeats by unicast, over the synchronisation network
    STORE = 2  # between nodes and the shared store


CLIENT, GATEWAY = -1, -2  # ends of the LAN beside the nodes' numbers
STORE = -3  # the other end of the path of that name
Link = tuple[Path, int, int]  # (path, from, to)
ON_TIME = (0,)


class Network:
    def __init__(self, chance: random.Random, interval: int, max_delay: int) -> None:
        """Times in ns; `max_delay`: from a process to the wire."""
        self.loss = [0.0 for _ in Path]  # by path
        self.duplicates = 0.0
        self.reorder = 0.0  # share of datagrams that take up to half an interval longer
        self.cut: frozenset[Link] = frozenset()  # links that deliver nothing
        self._cuts: list[frozenset[Link]] = []
        self._random = chance
        self._late = interval // 2
        self._max_delay = max_delay
        self._wire_at: dict[tuple[Path, int], int] = {}

    def delay(self) -> int:
        return 1 + int(self._random.random() * self._max_delay)

    def wire(self, path: Path, sender: int, now: int) -> int:
        """When the sender's next frame has arrived everywhere. Frames of one sender keep their order."""
        at = max(self._wire_at.get((path, sender), 0), now + self.delay())
        self._wire_at[path, sender] = at
        return at

    def copies(self, path: Path, sender: int, to: int) -> tuple[int, ...]:
        """How late the copies of one datagram come: none when it is lost, two when it is doubled."""
        if self.cut and (path, sender, to) in self.cut:
            return ()
        loss = self.loss[path]
        if not (loss or self.duplicates or self.reorder):
            return ON_TIME
        chance = self._random.random
        count = 1 + (chance() < self.duplicates)
        kept = [copy for copy in range(count) if chance() >= loss]
        return tuple(int(chance() * self._late) if chance() < self.reorder else 0 for _ in kept)

    def cut_links(self, links: frozenset[Link]) -> None:
        self._cuts.append(links)
        self._apply()

    def mend_links(self, links: frozenset[Link]) -> None:
        if links in self._cuts:
            self._cuts.remove(links)
            self._apply()

    def heal(self) -> None:
        self.loss = [0.0 for _ in Path]
        self.duplicates = self.reorder = 0.0
        self._cuts.clear()
        self._apply()

    def _apply(self) -> None:
        self.cut = frozenset().union(*self._cuts)
