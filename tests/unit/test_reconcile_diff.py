"""diff applied gives what is desired, in an order without holes; nothing to do means no operations."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.dataplane.base import DeleteServer, DeleteService, Op, PutServer, PutService
from lbnode.dataplane.fake import FakeKernel, FakePlane
from lbnode.model import (
    Access,
    ConnectionRate,
    ForwardingMethod,
    OwnTimeouts,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    Timeouts,
)
from lbnode.reconcile.diff import diff, diff_service

SERVICE_IDS = [ServiceId.of("tcp", f"192.0.2.{n}", 80) for n in (10, 11)] + [ServiceId.parse("fwmark:7")]
SERVER_IDS = [ServerId.parse(f"198.51.100.{n}:80") for n in (21, 22, 23)]

SERVERS = st.builds(
    ProgrammedServer,
    st.sampled_from(SERVER_IDS),
    st.integers(0, 2),
    st.sampled_from(ForwardingMethod),
    upper_threshold=st.integers(0, 1),
)
SERVICES = st.builds(
    ProgrammedService,
    st.sampled_from(SERVICE_IDS),
    st.sampled_from(["rr", "mh"]),
    st.sampled_from([frozenset(), frozenset({"mh-port"})]),
    persistent_s=st.integers(0, 1),
    one_packet=st.booleans(),
    syn_proxy=st.none() | st.integers(0, 9),
    mss=st.none() | st.integers(88, 90),
    access=st.builds(Access, rate=st.none() | st.builds(ConnectionRate, st.integers(1, 3), st.just(9), st.just(32))),
    timeouts=st.builds(OwnTimeouts, st.none() | st.integers(1, 2), udp_s=st.none() | st.integers(1, 2)),
    servers=st.lists(SERVERS, max_size=3).map(lambda servers: {server.id: server for server in servers}),
)
PROGRAMMED = st.builds(
    Programmed,
    st.lists(SERVICES, max_size=3).map(lambda services: {service.id: service for service in services}),
    st.builds(Timeouts, tcp_s=st.integers(1, 2)),
)


def applied(ops: list[Op], actual: Programmed) -> Programmed:
    plane = FakePlane(FakeKernel(dict(actual.services), actual.timeouts))

    async def run() -> Programmed:
        for op in ops:
            await plane.apply(op)
        return await plane.dump()

    return asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(PROGRAMMED, PROGRAMMED)
def test_diff_leads_to_what_is_desired(desired: Programmed, actual: Programmed) -> None:
    ops = list(diff(desired, actual))
    assert applied(ops, actual) == desired
    assert list(diff(desired, desired)) == []


@settings(max_examples=100, deadline=None)
@given(PROGRAMMED, PROGRAMMED)
def test_additions_come_before_removals(desired: Programmed, actual: Programmed) -> None:
    ops = list(diff(desired, actual))
    removed_services = [isinstance(op, DeleteService) for op in ops]
    assert removed_services == sorted(removed_services)
    for service_id in desired.services:
        kinds = [
            0 if isinstance(op, PutService) else 1 if isinstance(op, PutServer) else 2
            for op in ops
            if (isinstance(op, PutService) and op.service.id == service_id)
            or (isinstance(op, (PutServer, DeleteServer)) and op.service_id == service_id)
        ]
        assert kinds == sorted(kinds)


@settings(max_examples=60, deadline=None)
@given(PROGRAMMED, PROGRAMMED, st.sets(st.sampled_from(SERVICE_IDS)))
def test_services_of_others_stay(desired: Programmed, actual: Programmed, others: set[ServiceId]) -> None:
    result = applied(list(diff(desired, actual, others)), actual)
    kept = others & set(actual.services) - set(desired.services)
    assert set(result.services) == set(desired.services) | kept
    for service_id in kept:
        assert result.services[service_id] == actual.services[service_id]


def test_a_weight_change_is_one_operation() -> None:
    servers = {server: ProgrammedServer(server, 1, ForwardingMethod.DIRECT) for server in SERVER_IDS}
    before = ProgrammedService(SERVICE_IDS[0], "rr", servers=servers)
    heavier = ProgrammedServer(SERVER_IDS[1], 5, ForwardingMethod.DIRECT)
    after = ProgrammedService(SERVICE_IDS[0], "rr", servers={**servers, heavier.id: heavier})
    assert list(diff_service(after, before)) == [PutServer(SERVICE_IDS[0], heavier)]
