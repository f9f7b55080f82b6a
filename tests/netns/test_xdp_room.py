"""A data plane whose connection table is nearly full, so that connections are moved to make room for others."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.counts import unpack_moves
from lbnode.dataplane.xdp.layout import State
from lbnode.dataplane.xdp.records import Record, Tuple
from lbnode.model import ForwardingMethod, L4Protocol, ProgrammedService
from tests.netns.xdp_lab import HTTP, PORT, VIP, Lab, server, server_address

pytestmark = pytest.mark.root

ENTRIES = 8192  # not all of them are read at once


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(servers=1) as lab:
        yield lab


def records(numbers: range) -> bytes:
    client, vip, real = ip_address("203.0.113.9"), ip_address(VIP), ip_address(server_address(1))
    packed = bytearray()
    for port in numbers:
        inward = Tuple(client, port, vip, PORT, L4Protocol.TCP)
        outward = Tuple(real, PORT, client, port, L4Protocol.TCP)
        packed += Record(inward, outward, 0, State.ESTABLISHED, 0, ForwardingMethod.MASQUERADE).pack()
    return bytes(packed)


async def test_moved_connections_are_counted_also_when_the_programs_counter_wraps(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path, connections=ENTRIES) as plane:
        await plane.apply(PutService(ProgrammedService(HTTP, "rr")))
        await plane.apply(PutServer(HTTP, server(1)))
        assert (await plane.status()).events["moved"] == 0
        clock = plane._maps["clock"]
        element = bytearray(clock.get_index(0))
        struct.pack_into("=I", element, 8, 2**32 - 1)
        clock.put_index(0, bytes(element))
        assert (await plane.status()).events["moved"] == 2**32 - 1
        await plane.import_records(records(range(1024, 1024 + ENTRIES * 9 // 10)))
        moved = unpack_moves(clock.get_index(0)) + 1
        assert 0 < moved < ENTRIES and (await plane.status()).events["moved"] == 2**32 - 1 + moved


async def test_a_listing_has_all_that_stay_in_their_places_once(lab: Lab, tmp_path: Path) -> None:
    """Connections are moved between two steps of it: no more than those are missing or there twice."""
    async with lab.plane(tmp_path, connections=ENTRIES) as plane:
        await plane.apply(PutService(ProgrammedService(HTTP, "rr")))
        await plane.apply(PutServer(HTTP, server(1)))
        before = range(1024, 1024 + ENTRIES * 8 // 10)
        await plane.import_records(records(before))
        begun = (await plane.status()).events["moved"]
        listed = Counter[int]()
        async for lines in plane.connections():
            if not listed:
                await plane.import_records(records(range(before.stop, before.stop + ENTRIES // 10)))
            listed.update(json.loads(line)["client"][1] for line in lines)
        moved = (await plane.status()).events["moved"] - begun
        odd = [port for port in before if listed[port] != 1]
        assert len(odd) <= moved and set(listed.values()) <= {1, 2}
        assert moved > 10, "it was provoked"
        again = [json.loads(line)["client"][1] async for lines in plane.connections() for line in lines]
        assert len(again) == len({*again}) == (await plane.status()).connections, "nothing moves"
