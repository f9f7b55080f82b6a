"""The driver: keeps a data plane equal to the newest Desired, and says per object how that went.

Errors do not travel upward: the object that failed says so in `status` and is tried again with back-off, all others
go on. Time is the event loop's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from errno import ESRCH
from itertools import islice

from lbnode.dataplane.base import (
    DataPlane,
    DeleteServer,
    DeleteService,
    Op,
    PutServer,
    PutService,
    SetDropRules,
    SetSyncDaemons,
    SetSysctls,
    SetTimeouts,
)
from lbnode.delta import changed_keys
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.journal import Journal, Kind
from lbnode.model import DropRules, ObjectStatus, Programmed, ProgrammedService, ServerId, ServiceId, Timeouts
from lbnode.plan import Desired, server_name
from lbnode.reconcile.diff import diff_service, same_parameters
from lbnode.reconcile.retry import Backoff
from lbnode.reconcile.statuses import Statuses
from lbnode.turns import Turns
from lbnode.watched import Watched

RESYNC_S = 60.0  # whole dump and compare; ±10 %, so that nodes do not do it together
TOGETHER = 64  # operations handed to the data plane at once
PUBLISH_S = 0.5  # during long work, status is renewed this often

SETTINGS, DROP = "settings", "settings/drop"
SYNC_DAEMONS, SYSCTL = "settings/sync_daemons", "settings/sysctl"
PLANE = "data plane"
ObjectKey = tuple[ServiceId, ServerId | None] | str
# The work on one object or service: yields operations and is sent the error of each. A trial tells which succeeded.
Work = Generator[Sequence[Op], Sequence[DataPlaneError | None], None]
Trial = Generator[Sequence[Op], Sequence[DataPlaneError | None], Sequence[bool]]

log = logging.getLogger(__name__)


class Reconciler:
    """`run(desired)` for as long as the daemon lives; everything else is for reading.

    status: by 'SERVICE', 'SERVICE/SERVER', 'settings', 'settings/drop', 'settings/sync_daemons' and 'settings/sysctl';
        an object that is missing has not been tried yet.
    programmed_revision: newest revision that is in the data plane completely; stays behind while an object fails.
    settled_revision: newest revision of which every object was tried: its errors, if any, are in `status`.
    foreign: services in a shared data plane that are not ours.
    """

    def __init__(self, plane: DataPlane, journal: Journal, rng: random.Random | None = None) -> None:
        self._statuses = Statuses(journal)
        self.status: Watched[Mapping[str, ObjectStatus]] = self._statuses.published
        self.programmed_revision: Watched[int] = Watched(0)
        self.settled_revision: Watched[int] = Watched(0)
        self.foreign: Watched[frozenset[ServiceId]] = Watched(frozenset())
        self._plane = plane
        self._journal = journal
        self._rng = rng or random.Random()
        self._actual: dict[ServiceId, ProgrammedService] = {}
        self._settings: dict[
            str, Op
        ] = {}  # as the data plane has them; what `dump` does not tell is put at each resync
        self._believed: Mapping[ServiceId, ProgrammedService] = {}  # `_actual` before the latest dump
        self._known = False  # `_actual` is what the data plane contains
        self._doubtful = False  # an operation failed since then; it may have taken effect, in whole or in part
        self._want: Desired | None = None
        self._dirty: set[ServiceId] = set()
        self._backoff: Backoff[ObjectKey] = Backoff()
        self._failing: dict[ServiceId, set[ServerId | None]] = {}  # the same objects, by service
        self._resync_at = 0.0
        self._turns = Turns()
        self._publish_at = 0.0

    @property
    def actual(self) -> Programmed:
        """What the data plane contains as far as is known. A snapshot of this moment."""
        timeouts = self._settings.get(SETTINGS)
        return Programmed(dict(self._actual), timeouts.timeouts if isinstance(timeouts, SetTimeouts) else Timeouts())

    async def adopt(self) -> Programmed:
        """Read what the data plane contains before anything is decided: `found` for plan(). DataPlaneError."""
        await self._dump()
        return self.actual

    async def run(self, desired: Watched[Desired | None]) -> None:
        """Never acts before the first Desired. Ends only by cancellation, or a bug in the data plane's driver."""
        loop = asyncio.get_running_loop()
        seen = -1
        while True:
            seen = await self._wait(desired, seen)
            self._absorb(desired.value)
            if self._want is None:
                continue
            now = loop.time()
            self._publish_at = now + PUBLISH_S
            if not self._known or now >= self._resync_at:
                await self._try_dump()
                if not self._known:
                    continue
            self._take_due(now)
            while True:
                await self._settle_settings()
                if not self._dirty:
                    break
                await self._work(desired, seen)
                if desired.version != seen:
                    seen = desired.version
                    self._absorb(desired.value)
            self._finish()

    async def _wait(self, desired: Watched[Desired | None], seen: int) -> int:
        """Until there is a newer Desired, a retry is due, or a resync."""
        if self._want is None:
            return await desired.wait_changed(seen)
        retry_at = self._backoff.next_at()
        at = self._resync_at if retry_at is None else min(retry_at, self._resync_at)
        try:
            async with asyncio.timeout_at(at):
                return await desired.wait_changed(seen)
        except TimeoutError:
            return seen

    def _absorb(self, want: Desired | None) -> None:
        if want is None or want is self._want:
            return
        services = want.programmed.services
        if self._want is None:
            self._dirty.update(services, self._actual)
        else:
            self._dirty |= changed_keys(self._want.programmed.services, services)
            if want.remove_foreign and not self._want.remove_foreign:
                self._dirty.update(self.foreign.value)
        self._want = want

    async def _try_dump(self) -> None:
        now = asyncio.get_running_loop().time()
        try:
            await self._dump()
        except DataPlaneError as error:
            failure = self._backoff.failed(PLANE, None, now)
            self._resync_at = failure.retry_at
            self._statuses.failed(PLANE, f"cannot be read: {error}")
            self._statuses.publish()
            return
        if self._backoff.clear(PLANE):
            self._statuses.drop(PLANE)

    async def _dump(self) -> None:
        before = self._actual
        found = await self._plane.dump()
        self._actual, self._believed = dict(found.services), before
        self._settings = {SETTINGS: SetTimeouts(found.timeouts)}
        self._known, self._doubtful = True, False
        self._dirty.update(found.services, before)
        self._resync_at = asyncio.get_running_loop().time() + RESYNC_S * self._rng.uniform(0.9, 1.1)
        if self._want is not None:
            self._dirty.update(self._want.programmed.services)

    def _take_due(self, now: float) -> None:
        for key in self._backoff.due(now):
            if isinstance(key, tuple):
                self._dirty.add(key[0])

    async def _settle_settings(self) -> None:
        assert self._want is not None
        ops: dict[str, Op] = {SETTINGS: SetTimeouts(self._want.programmed.timeouts)}
        if self._want.drop_rules != DropRules() or DROP in self._statuses:
            ops[DROP] = SetDropRules(self._want.drop_rules)
        if self._want.sync_daemons is not None:
            ops[SYNC_DAEMONS] = SetSyncDaemons(self._want.sync_daemons)
        if self._want.sysctls is not None:
            ops[SYSCTL] = SetSysctls(self._want.sysctls)
        await self._together(self._settle(name, op) for name, op in ops.items())

    def _settle(self, name: str, op: Op) -> Work:
        if self._settings.get(name) == op:
            if name not in self._statuses or name in self._backoff:
                self._succeeded(name, name)
            return
        (done,) = yield from self._try([(name, op)])
        if done:
            self._settings[name] = op

    async def _work(self, desired: Watched[Desired | None], seen: int) -> None:
        """Work on the dirty services, wanted ones first, until done or there is a newer Desired."""
        assert self._want is not None
        wanted = self._want.programmed.services
        for unwanted in (False, True):
            works: list[Work] = []
            size = 0
            for service_id in [service_id for service_id in self._dirty if (service_id not in wanted) is unwanted]:
                self._dirty.discard(service_id)
                service = wanted.get(service_id)
                if service is not None:
                    ops = self._operations(service)
                    works.append(self._program(service, ops))
                    size += len(ops)
                elif service_id in self._actual:
                    works.append(self._remove(service_id))
                else:
                    self._forget(service_id, self._believed.get(service_id))
                if size + len(works) >= TOGETHER:
                    await self._together(works)
                    works, size = [], 0
                await self._breathe()
                if desired.version != seen:
                    break
            await self._together(works)
            if desired.version != seen:
                return

    async def _together(self, works: Iterable[Work]) -> None:
        """Hand what several works yield to the data plane at once, until they are done."""
        asked = [(work, ops) for work in works if (ops := next(work, None)) is not None]
        while asked:
            errors = iter(await self._plane.apply_many([op for _, ops in asked for op in ops]))
            more = []
            for work, ops in asked:
                with suppress(StopIteration):
                    more.append((work, work.send(list(islice(errors, len(ops))))))
                await self._breathe()
            asked = more

    def _operations(self, service: ProgrammedService) -> Sequence[Op]:
        """What a service that is wanted takes."""
        actual = self._actual.get(service.id)
        ops = tuple(diff_service(service, actual))
        if actual is not None and not self._plane.owns(service.id):
            ops = self._take_over(service, actual, ops)
        believed = self._believed.get(service.id)
        if ops and believed is not None and believed != actual and service.id not in self._failing:
            message = "had vanished from the data plane" if actual is None else "differed in the data plane"
            self._journal.record(Kind.DATAPLANE, str(service.id), message, "changed behind lbnoded's back; put right")
        return ops

    def _program(self, service: ProgrammedService, ops: Sequence[Op]) -> Work:
        actual = self._actual.get(service.id)
        have = dict(actual.servers) if actual is not None else {}
        self._forget_failures(service, have)
        tried: set[ServerId | None] = set()
        if ops and isinstance(put := ops[0], PutService):  # no server is tried before its service is there
            tried.add(None)
            (done,) = yield from self._try([((service.id, None), put)])
            if done:
                actual = put.service
            elif actual is None:
                return
        servers = [(_server_id(op), op) for op in ops if isinstance(op, (PutServer, DeleteServer))]
        tried.update(server_id for server_id, _ in servers)
        for at in range(0, len(servers), TOGETHER):
            some = servers[at : at + TOGETHER]
            outcome = yield from self._try([((service.id, server_id), op) for server_id, op in some])
            for (server_id, op), done in zip(some, outcome, strict=True):
                if done and isinstance(op, PutServer):
                    have[server_id] = op.server
                elif done:
                    del have[server_id]
                    self._statuses.drop(server_name(service.id, server_id))
        assert actual is not None
        whole = have == service.servers and same_parameters(service, actual)
        self._actual[service.id] = service if whole else replace(actual, servers=have)
        # What needed no operation is programmed too: found so at start, or by a resync.
        for object_id in (None, *service.servers):
            if object_id in tried:
                continue
            key = (service.id, object_id)
            object_name = _name(key)
            if object_name not in self._statuses or key in self._backoff:
                self._succeeded(key, object_name)

    def _take_over(self, service: ProgrammedService, actual: ProgrammedService, ops: tuple[Op, ...]) -> tuple[Op, ...]:
        """The configuration names a service that somebody else made: putting it makes it ours, equal or not."""
        if service.id not in self._failing:
            servers = ", ".join(f"{server.id} weight {server.weight}" for server in actual.servers.values())
            had = f"it had scheduler {actual.scheduler} and servers: {servers or 'none'}"
            self._journal.record(Kind.DATAPLANE, str(service.id), "taken over", f"somebody else had made it; {had}")
        if any(isinstance(op, PutService) for op in ops):
            return ops
        return (PutService(replace(service, servers={})), *ops)

    def _forget_failures(self, service: ProgrammedService, have: Mapping[ServerId, object]) -> None:
        """Of servers that are neither wanted any more nor there."""
        for server_id in tuple(self._failing.get(service.id, ())):
            if server_id is not None and server_id not in service.servers and server_id not in have:
                self._clear((service.id, server_id))
                self._statuses.drop(server_name(service.id, server_id))

    def _remove(self, service_id: ServiceId) -> Work:
        assert self._want is not None
        if not (self._plane.owns(service_id) or self._want.remove_foreign):
            return
        actual = self._actual[service_id]
        (done,) = yield from self._try([((service_id, None), DeleteService(service_id))])
        if done:
            del self._actual[service_id]
            self._forget(service_id, actual)

    def _forget(self, service_id: ServiceId, last: ProgrammedService | None) -> None:
        """The service is neither wanted nor there."""
        servers: set[ServerId | None] = {None, *self._failing.get(service_id, ()), *(last.servers if last else ())}
        for server_id in servers:
            self._clear((service_id, server_id))
            self._statuses.drop(_name((service_id, server_id)))

    def _clear(self, key: ObjectKey) -> bool:
        if isinstance(key, tuple) and (failing := self._failing.get(key[0])) is not None:
            failing.discard(key[1])
            if not failing:
                del self._failing[key[0]]
        return self._backoff.clear(key)

    def _try(self, ops: Sequence[tuple[ObjectKey, Op]]) -> Trial:
        """Ask for operations, except those that failed lately, and note how each went; True: it was applied."""
        now = asyncio.get_running_loop().time()
        due = [self._backoff.may_try(key, op, now) for key, op in ops]
        errors = iter((yield [op for (_, op), is_due in zip(ops, due, strict=True) if is_due]))
        return [is_due and self._went(key, op, next(errors)) for (key, op), is_due in zip(ops, due, strict=True)]

    def _went(self, key: ObjectKey, op: Op, error: DataPlaneError | None) -> bool:
        if error is None:
            self._succeeded(key, _name(key))
            return True
        retry = not isinstance(error, Unsupported)
        now = asyncio.get_running_loop().time()
        self._backoff.failed(key, op, now, retry=retry)
        self._doubtful = self._doubtful or retry
        if error.errno == ESRCH:  # its service is not there: somebody else deleted it
            self._resync_at = now
        if isinstance(key, tuple):
            self._failing.setdefault(key[0], set()).add(key[1])
        self._statuses.failed(_name(key), str(error))
        return False

    def _succeeded(self, key: ObjectKey, name: str) -> None:
        assert self._want is not None
        self._statuses.programmed(name, self._want.revision, had_failed=self._clear(key))

    async def _breathe(self) -> None:
        if await self._turns.take() and (now := asyncio.get_running_loop().time()) >= self._publish_at:
            self._statuses.publish()
            self._publish_at = now + PUBLISH_S

    def _finish(self) -> None:
        """Everything was tried."""
        assert self._want is not None
        self._believed = {}
        wanted = self._want.programmed.services
        self.foreign.set(frozenset(key for key in self._actual if key not in wanted and not self._plane.owns(key)))
        self._statuses.publish()
        self.settled_revision.set(self._want.revision)
        if not self._backoff and self._doubtful:
            self._resync_at = asyncio.get_running_loop().time()
        elif not self._backoff:
            self.programmed_revision.set(self._want.revision)


def _server_id(op: PutServer | DeleteServer) -> ServerId:
    return op.server.id if isinstance(op, PutServer) else op.server_id


def _name(key: ObjectKey) -> str:
    if isinstance(key, str):
        return key
    service_id, server_id = key
    return str(service_id) if server_id is None else server_name(service_id, server_id)
