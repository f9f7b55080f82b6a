"""The reconciler on virtual time against a data plane that fails, lies and is changed by others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode import turns
from lbnode.dataplane.base import DeleteService, Op, PutServer, PutService, SetSyncDaemons
from lbnode.dataplane.fake import FakeKernel, FakePlane
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.journal import Journal
from lbnode.model import (
    DropRules,
    ForwardingMethod,
    ObjectStatus,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    SyncDaemon,
    Timeouts,
)
from lbnode.plan import Desired
from lbnode.reconcile import loop
from lbnode.reconcile.loop import Reconciler
from lbnode.watched import Watched
from tests.sim.virtual_time import run_virtual
from tests.unit.test_reconcile_diff import PROGRAMMED

WEB, DNS = ServiceId.of("tcp", "192.0.2.10", 80), ServiceId.of("udp", "192.0.2.10", 53)
ONE, TWO = ServerId.parse("198.51.100.21:80"), ServerId.parse("198.51.100.22:80")


def service(service_id: ServiceId, **weights: int) -> ProgrammedService:
    ids = {"one": ONE, "two": TWO}
    servers = {
        ids[name]: ProgrammedServer(ids[name], weight, ForwardingMethod.MASQUERADE) for name, weight in weights.items()
    }
    return ProgrammedService(service_id, "wrr", servers=servers)


def desired(revision: int, *services: ProgrammedService, remove_foreign: bool = False) -> Desired:
    return Desired(revision, Programmed({item.id: item for item in services}), remove_foreign)


class Bench:
    def __init__(self, plane: FakePlane) -> None:
        self.plane = plane
        self.journal = Journal("test")
        self.reconciler = Reconciler(plane, self.journal, random.Random(1))
        self.desired: Watched[Desired | None] = Watched(None)

    def want(self, *args: object, **more: bool) -> None:
        self.desired.set(desired(*args, **more))  # type: ignore[arg-type]

    async def until(self, condition: Callable[[], bool], limit_s: float = 600.0) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():
                await asyncio.sleep(0.01)

    async def programmed(self, revision: int) -> None:
        await self.until(lambda: self.reconciler.programmed_revision.value >= revision)

    async def settled(self, revision: int) -> None:
        await self.until(lambda: self.reconciler.settled_revision.value >= revision)

    def status(self, name: str) -> ObjectStatus | None:
        return self.reconciler.status.value.get(name)


@asynccontextmanager
async def running(plane: FakePlane) -> AsyncIterator[Bench]:
    bench = Bench(plane)
    task = asyncio.create_task(bench.reconciler.run(bench.desired))
    try:
        yield bench
        assert not task.done() or task.result() is None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_nothing_happens_before_the_first_desired() -> None:
    async def main() -> None:
        plane = FakePlane(FakeKernel({DNS: service(DNS, one=1)}))
        async with running(plane) as bench:
            await asyncio.sleep(1000)
            assert plane.ops == []
            bench.want(1, service(WEB, one=1))
            await bench.programmed(1)
            assert set(plane.kernel.services) == {WEB}

    run_virtual(main())


def test_adoption_changes_only_what_differs() -> None:
    async def main() -> None:
        plane = FakePlane(FakeKernel({WEB: service(WEB, one=1, two=2), DNS: service(DNS, one=1)}))
        async with running(plane) as bench:
            bench.want(7, service(WEB, one=1, two=3), service(DNS, one=1))
            await bench.programmed(7)
            assert [type(op) for op in plane.ops] == [PutServer]
            assert bench.status(f"{WEB}/{ONE}") == bench.status(f"{WEB}/{TWO}") == bench.status(str(DNS))
            assert bench.status(str(DNS)) == ObjectStatus(7)
            assert bench.reconciler.actual.services == plane.kernel.services

    run_virtual(main())


def test_one_weight_is_one_operation_and_one_status() -> None:
    async def main() -> None:
        plane = FakePlane()
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1, two=1), service(DNS, one=1))
            await bench.programmed(1)
            plane.ops.clear()
            bench.want(2, service(WEB, one=1, two=5), service(DNS, one=1))
            await bench.programmed(2)
            assert [type(op) for op in plane.ops] == [PutServer]
            assert bench.status(f"{WEB}/{TWO}") == ObjectStatus(2)
            assert bench.status(f"{WEB}/{ONE}") == ObjectStatus(1)

    run_virtual(main())


def test_removed_objects_leave_no_status_behind() -> None:
    async def main() -> None:
        plane = FakePlane()
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1, two=1), service(DNS, one=1))
            await bench.programmed(1)
            bench.want(2, service(WEB, one=1))
            await bench.programmed(2)
            assert set(bench.reconciler.status.value) == {str(WEB), f"{WEB}/{ONE}", "settings"}
            assert set(plane.kernel.services) == {WEB}

    run_virtual(main())


def failing(error: DataPlaneError, *kinds: type) -> Callable[[Op | None], None]:
    def fault(op: Op | None) -> None:
        if isinstance(op, kinds):
            raise error

    return fault


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


def test_foreign_services_in_a_shared_data_plane() -> None:
    async def main() -> None:
        plane = FakePlane(FakeKernel({DNS: service(DNS, one=1)}), exclusive=False)
        async with running(plane) as bench:
            bench.want(1, service(WEB, one=1))
            await bench.programmed(1)
            assert set(plane.kernel.services) == {WEB, DNS}
            assert bench.reconciler.foreign.value == {DNS}
            bench.want(2)
            await bench.programmed(2)
            assert set(plane.kernel.services) == {DNS}
            bench.want(3, remove_foreign=True)
            await bench.programmed(3)
            assert plane.kernel.services == {}
            assert bench.reconciler.foreign.value == frozenset()

    run_virtual(main())


def test_a_service_removed_while_no_process_ran_is_still_ours() -> None:
    async def main() -> None:
        kernel = FakeKernel({DNS: service(DNS, one=1)})
        async with running(FakePlane(kernel, exclusive=False)) as bench:
            bench.want(1, service(WEB, one=1))
            await bench.programmed(1)
        async with running(FakePlane(kernel, exclusive=False)) as bench:
            bench.want(2)
            await bench.programmed(2)
            assert set(kernel.services) == bench.reconciler.foreign.value == {DNS}

    run_virtual(main())


@pytest.mark.parametrize("theirs", [service(DNS, one=1), service(DNS, two=5)], ids=["equal", "other"])
def test_a_configured_service_that_somebody_else_made_is_taken_over_and_told(theirs: ProgrammedService) -> None:
    async def main() -> None:
        kernel = FakeKernel({DNS: theirs})
        async with running(FakePlane(kernel, exclusive=False)) as bench:
            bench.want(1, service(DNS, one=1))
            await bench.programmed(1)
            assert kernel.services == {DNS: service(DNS, one=1)}
            (event,) = [event for event in bench.journal.since(0) if event.message == "taken over"]
            assert event.what == str(DNS) and str(next(iter(theirs.servers))) in event.why
            bench.want(2)
            await bench.programmed(2)
            assert kernel.services == {}

    run_virtual(main())


def test_sync_daemons_and_sysctls_are_put_and_put_again_at_each_resync() -> None:
    async def main() -> None:
        plane = FakePlane()
        daemons, sysctls = {"master": SyncDaemon("eth1")}, {"net.ipv4.vs.sloppy_tcp": "1"}
        async with running(plane) as bench:
            bench.desired.set(Desired(1, Programmed(), sync_daemons=daemons, sysctls=sysctls))
            await bench.programmed(1)
            assert (plane.kernel.sync_daemons, plane.kernel.sysctls) == (daemons, sysctls)
            plane.kernel.sync_daemons, plane.kernel.sysctls = {}, {}
            await asyncio.sleep(70)
            assert (plane.kernel.sync_daemons, plane.kernel.sysctls) == (daemons, sysctls)
            plane.fault = failing(Unsupported("no such interface"), SetSyncDaemons)
            bench.desired.set(Desired(2, Programmed(), sync_daemons={}, sysctls=sysctls))
            await bench.settled(2)
            assert bench.status("settings/sync_daemons") == ObjectStatus(1, "no such interface")
            assert bench.status("settings/sysctl") == ObjectStatus(1)
            assert bench.reconciler.programmed_revision.value == 1

    run_virtual(main())


def test_drop_rules_are_put_where_there_ever_were_any() -> None:
    async def main() -> None:
        plane = FakePlane()
        async with running(plane) as bench:
            bench.desired.set(Desired(1, Programmed()))
            await bench.programmed(1)
            assert "settings/drop" not in bench.reconciler.status.value
            bench.desired.set(Desired(2, Programmed(), drop_rules=DropRules(ip_options=True)))
            await bench.programmed(2)
            assert plane.kernel.drop_rules == DropRules(ip_options=True)
            plane.kernel.drop_rules = DropRules()
            await asyncio.sleep(70)
            assert plane.kernel.drop_rules == DropRules(ip_options=True)
            bench.desired.set(Desired(3, Programmed()))
            await bench.programmed(3)
            assert plane.kernel.drop_rules == DropRules() and bench.status("settings/drop") == ObjectStatus(3)

    run_virtual(main())


def test_settings_that_change_during_long_work_do_not_wait_for_its_end() -> None:
    async def main() -> None:
        plane = FakePlane()
        async with running(plane) as bench:
            many = Programmed(
                {(item := service(ServiceId.of("tcp", "192.0.2.10", port), one=1)).id: item for port in range(1, 500)}
            )
            bench.desired.set(Desired(1, many, sync_daemons={}))

            def promoted(op: Op | None) -> None:
                if isinstance(op, PutServer) and bench.desired.version == 1:
                    bench.desired.set(Desired(1, many, sync_daemons={"master": SyncDaemon("eth1")}))

            plane.fault = promoted
            await bench.until(lambda: "master" in plane.kernel.sync_daemons)
            at = plane.ops.index(SetSyncDaemons({"master": SyncDaemon("eth1")}))
            assert at <= loop.TOGETHER, "what was under way was finished, and no more begun"

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


def test_the_event_loop_gets_its_turns_during_a_large_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time slice of nothing, other tasks get a turn after each operation."""
    monkeypatch.setattr(turns, "SLICE_S", 0.0)

    async def main() -> None:
        services = [service(ServiceId.of("tcp", "192.0.2.10", port), one=1, two=2) for port in range(1, 301)]
        count = 0

        async def other() -> None:
            nonlocal count
            while True:
                count += 1
                await asyncio.sleep(0)

        async with running(FakePlane()) as bench:
            task = asyncio.create_task(other())
            bench.want(1, *services)
            async with asyncio.timeout(60):
                while bench.reconciler.programmed_revision.value < 1:
                    await asyncio.sleep(0)
            task.cancel()
            assert count > 900

    run_virtual(main())
