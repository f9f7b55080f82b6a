"""The contract of DataPlane: connections are listed and counted, and their records go to a peer."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lbnode.dataplane.base import DataPlane
from lbnode.dataplane.fake import FakePlane
from lbnode.model import Connection, L4Protocol
from tests.contracts.plane_cases import PlaneCase
from tests.contracts.programmed import BASIC, IDS, WEB, apply
from tests.listed import listed


def connection(client_port: int, state: str = "ESTABLISHED") -> Connection:
    client, virtual, real = ip_address("203.0.113.5"), ip_address("192.0.2.10"), IDS[0]
    return Connection(L4Protocol.TCP, (client, client_port), (virtual, 80), (real.address, real.port), state, 600.0)


async def tracked(plane: DataPlane) -> set[Connection]:
    return set(await listed(plane))


async def test_connections_are_listed_and_counted(case: PlaneCase, plane: DataPlane) -> None:
    await apply(plane, *BASIC)
    case.connect(plane, connection(1000))
    case.connect(plane, connection(1001, "SYN_RECV"))
    assert await tracked(plane) == {connection(1000), connection(1001, "SYN_RECV")}
    counters = (await plane.counters())[WEB]
    assert (counters.total.connections, counters.total.active, counters.total.inactive) == (2, 1, 1)
    assert (counters.servers[IDS[0]].connections, counters.servers[IDS[1]].connections) == (2, 0)
    await plane.zero(WEB)
    counters = (await plane.counters())[WEB]
    assert (counters.total.connections, counters.total.active) == (0, 1)


async def test_connection_records_go_to_a_peer_once(case: PlaneCase, plane: DataPlane) -> None:
    await apply(plane, *BASIC)
    wanted = {connection(1000), connection(1001, "FIN_WAIT")}
    for item in wanted:
        case.connect(plane, item)
    peer = FakePlane() if isinstance(plane, FakePlane) else None
    if peer is None:
        pytest.skip("needs a second kernel: see the connection synchronisation tests of this data plane")
    await apply(peer, *BASIC)
    records = await plane.changed_records(100)
    assert len(records) == 2 * plane.record_size
    assert await plane.changed_records(100) == b""
    assert await peer.import_records(records) == 2
    assert await tracked(peer) == wanted
    assert await peer.changed_records(100) == b"", "imported records are not reported back"
    bulk = b"".join([chunk async for chunk in plane.all_records()])
    assert sorted(bulk) == sorted(records)
    case.connect(plane, connection(1000, "CLOSE"))
    assert len(await plane.changed_records(100)) == plane.record_size


async def test_records_are_sorted_by_the_group_of_their_virtual_address(case: PlaneCase, plane: DataPlane) -> None:
    await apply(plane, *BASIC)
    for port in (1000, 1001, 1002):
        case.connect(plane, connection(port, "FIN_WAIT"))
    records = await plane.changed_records(100)
    assert len(records) == 3 * plane.record_size
    assert plane.by_group(records, {ip_address("192.0.2.10"): "front"}) == {"front": records}
    assert plane.by_group(records, {ip_address("192.0.2.11"): "front"}) == {"": records}


async def test_records_of_unknown_services_are_no_error(plane: DataPlane) -> None:
    if not isinstance(plane, FakePlane):
        assert await plane.import_records(b"") == 0
        return
    await plane.import_records(b"\xff" * plane.record_size)
    assert await tracked(plane) == set()
