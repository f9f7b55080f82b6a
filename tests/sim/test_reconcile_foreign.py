"""The reconciler in a data plane that others use too: what is theirs stays, what became ours is told."""

from __future__ import annotations

import pytest

from lbnode.dataplane.fake import FakeKernel, FakePlane
from lbnode.model import ProgrammedService
from tests.sim.reconcile_bench import DNS, WEB, running, service
from tests.sim.virtual_time import run_virtual


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
