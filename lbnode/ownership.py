"""Who owns each VIP group, in the shared store: a tie-break with an epoch, never a lock.

`owners/GROUP` names the node that became Active last and counts the changes of owner; it is written by compare-and-swap
after the takeover, which waits for nothing here. The epoch never goes back, also if the store does (a backup was
restored, etcd was set up anew): whoever claims a group counts on from the highest epoch that this node has seen, and an
Active whose record is gone or older writes it again. `owners/GROUP/question` and `.../answer` let a Backup that hears
nobody ask the owner whether it lives, in the time that VRRP makes it wait anyhow. Nothing is written while all is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lbnode.config.keys import OWNERS
from lbnode.election.supervisor import Election
from lbnode.epochs import Epochs
from lbnode.errors import LbError, StoreConflict
from lbnode.model import VrrpState
from lbnode.store.base import Expect, Store, View

WRITE_TIMEOUT_S = 2.0
RETRY_S = 1.0
MAX_EPOCH = 1 << 63  # heartbeats and connection records carry 64 bits; nobody counts so far

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    node: str
    epoch: int


class Ownership:
    """Between the store and the election process, which has no store client of its own."""

    def __init__(self, node: str, store: Store, election: Election, epochs: Epochs) -> None:
        self._node = node
        self._epochs = epochs
        self._repairing: set[str] = set()  # groups
        self._store = store
        self._election = election
        self._view = View(0)
        self._told: dict[str, Any] = {}  # what the process knows: questions and owners by key
        self._answers: dict[str, asyncio.Event] = {}  # by question
        self._seen = asyncio.Event()  # a view has come
        self._tasks: asyncio.TaskGroup | None = None
        election.on_request = self._request

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            async for health in self._store.health.changes():
                self._election.tell({"store": health.connected})

    def observe(self, view: View) -> None:
        """Take in the newest view of the store. Only keys of our groups are looked at: there may be 100,000 others."""
        self._view = view
        self.see_epochs()
        for group in self._election.roles.value:
            owner = self._owner(group)
            if owner is not None and owner.epoch == self._epochs.newest(group):
                self._tell_once(OWNERS + group, _owner_message(group, owner))
            self._repair_soon(group, owner)
            question, answer = self._read(f"{OWNERS}{group}/question"), self._read(f"{OWNERS}{group}/answer")
            if question.get("id") and question.get("by") != self._node:
                told = {"question": {"group": group, "question": question["id"]}}
                self._tell_once(f"{OWNERS}{group}/question", told)
            if (waiting := self._answers.get(answer.get("id", ""))) is not None:
                waiting.set()
        self._seen.set()
        self._seen = asyncio.Event()

    def see_epochs(self) -> None:
        """Of our groups, which are not known yet when the first view of the store comes."""
        for group in self._election.roles.value:
            if (owner := self._owner(group)) is not None:
                self._epochs.see(group, owner.epoch)

    def _owner(self, group: str) -> Owner | None:
        document = self._read(OWNERS + group)
        node, epoch = document.get("node"), document.get("epoch")
        if not isinstance(node, str) or not isinstance(epoch, int) or not 0 < epoch < MAX_EPOCH:
            return None
        return Owner(node, epoch)

    def _read(self, key: str) -> Mapping[str, Any]:
        """Empty if the key is not there, or another version of lbnode wrote something that is not understood."""
        entry = self._view.entries.get(key)
        try:
            document = json.loads(entry.value) if entry is not None else {}
        except ValueError:
            document = None
        if not isinstance(document, dict):
            log.warning("%s is not understood (another version of lbnode?)", key)
            return {}
        return document

    def _tell_once(self, key: str, message: dict[str, Any]) -> None:
        if self._told.get(key) != message:
            self._told[key] = message
            self._election.tell(message)

    def _repair_soon(self, group: str, owner: Owner | None) -> None:
        """Our own record, if the store has gone back to a time before it."""
        lost = self._epochs.owned(group) > (owner.epoch if owner else 0)
        if lost and group not in self._repairing and self._tasks is not None:
            self._repairing.add(group)
            self._tasks.create_task(self._repair(group, owner))

    async def _repair(self, group: str, owner: Owner | None) -> None:
        """Once: what comes of it is seen, and if it is still an older record this begins again."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._write(group, owner)
        except (LbError, TimeoutError) as error:
            log.info("the owner of VIP group %s could not be written again: %s", group, error)
        finally:
            self._repairing.discard(group)

    # --- what the election process wants -----------------------------------------------------------------------

    def _request(self, message: Mapping[str, Any]) -> None:
        if self._tasks is None:
            return
        match message:
            case {"ready": _}:  # a new process knows nothing yet
                self._election.tell({"store": self._store.health.value.connected})
            case {"claim": str(group)}:
                self._tasks.create_task(self._claim(group))
            case {"ask": {"group": str(group), "within": float(within)}}:
                self._tasks.create_task(self._ask(group, within))
            case {"alive": {"group": str(group), "question": str(question)}}:
                self._tasks.create_task(self._put(f"{OWNERS}{group}/answer", {"id": question, "node": self._node}))

    async def _claim(self, group: str) -> None:
        """Write that this node is the owner, for as long as it is Active and another one is named."""

        def active() -> bool:
            role = self._election.roles.value.get(group)
            return role is not None and role.state is VrrpState.ACTIVE

        written = False  # what is seen may be old: that it names us proves nothing before we have written
        while active():
            owner, seen = self._owner(group), self._seen
            if written and owner is not None and owner.node == self._node:
                self._election.tell(_owner_message(group, owner))
                return
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._write(group, owner)
                written = True
            except StoreConflict:  # what it found is on its way to us
                pass
            except (LbError, TimeoutError):
                await asyncio.sleep(RETRY_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await seen.wait()

    async def _write(self, group: str, before: Owner | None) -> None:
        newest = max(before.epoch if before else 0, self._epochs.newest(group))
        named = before is not None and before == Owner(self._node, newest)
        epoch = newest if named or newest == self._epochs.owned(group) > 0 else newest + 1
        document = {"node": self._node, "epoch": epoch, "since": round(time.time(), 3)}
        known = self._view.entries.get(OWNERS + group)
        guard = Expect(OWNERS + group, known.revision if known else 0)
        await self._store.txn({OWNERS + group: json.dumps(document)}, expect=[guard])

    async def _ask(self, group: str, within: float) -> None:
        """Ask the owner whether it lives, and tell the process; nothing if the store does not answer in time."""
        owner = self._owner(group)
        if owner is None or owner.node == self._node:
            self._answer(group, "", alive=False)
            return
        question, answered = secrets.token_hex(8), asyncio.Event()
        self._answers[question] = answered
        asked = False
        try:
            async with asyncio.timeout(within):
                asked = await self._put(f"{OWNERS}{group}/question", {"id": question, "by": self._node})
                if asked:
                    await answered.wait()
        except TimeoutError:
            pass
        finally:
            del self._answers[question]
        if asked:
            self._answer(group, owner.node, alive=answered.is_set())

    def _answer(self, group: str, node: str, *, alive: bool) -> None:
        self._election.tell({"answer": {"group": group, "node": node, "alive": alive}})

    async def _put(self, key: str, document: Mapping[str, str]) -> bool:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._store.txn({key: json.dumps(document)})
        except (LbError, TimeoutError) as error:
            log.info("%s could not be written: %s", key, error)
            return False
        return True


def _owner_message(group: str, owner: Owner) -> dict[str, Any]:
    return {"owner": {"group": group, "node": owner.node, "epoch": owner.epoch}}
