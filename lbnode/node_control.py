"""NodeControl: what an operator asks of this node (lbnode.control.Control), done with the node's parts.

Changes go to the store, never straight to the data plane, so that every gateway follows. Each is checked against the
whole configuration first and written as one transaction guarded by the revisions that the check read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from lbnode.capture import Captured, CaptureRequest
from lbnode.config.change import Transaction, patch_server, plan_apply, plan_request
from lbnode.config.document import documents, entries_to_document
from lbnode.config.keys import is_config_key
from lbnode.config.resolve import Resolution, resolve
from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.control import ChangeRequest, ChangeResult, NodeStatus, ServiceInfo
from lbnode.dataplane.base import DataPlane
from lbnode.errors import StoreConflict
from lbnode.explanation import Explanation, Question
from lbnode.feed import ConfigFeed
from lbnode.journal import Event, Journal, Kind
from lbnode.model import ServiceId
from lbnode.store.base import Entry, Store
from lbnode.tuning import kernel
from lbnode.tuning.kernel import SysctlFinding
from lbnode.tuning.profile import Setting, ipvs_sysctls, profile
from lbnode.watched import Watched

# A change without `expect_revision` is planned anew when another one came between its reading and its writing.
ATTEMPTS = 5

Entries = Mapping[str, Entry]


class NodeControl:
    """See lbnode.control.Control for what each method promises and raises."""

    def __init__(
        self,
        *,
        store: Store,
        plane: DataPlane,
        feed: ConfigFeed,
        journal: Journal,
        services: Watched[tuple[ServiceInfo, ...]],
        node_status: Watched[NodeStatus],
        heir: Callable[[str, str], str],
        handover: Callable[[str, str], Awaitable[None]],
    ) -> None:
        self.journal = journal
        self.services = services
        self.node_status = node_status
        self._store = store
        self._plane = plane
        self._feed = feed
        self._heir = heir
        self._handover = handover

    # --- configuration ------------------------------------------------------------------------------------------

    async def document(self) -> tuple[int, Mapping[str, Any]]:
        revision, entries = await self._read()
        return revision, entries_to_document(documents(entries))

    async def apply(
        self,
        document: Mapping[str, Any],
        *,
        who: str,
        prune: bool,
        expect_revision: int | None,
        dry_run: bool = False,
    ) -> ChangeResult:
        def planned(entries: Entries) -> Transaction:
            current = self._in_force(entries)
            return plan_apply(entries, document, current, prune=prune, expect_revision=expect_revision)

        return await self._transact(planned, who=who, retry=expect_revision is None, dry_run=dry_run)

    async def change(self, request: ChangeRequest) -> ChangeResult:
        def planned(entries: Entries) -> Transaction:
            return plan_request(entries, request, self._in_force(entries))

        retry = request.expect_revision is None
        return await self._transact(planned, who=request.who, retry=retry, dry_run=request.dry_run)

    async def set_server(self, service_id: str, server_id: str, changes: Mapping[str, Any], who: str) -> ChangeResult:
        def planned(entries: Entries) -> Transaction:
            put = patch_server(entries, service_id, server_id, changes)
            return plan_request(entries, ChangeRequest(put=put), self._in_force(entries))

        return await self._transact(planned, who=who, retry=True, dry_run=False)

    async def _transact(
        self, planned: Callable[[Entries], Transaction], *, who: str, retry: bool, dry_run: bool
    ) -> ChangeResult:
        for attempt in range(1, ATTEMPTS + 1):
            revision, entries = await self._read()
            transaction = planned(entries)
            if dry_run:
                return ChangeResult(revision, transaction.changes)
            if not transaction.changes:  # who waits for it must not wait for keys that nodes write, and nobody follows
                return ChangeResult(max((entry.revision for entry in entries.values()), default=0), ())
            try:
                revision = await self._store.txn(transaction.puts, transaction.deletes, transaction.expect)
            except StoreConflict:
                if not retry or attempt == ATTEMPTS:
                    raise
                continue
            for change in transaction.changes:
                self.journal.record(Kind.CONFIG, change.key, f"{change.action} stored at revision {revision}", who=who)
            return ChangeResult(revision, transaction.changes)
        raise AssertionError("the last attempt returns or raises")

    async def _read(self) -> tuple[int, Entries]:
        view = await self._store.snapshot()
        return view.revision, {key: entry for key, entry in view.entries.items() if is_config_key(key)}

    def _in_force(self, entries: Entries) -> Resolution:
        """What `entries` resolve to, starting from what this node has resolved last: only what differs is work."""
        known = self._feed.resolution.value
        return resolve(entries, known) if known is not None else resolve(entries)

    # --- the data plane -----------------------------------------------------------------------------------------

    async def zero(self, service_id: str | None) -> None:
        if service_id is None:
            await self._plane.zero(None)
            return
        if service_id not in (service.id for service in self.services.value):
            raise KeyError(f"there is no service {service_id}")
        await self._plane.zero(ServiceId.parse(service_id))

    def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[Sequence[str]]:
        return self._plane.connections(wanted)

    async def explain(self, question: Question) -> Explanation:
        return await self._plane.explain(question)

    async def capture(self, request: CaptureRequest, who: str) -> AsyncGenerator[Captured, None]:
        async with aclosing(self._plane.capture(request)) as packets:
            first = await anext(packets)
            self.journal.record(Kind.DATAPLANE, "capture", "began", str(request), who)
            try:
                yield first
                async for captured in packets:
                    yield captured
            finally:
                self.journal.record(Kind.DATAPLANE, "capture", "ended", "", who)

    def events_since(self, seq: int, limit: int) -> Sequence[Event]:
        return self.journal.since(seq, limit)

    def heir(self, group: str, to: str = "") -> str:
        return self._heir(group, to)

    async def handover(self, group: str, to: str = "") -> None:
        await self._handover(group, to)

    # --- kernel settings ----------------------------------------------------------------------------------------

    async def sysctl_check(self) -> Sequence[SysctlFinding]:
        return await asyncio.to_thread(kernel.check, self._wanted_settings())

    async def sysctl_apply(self, who: str) -> Sequence[SysctlFinding]:
        before = await asyncio.to_thread(kernel.apply, self._wanted_settings())
        for finding in before:
            if not finding.ok:
                was = f"was {finding.actual}"
                self.journal.record(Kind.NODE, finding.key, f"set to {finding.wanted}", was, who)
        return await self.sysctl_check()

    def _wanted_settings(self) -> tuple[Setting, ...]:
        resolution = self._feed.resolution.value
        overrides = dict(resolution.config.settings.sysctl) if resolution else {}
        if self._plane.capabilities().kind == "ipvs":
            overrides = ipvs_sysctls(overrides) | overrides
        return profile(overrides, kernel.interfaces())
