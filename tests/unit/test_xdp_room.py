"""How full the connection table gets before it refuses connections: the numbers that the README gives.

packets/test_full.py compares the model with the programs.
"""

from __future__ import annotations

import random

import pytest

from lbnode.dataplane.xdp.layout import BUCKET_WAYS
from tests.packets.room import Room

BUCKETS = 512  # the smallest table that can be configured


@pytest.mark.parametrize(("fill", "most"), [(0.85, 0.0), (0.9, 0.0002), (0.95, 0.012)])
def test_refused_where_connections_come_and_go(fill: float, most: float) -> None:
    """`most`: of the new connections, while so much of the table is used all the time."""
    dice, room = random.Random(5), Room(BUCKETS)
    there: list[int] = []
    refused, wanted = 0, int(BUCKETS * BUCKET_WAYS * fill)
    while len(there) < wanted:
        connection = dice.getrandbits(64)
        if room.add(connection):
            there.append(connection)
    arrivals = 10 * wanted
    for _ in range(arrivals):
        room.remove(there.pop(dice.randrange(len(there))))
        while not room.add(connection := dice.getrandbits(64)):
            refused += 1
        there.append(connection)
    assert refused <= most * arrivals
