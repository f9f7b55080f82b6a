"""The reconciler on virtual time: what is wanted is programmed, in few operations, and told."""

from __future__ import annotations

import asyncio

import pytest

from lbnode import turns
from lbnode.dataplane.base import Op, PutServer, SetSyncDaemons
from lbnode.dataplane.fake import FakeKernel, FakePlane
from lbnode.errors import Unsupported
from lbnode.model import DropRules, ObjectStatus, Programmed, ServiceId, SyncDaemon
from lbnode.plan import Desired
from lbnode.reconcile import loop
from tests.sim.reconcile_bench import DNS, ONE, TWO, WEB, failing, running, service
from tests.sim.virtual_time import run_virtual


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
