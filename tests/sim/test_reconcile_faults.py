"""The reconciler on virtual time against a data plane that fails, lies and is changed by others."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.dataplane.base import DeleteService, Op, PutServer, PutService
from lbnode.dataplane.fake import FakeKernel, FakePlane
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.model import ObjectStatus, Programmed, Timeouts
from lbnode.plan import Desired
from tests.sim.reconcile_bench import DNS, ONE, TWO, WEB, failing, running, service
from tests.sim.virtual_time import run_virtual
from tests.unit.test_reconcile_diff import PROGRAMMED


def test_errors_stay_with_their_object_and_are_told_once() -> None:
    async def main() -> None:
        plane = FakePlane()

        def fault(op: Op | None) -> None:
            if isinstance(op, PutServer) and op.server.id == TWO:
                raise DataPlaneError("no space left in map reals")

        plane.fault = fault
        async with running(plane) as bench:
            bench.want(3, service(WEB, one=1, two=1), service(DNS, one=1))
            await bench.settled(3)
            await asyncio.sleep(300)
            assert bench.status(f"{WEB}/{TWO}") == ObjectStatus(0, "no space left in map reals")
            assert bench.status(f"{WEB}/{ONE}") == ObjectStatus(3)
            assert bench.reconciler.programmed_revision.value == 0
            assert len([e for e in bench.journal.since(0) if e.message == "could not be programmed"]) == 1
            plane.fault = None
            await bench.programmed(3)
            assert bench.status(f"{WEB}/{TWO}") == ObjectStatus(3)
            assert plane.kernel.services[WEB] == service(WEB, one=1, two=1)

    run_virtual(main())


def test_unsupported_is_tried_again_only_when_it_changes() -> None:
    async def main() -> None:
        attempts: list[Op] = []

        def fault(op: Op | None) -> None:
            if isinstance(op, PutService) and op.service.scheduler == "wrr":
                attempts.append(op)
                raise Unsupported("scheduler wrr is not in this data plane")

        plane = FakePlane(fault=fault)
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1))
            await bench.settled(1)
            await asyncio.sleep(500)
            assert len(attempts) == 1
            status = bench.status(str(WEB))
            assert status is not None and "wrr" in status.error
            bench.want(2, replace(service(WEB, one=1), scheduler="rr"))
            await bench.programmed(2)

    run_virtual(main())


@pytest.mark.parametrize("kinds", [(PutService,), (PutServer,)])
def test_a_failing_object_that_is_no_longer_wanted_is_forgotten(kinds: tuple[type, ...]) -> None:
    async def main() -> None:
        plane = FakePlane(fault=failing(DataPlaneError("no"), *kinds))
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1), service(DNS))
            await bench.settled(1)
            bench.want(2)
            await bench.programmed(2)
            assert set(bench.reconciler.status.value) <= {"settings"}

    run_virtual(main())


def test_a_failing_removal_is_retried() -> None:
    async def main() -> None:
        plane = FakePlane()
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1))
            await bench.programmed(1)
            plane.fault = failing(DataPlaneError("busy"), DeleteService)
            bench.want(2)
            await bench.settled(2)
            assert bench.status(str(WEB)) == ObjectStatus(1, "busy")
            plane.fault = None
            await bench.programmed(2)
            assert plane.kernel.services == {}

    run_virtual(main())


def test_changes_behind_its_back_are_put_right_and_told() -> None:
    async def main() -> None:
        plane = FakePlane()
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1), service(DNS, one=1))
            await bench.programmed(1)
            del plane.kernel.services[WEB]
            plane.kernel.services[DNS] = service(DNS, two=9)
            plane.kernel.timeouts = Timeouts(5, 5, 5)
            await asyncio.sleep(70)
            assert plane.kernel.services == {WEB: service(WEB, one=1), DNS: service(DNS, one=1)}
            assert plane.kernel.timeouts == Timeouts()
            told = {event.what for event in bench.journal.since(0) if "behind" in event.why}
            assert told == {str(WEB), str(DNS)}

    run_virtual(main())


def test_a_service_that_turns_out_to_be_gone_is_put_again_at_once() -> None:
    async def main() -> None:
        plane = FakePlane()
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1, two=2), service(DNS, one=1))
            await bench.programmed(1)
            del plane.kernel.services[WEB]
            bench.want(2, service(WEB, one=5, two=2), service(DNS, one=1))
            await asyncio.sleep(1)
            assert plane.kernel.services[WEB] == service(WEB, one=5, two=2)
            assert bench.reconciler.programmed_revision.value == 2

    run_virtual(main())


def test_a_data_plane_that_cannot_be_read_is_waited_for() -> None:
    async def main() -> None:
        plane = FakePlane(fault=failing(DataPlaneError("not loaded"), type(None)))
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1))
            await asyncio.sleep(20)
            assert plane.ops == []
            status = bench.status("data plane")
            assert status is not None and "not loaded" in status.error
            plane.fault = None
            await bench.programmed(1)
            assert bench.status("data plane") is None

    run_virtual(main())


@settings(max_examples=40, deadline=None)
@given(st.lists(PROGRAMMED, min_size=1, max_size=4), PROGRAMMED, st.integers(0, 2**32))
def test_it_converges_through_faults(wanted: list[Programmed], before: Programmed, seed: int) -> None:
    async def main() -> None:
        kernel = FakeKernel(dict(before.services), before.timeouts)
        plane = FakePlane(kernel, fault_probability=0.3, rng=random.Random(seed))
        async with running(plane) as bench:
            for revision, programmed in enumerate(wanted, start=1):
                bench.desired.set(Desired(revision, programmed))
                await asyncio.sleep(random.Random(seed + revision).choice([0.0, 0.05, 1.0]))
            await bench.programmed(len(wanted))
            plane.fault_probability = 0.0
            assert await plane.dump() == wanted[-1]
            assert bench.reconciler.actual == wanted[-1]
            names = {"settings"} | {str(key) for key in wanted[-1].services}
            names |= {f"{key}/{server}" for key, item in wanted[-1].services.items() for server in item.servers}
            assert set(bench.reconciler.status.value) - {"data plane"} == names

    run_virtual(main())
