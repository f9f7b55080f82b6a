"""A running reconciler on virtual time, and what the tests want of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lbnode.dataplane.base import Op
from lbnode.dataplane.fake import FakePlane
from lbnode.errors import DataPlaneError
from lbnode.journal import Journal
from lbnode.model import (
    ForwardingMethod,
    ObjectStatus,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
)
from lbnode.plan import Desired
from lbnode.reconcile.loop import Reconciler
from lbnode.watched import Watched

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


def failing(error: DataPlaneError, *kinds: type) -> Callable[[Op | None], None]:
    def fault(op: Op | None) -> None:
        if isinstance(op, kinds):
            raise error

    return fault
