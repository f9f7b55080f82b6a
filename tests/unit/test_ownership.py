"""Owner records between two daemons and one store, in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lbnode.election.owner import ASK_AGAIN
from lbnode.election.owner import Ownership as Known
from lbnode.election.supervisor import Election
from lbnode.epochs import Epochs
from lbnode.errors import StoreConflict, StoreUnavailable
from lbnode.journal import Journal
from lbnode.model import Role, VrrpState
from lbnode.ownership import Ownership
from lbnode.store.base import Entry, Expect, Lease, Store, StoreHealth, View
from lbnode.watched import Watched


class MemoryStore:
    """One store that several daemons share; each change is shown to all at once."""

    def __init__(self) -> None:
        self.health = Watched(StoreHealth("memory", True, "", 0.0))
        self.view = View(0)
        self.observers: list[Ownership] = []
        self.reachable = True
        self.asked = 0

    async def txn(self, puts: Mapping[str, str], deletes: Sequence[str] = (), expect: Sequence[Expect] = ()) -> int:
        await asyncio.sleep(0)
        self.asked += 1
        if not self.reachable:
            raise StoreUnavailable("test")
        for guard in expect:
            known = self.view.entries.get(guard.key)
            if (known.revision if known else 0) != guard.revision:
                raise StoreConflict(guard.key)
        revision = self.view.revision + 1
        kept = {key: entry for key, entry in self.view.entries.items() if key not in deletes}
        self.view = View(revision, {**kept, **{k: Entry(v, revision) for k, v in puts.items()}})
        for observer in self.observers:
            observer.observe(self.view)
        return revision

    async def snapshot(self) -> View:
        return self.view

    def watch(self) -> AsyncIterator[View]:
        raise NotImplementedError

    async def lease(self, ttl_s: int) -> Lease:
        raise NotImplementedError

    async def close(self) -> None: ...

    @property
    def owner(self) -> tuple[str, int] | None:
        entry = self.view.entries.get("owners/front")
        document = json.loads(entry.value) if entry and entry.value.startswith("{") else None
        return (document["node"], document["epoch"]) if document else None


class Daemon:
    """An Ownership with an election process that the test plays."""

    def __init__(self, name: str, store: MemoryStore) -> None:
        self.told: list[dict[str, Any]] = []
        self.alive = True  # its election process answers questions
        self.election = Election(name, Journal(name), Path("unused"))
        self.epochs = Epochs({})
        self.becomes(VrrpState.BACKUP)
        self.election.tell = self._tell  # type: ignore[method-assign]
        self.ownership = Ownership(name, cast("Store", store), self.election, self.epochs)
        store.observers.append(self.ownership)

    def _tell(self, message: dict[str, Any]) -> None:
        self.told.append(message)
        if self.alive and "question" in message:
            self.says({"alive": message["question"]})

    def says(self, message: dict[str, Any]) -> None:
        self.election.on_request(message)

    def becomes(self, state: VrrpState, epoch: int = 0, *, claims: bool = True) -> None:
        """`epoch`: of its ownership, as far as its election process knows it."""
        self.election.roles.set({"front": Role("front", state, 100, time.time(), "test", epoch=epoch)})
        self.epochs.take_roles(self.election.roles.value, 0.0)
        if state is VrrpState.ACTIVE and claims:
            self.says({"claim": "front"})

    def heard(self, kind: str) -> list[Any]:
        return [message[kind] for message in self.told if kind in message]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[MemoryStore, Daemon, Daemon]]:
    store = MemoryStore()
    a, b = Daemon("a", store), Daemon("b", store)
    tasks = [asyncio.create_task(daemon.ownership.run()) for daemon in (a, b)]
    await until(lambda: a.heard("store") == b.heard("store") == [True])
    yield store, a, b
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_each_change_of_owner_counts_one_epoch(pair: tuple[MemoryStore, Daemon, Daemon]) -> None:
    store, a, b = pair
    a.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("a", 1))
    written = store.asked
    a.says({"claim": "front"})  # a restarted process: the same owner, but what is seen of the store may be old
    await until(lambda: store.asked == written + 1 and len(a.heard("owner")) == 3)
    a.becomes(VrrpState.BACKUP)
    b.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("b", 2))
    assert a.heard("owner")[-1] == {"group": "front", "node": "b", "epoch": 2} == b.heard("owner")[-1]


async def test_of_two_claims_at_once_one_is_written_after_the_other(pair: tuple[MemoryStore, Daemon, Daemon]) -> None:
    store, a, b = pair
    a.becomes(VrrpState.ACTIVE)
    b.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner is not None and store.owner[1] == 2)
    a.becomes(VrrpState.BACKUP)
    b.becomes(VrrpState.BACKUP)


async def test_a_claim_is_given_up_when_the_role_is_gone(
    pair: tuple[MemoryStore, Daemon, Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, a, _b = pair
    monkeypatch.setattr("lbnode.ownership.RETRY_S", 0.01)
    store.reachable = False
    a.becomes(VrrpState.ACTIVE)
    await until(lambda: store.asked == 2)  # it tries again
    a.becomes(VrrpState.BACKUP)
    store.reachable = True
    await asyncio.sleep(0.05)
    assert store.owner is None


async def test_an_owner_that_lives_answers_and_one_that_does_not_is_silent(
    pair: tuple[MemoryStore, Daemon, Daemon],
) -> None:
    store, a, b = pair
    b.says({"ask": {"group": "front", "within": 1.0}})
    await until(lambda: b.heard("answer") == [{"group": "front", "node": "", "alive": False}])  # nobody owns it
    a.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("a", 1))
    b.says({"ask": {"group": "front", "within": 1.0}})
    await until(lambda: b.heard("answer")[1:] == [{"group": "front", "node": "a", "alive": True}])
    a.alive = False  # its election process is stopped
    b.says({"ask": {"group": "front", "within": 0.01}})
    await until(lambda: b.heard("answer")[2:] == [{"group": "front", "node": "a", "alive": False}])


async def test_a_store_that_is_away_answers_nothing(pair: tuple[MemoryStore, Daemon, Daemon]) -> None:
    store, a, b = pair
    a.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("a", 1))
    store.reachable = False
    b.says({"ask": {"group": "front", "within": 0.01}})
    await asyncio.sleep(0.05)
    assert b.heard("answer") == []


def test_the_process_asks_once_for_each_timer_and_not_at_all_while_the_owner_has_just_answered() -> None:
    known = Known()
    assert not known.wants_to_ask(1, 0, refused=False) and known.answered(1) is None  # there is no store
    known.store = True
    assert known.wants_to_ask(1, 0, refused=False) and known.answered(1) is False
    known.answer("a", True, 5)
    assert known.answered(1) is True and known.alive
    assert not known.wants_to_ask(2, 6, refused=True) and known.answered(2) is True
    assert known.wants_to_ask(3, 7, refused=False) and known.answered(3) is False  # it was heard meanwhile
    known.answer("a", True, 5)
    assert known.wants_to_ask(4, 5 + ASK_AGAIN, refused=True) and known.answered(4) is False


@pytest.mark.parametrize("record", ["not JSON", '{"node": "b", "epoch": 18446744073709551616}'])
async def test_a_record_that_nobody_understands_is_replaced(
    record: str, pair: tuple[MemoryStore, Daemon, Daemon]
) -> None:
    store, a, _b = pair
    await store.txn({"owners/front": record, "owners/front/question": "[]"})
    a.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("a", 1))


async def test_a_claim_counts_on_from_the_highest_epoch_seen_not_from_an_older_backup_of_the_store(
    pair: tuple[MemoryStore, Daemon, Daemon],
) -> None:
    store, a, b = pair
    a.epochs.see("front", 6)  # from its disk; the store was set up anew
    a.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("a", 7))
    assert b.epochs.newest("front") == 7


async def test_an_active_writes_its_record_again_when_the_store_has_gone_back(
    pair: tuple[MemoryStore, Daemon, Daemon],
) -> None:
    store, a, b = pair
    a.becomes(VrrpState.ACTIVE, epoch=7)
    await until(lambda: store.owner == ("a", 7))
    told = len(a.heard("owner"))
    await store.txn({"owners/front": json.dumps({"node": "a", "epoch": 3})})
    await until(lambda: store.owner == ("a", 7))
    await store.txn({"owners/front": json.dumps({"node": "b", "epoch": 4})})
    await until(lambda: store.owner == ("a", 7))
    await store.txn({}, deletes=["owners/front"])
    await until(lambda: store.owner == ("a", 7))
    assert all(owner["epoch"] == 7 for owner in (*a.heard("owner")[told:], *b.heard("owner")[1:]))


async def test_an_active_that_was_overtaken_does_not_take_the_record_back(
    pair: tuple[MemoryStore, Daemon, Daemon],
) -> None:
    store, a, b = pair
    a.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("a", 1))
    a.becomes(VrrpState.ACTIVE, epoch=1, claims=False)
    b.epochs.see("front", 1)
    b.becomes(VrrpState.ACTIVE)
    await until(lambda: store.owner == ("b", 2))
    a.epochs.see("front", 3)  # a peer's record may tell of an epoch before the store does
    written = store.asked
    await store.txn({"anything": "else"})
    await asyncio.sleep(0.02)
    assert store.owner == ("b", 2) and store.asked == written + 1
    a.becomes(VrrpState.BACKUP)
    b.becomes(VrrpState.BACKUP)
