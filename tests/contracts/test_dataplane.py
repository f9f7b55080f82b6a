"""The contract of lbnode.dataplane.base.DataPlane: operations, their errors, counters, restarts.

Every data plane runs it: add a PlaneCase in plane_cases.py. What a service and a server may have is in
test_dataplane_services.py, connections are in test_dataplane_connections.py.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbnode.dataplane.base import DataPlane, DeleteServer, DeleteService, PutServer, PutService, SetTimeouts
from lbnode.errors import DataPlaneError
from lbnode.explanation import Question
from lbnode.model import Admission, Programmed, ServerId, ServiceId, Timeouts
from tests.contracts.plane_cases import PlaneCase
from tests.contracts.programmed import BASIC, DNS, DNS_SERVICE, IDS, WEB, WEB_SERVICE, apply, server, services, web


async def test_empty_at_first(plane: DataPlane) -> None:
    assert await plane.dump() == Programmed()
    assert dict(await plane.counters()) == {}
    assert not (await plane.status()).adopted


async def test_dump_tells_what_was_applied(plane: DataPlane) -> None:
    await apply(
        plane,
        *BASIC,
        PutService(DNS_SERVICE),
        PutServer(DNS, replace(server(2), id=ServerId.parse("198.51.100.23:53"))),
    )
    found = await services(plane)
    assert found[WEB] == web(server(0), server(1, 2))
    assert set(found) == {WEB, DNS}


async def test_operations_are_idempotent(plane: DataPlane) -> None:
    for op in (*BASIC, DeleteServer(WEB, IDS[0]), SetTimeouts(Timeouts(60, 30, 20)), DeleteService(WEB)):
        await plane.apply(op)
        once = await plane.dump()
        await plane.apply(op)
        assert await plane.dump() == once


async def test_deleting_what_is_absent_succeeds(plane: DataPlane) -> None:
    await apply(
        plane, DeleteService(WEB), DeleteServer(WEB, IDS[0]), PutService(WEB_SERVICE), DeleteServer(WEB, IDS[0])
    )
    assert await services(plane) == {WEB: WEB_SERVICE}


async def test_a_server_without_its_service_is_an_error(plane: DataPlane) -> None:
    with pytest.raises(DataPlaneError, match=r"192\.0\.2\.10:80") as told:
        await plane.apply(PutServer(WEB, server(0)))
    assert told.value.errno == errno.ESRCH
    assert await services(plane) == {}


async def test_many_are_applied_in_their_order_and_fail_one_by_one(plane: DataPlane) -> None:
    lost, gone = PutServer(DNS, server(0)), replace(DNS_SERVICE, id=ServiceId.of("udp", "192.0.2.11", 53))
    ops = (
        *(*BASIC, lost, PutServer(WEB, server(2)), DeleteServer(WEB, IDS[2]), SetTimeouts(Timeouts(60, 30, 20))),
        *(PutServer(WEB, server(0, 7)), PutService(gone), PutServer(gone.id, server(1)), DeleteService(gone.id)),
        *(DeleteServer(WEB, IDS[1]), PutServer(WEB, server(1, 9))),
    )
    for _ in range(2):
        errors = await plane.apply_many(ops)
        assert [str(DNS) in str(error) for error in errors] == [op is lost for op in ops]
        assert [error is None for error in errors] == [op is not lost for op in ops]
        assert await plane.dump() == Programmed({WEB: web(server(0, 7), server(1, 9))}, Timeouts(60, 30, 20))
    assert list(await plane.apply_many(())) == []


async def test_each_of_many_errors_is_told(plane: DataPlane) -> None:
    ids = [ServerId(IPv4Address("198.51.100.0") + n, 80) for n in range(1, 251)]
    puts = [PutServer(WEB, replace(server(0), id=server_id)) for server_id in ids]
    errors = await plane.apply_many(puts)
    assert all(isinstance(error, DataPlaneError) and str(WEB) in str(error) for error in errors) and len(errors) == 250
    assert list(await plane.apply_many([PutService(WEB_SERVICE), *puts])) == [None] * 251
    assert set((await services(plane))[WEB].servers) == set(ids)


async def test_a_weight_changes_alone(plane: DataPlane) -> None:
    await apply(plane, *BASIC, PutServer(WEB, server(0, 0)))
    assert (await services(plane))[WEB] == web(server(0, 0), server(1, 2))
    await apply(plane, PutServer(WEB, server(0, 65535)))
    assert (await services(plane))[WEB] == web(server(0, 65535), server(1, 2))


async def test_putting_a_service_leaves_its_servers(plane: DataPlane) -> None:
    other = min(plane.capabilities().schedulers - {"wrr"})
    changed = replace(WEB_SERVICE, scheduler=other)
    await apply(plane, *BASIC, PutService(changed))
    assert (await services(plane))[WEB] == web(server(0), server(1, 2), service=changed)


async def test_deleting_a_service_takes_its_servers_and_nothing_else(plane: DataPlane) -> None:
    await apply(plane, *BASIC, PutService(DNS_SERVICE), DeleteService(WEB))
    assert await services(plane) == {DNS: DNS_SERVICE}
    await apply(plane, PutService(WEB_SERVICE))
    assert await services(plane) == {DNS: DNS_SERVICE, WEB: WEB_SERVICE}


async def test_timeouts(plane: DataPlane) -> None:
    await apply(plane, SetTimeouts(Timeouts(60, 30, 20)))
    assert (await plane.dump()).timeouts == Timeouts(60, 30, 20)


async def test_counters_exist_for_what_is_programmed_and_can_be_zeroed(plane: DataPlane) -> None:
    await apply(plane, *BASIC)
    counters = await plane.counters()
    assert set(counters[WEB].servers) == set(IDS[:2])
    assert counters[WEB].total.connections == 0
    admission = counters[WEB].admission
    assert (admission is not None) == plane.capabilities().access
    if admission is not None:
        assert replace(admission, refused={}) == Admission() and set(admission.refused.values()) <= {0}
    await plane.zero(WEB)
    await plane.zero(None)
    await plane.zero(DNS)
    assert set((await plane.counters())[WEB].servers) == set(IDS[:2])


async def test_who_cannot_explain_a_packet_says_why(plane: DataPlane) -> None:
    """Nothing comes in here: the namespace has no interface. Explanations themselves: tests/packets/test_explain.py."""
    await apply(plane, *BASIC)
    before = await plane.dump(), await plane.counters()
    with pytest.raises(DataPlaneError, match=r"only the XDP/tcx data plane|no interface carries the data plane"):
        await plane.explain(Question.parse("tcp", "203.0.113.5:40000", "192.0.2.10:80", "", 0, 0))
    assert (await plane.dump(), await plane.counters()) == before


async def test_a_restart_adopts_what_is_there(case: PlaneCase) -> None:
    first = case.plane()
    await first.open()
    await apply(first, *BASIC, SetTimeouts(Timeouts(60, 30, 20)))
    before = await first.dump()
    await first.close()
    second = case.plane()
    await second.open()
    try:
        assert (await second.status()).adopted
        assert await second.dump() == before
        await apply(second, PutServer(WEB, server(2)), DeleteServer(WEB, IDS[0]))
        assert (await services(second))[WEB] == web(server(1, 2), server(2))
    finally:
        await second.close(unload=True)


async def test_what_was_put_is_owned_by_the_next_process_too(case: PlaneCase) -> None:
    first = case.plane()
    await first.open()
    await apply(first, *BASIC, PutService(DNS_SERVICE), DeleteService(DNS))
    await first.close()
    second = case.plane()
    await second.open()
    try:
        assert second.owns(WEB)
    finally:
        await second.close(unload=True)


async def test_unloading_leaves_nothing(case: PlaneCase) -> None:
    first = case.plane()
    await first.open()
    await apply(first, *BASIC)
    await first.close(unload=True)
    second = case.plane()
    await second.open()
    try:
        assert not (await second.status()).adopted
        assert await second.dump() == Programmed()
    finally:
        await second.close(unload=True)
