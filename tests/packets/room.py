"""A model of room.h: which connections find room in the table, and how many are moved for it. Pure.

All are of the kind that is not given up (established). What tells a connection is its hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lbnode.dataplane.xdp.layout import BUCKET_WAYS

SPARE = 3


@dataclass(slots=True)
class Room:
    """`buckets`: a power of two."""

    buckets: int
    moves: int = 0
    ways: list[list[int | None]] = field(init=False)  # hashes by bucket and way; None: free

    def __post_init__(self) -> None:
        self.ways = [[None] * BUCKET_WAYS for _ in range(self.buckets)]

    def choices(self, connection: int) -> tuple[int, int]:
        return connection & self.buckets - 1, connection >> 32 & self.buckets - 1

    def add(self, connection: int) -> bool:
        """False: no room."""
        first, second = self.choices(connection)
        free, other = self.ways[first].count(None), self.ways[second].count(None)
        into = second if free < SPARE and other > free else first
        if not free and not other:
            if not self._move_one(first) and not self._move_one(second):
                return False
            into = first if None in self.ways[first] else second
        self._enter(into, connection)
        return True

    def _enter(self, bucket: int, connection: int) -> None:
        best = connection >> 29 & BUCKET_WAYS - 1
        self.ways[bucket][best if self.ways[bucket][best] is None else self.ways[bucket].index(None)] = connection

    def _move_one(self, bucket: int) -> bool:
        for way, connection in enumerate(self.ways[bucket]):
            assert connection is not None
            first, second = self.choices(connection)
            other = second if bucket == first else first
            if None in self.ways[other]:
                self._enter(other, connection)
                self.ways[bucket][way] = None
                self.moves += 1
                return True
        return False

    def remove(self, connection: int) -> None:
        for bucket in self.choices(connection):
            if connection in self.ways[bucket]:
                self.ways[bucket][self.ways[bucket].index(connection)] = None
                return
        raise KeyError(connection)
