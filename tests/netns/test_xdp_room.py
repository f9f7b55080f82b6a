"""A data plane whose connection table is nearly full, so that connections are moved to make room for others."""

from __future__ import annotations

import struct
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

ENTRIES = 1024


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
