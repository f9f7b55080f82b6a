"""The contract of store/base.py, the same for etcd (real etcd-server processes) and the embedded store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lbnode.errors import StoreConflict
from lbnode.store.base import Expect, Store
from lbnode.store.embedded import EmbeddedStore
from lbnode.store.etcd import EtcdStore
from tests.contracts.etcd_cluster import EtcdCluster
from tests.contracts.following import PATIENCE_S, follow, values

OpenStore = Callable[[], Any]
_names = itertools.count()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest_asyncio.fixture(params=[pytest.param("etcd", marks=pytest.mark.etcd), "embedded"])
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens one more client of the same, initially empty, store."""
    opened: list[Any] = []
    name = f"contract{next(_names)}"
    cluster = request.getfixturevalue("etcd") if request.param == "etcd" else None

    def open_one() -> Any:
        opened.append(EtcdStore(cluster.endpoints, name) if cluster else EmbeddedStore(tmp_path / "store.db"))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


async def test_an_empty_store_is_read_and_watched_as_empty(open_store: OpenStore) -> None:
    store = open_store()
    assert not store.health.value.connected
    assert values(await store.snapshot()) == {}
    async with follow(store) as follower:
        assert values(follower.views[0]) == {}
    assert store.health.value.connected
    assert store.health.value.problem == ""


async def test_a_put_is_read_back_with_its_revision(open_store: OpenStore) -> None:
    store = open_store()
    before = (await store.snapshot()).revision
    first = await store.txn({"services/a": "1", "services/b": "1"})
    second = await store.txn({"services/b": "2"})
    assert before < first < second
    view = await store.snapshot()
    assert view.revision == second
    assert {key: (entry.value, entry.revision) for key, entry in view.entries.items()} == {
        "services/a": ("1", first),
        "services/b": ("2", second),
    }


async def test_puts_and_deletes_of_one_transaction_share_one_revision(open_store: OpenStore) -> None:
    store = open_store()
    await store.txn({"a": "1", "b": "1"})
    revision = await store.txn({"c": "1", "d": "1"}, deletes=["a", "b", "never-was"])
    view = await store.snapshot()
    assert values(view) == {"c": "1", "d": "1"}
    assert {entry.revision for entry in view.entries.values()} == {revision} == {view.revision}


async def test_a_transaction_that_changes_nothing_makes_no_revision(open_store: OpenStore) -> None:
    store = open_store()
    revision = await store.txn({"a": "1"})
    assert await store.txn({}, deletes=["never-was"]) == revision
    assert await store.txn({}) == revision


async def test_a_key_cannot_be_both_put_and_deleted(open_store: OpenStore) -> None:
    with pytest.raises(ValueError, match="services/a is both put and deleted"):
        await open_store().txn({"services/a": "1"}, deletes=["services/a"])


async def test_guards_that_hold_let_the_transaction_through(open_store: OpenStore) -> None:
    store = open_store()
    created = await store.txn({"a": "1"}, expect=[Expect("a", 0)])
    changed = await store.txn({"a": "2"}, expect=[Expect("a", created), Expect("b", 0)])
    await store.txn({}, deletes=["a"], expect=[Expect("a", changed)])
    assert values(await store.snapshot()) == {}


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        (lambda revision: Expect("a", 0), "a exists already"),
        (lambda revision: Expect("a", revision - 1), "a is at revision"),
        (lambda revision: Expect("gone", revision), "gone was deleted"),
    ],
)
async def test_a_guard_that_fails_stops_the_whole_transaction(
    open_store: OpenStore, guard: Callable[[int], Expect], message: str
) -> None:
    store = open_store()
    revision = await store.txn({"a": "1", "keep": "1"})
    with pytest.raises(StoreConflict, match=message):
        await store.txn({"a": "2", "new": "2"}, deletes=["keep"], expect=[Expect("keep", revision), guard(revision)])
    view = await store.snapshot()
    assert values(view) == {"a": "1", "keep": "1"}
    assert view.revision == revision


async def test_guards_lose_no_update_between_two_writers(open_store: OpenStore) -> None:
    async def count_up(store: Store, times: int) -> None:
        while times:
            entry = (await store.snapshot()).entries["counter"]
            try:
                await store.txn({"counter": str(int(entry.value) + 1)}, expect=[Expect("counter", entry.revision)])
            except StoreConflict:
                continue
            times -= 1

    one, other = open_store(), open_store()
    await one.txn({"counter": "0"})
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(count_up(one, 15), count_up(other, 15))
    assert values(await one.snapshot()) == {"counter": "30"}


async def test_a_watch_shows_what_others_change_in_order(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    await other.txn({"before": "1"})
    async with follow(store) as follower:
        assert values(follower.views[0]) == {"before": "1"}
        await other.txn({"a": "1"})
        await follower.until_value("a", "1")
        await other.txn({"a": "2", "b": "1"})
        await follower.until_value("a", "2")
        await other.txn({}, deletes=["a", "before"])
        view = await follower.until_value("a", None)
        assert view == await other.snapshot()
        revisions = [view.revision for view in follower.views]
        assert revisions == sorted(set(revisions))


async def test_earlier_views_do_not_change_under_their_readers(open_store: OpenStore) -> None:
    store = open_store()
    await store.txn({"a": "1"})
    async with follow(store) as follower:
        first = follower.views[0]
        await store.txn({"a": "2", "b": "2"})
        await follower.until_value("b", "2")
        assert values(first) == {"a": "1"}


async def test_a_transaction_is_never_seen_in_part(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    keys = [f"servers/{n}" for n in range(20)]
    async with follow(store) as follower:
        for step in range(40):
            await other.txn(dict.fromkeys(keys, str(step)))
        await follower.until_value(keys[0], "39")
        for view in follower.views[1:]:
            assert len(view.entries) == len(keys)
            assert len(set(view.entries.values())) == 1


async def test_a_slow_reader_gets_the_newest_view_and_no_queue(open_store: OpenStore) -> None:
    store = open_store()
    watch = store.watch()
    assert values(await anext(watch)) == {}
    async with follow(store) as follower:  # a second, quick reader tells when everything has arrived
        for step in range(50):
            await store.txn({"a": str(step)})
        await follower.until_value("a", "49")
    assert values(await anext(watch)) == {"a": "49"}
    await watch.aclose()


async def test_closing_the_store_ends_its_watches(open_store: OpenStore) -> None:
    store = open_store()
    seen = []

    async def read() -> None:
        async for view in store.watch():
            seen.append(view)
            await store.close()

    async with asyncio.timeout(PATIENCE_S):
        await read()
    assert len(seen) == 1


async def test_many_keys_in_one_transaction(open_store: OpenStore) -> None:
    """More than etcd takes as a flat list (128 operations by default), and still one revision."""
    store, other = open_store(), open_store()
    keys = {f"services/tcp:192.0.2.1:{port}/servers/198.51.100.1:80": f'{{"weight": {port}}}' for port in range(3000)}
    async with follow(store) as follower:
        revision = await other.txn(keys, expect=[Expect(key, 0) for key in itertools.islice(keys, 60)])
        view = await follower.until(lambda view: bool(view.entries))
        assert values(view) == keys
        assert {entry.revision for entry in view.entries.values()} == {revision}
        await other.txn({}, deletes=list(keys))
        await follower.until(lambda view: not view.entries)


async def test_text_of_any_language_and_size(open_store: OpenStore) -> None:
    store = open_store()
    keys = {"checks/naïve ☃ 日本": "värde 🚀", "empty": "", "long": "x" * 500_000, "sp ace/%2F": '{"a": "\\u0000"}\n'}
    async with follow(store) as follower:
        await store.txn(keys)
        view = await follower.until_value("empty", "")
        assert values(view) == keys == values(await store.snapshot())


async def test_a_lease_is_kept_alive_and_ends_with_its_owner(open_store: OpenStore) -> None:
    owner, store = open_store(), open_store()
    await store.txn({"stays": "1"})
    async with follow(store) as follower:
        lease = await owner.lease(2)
        await lease.put("nodes/gw1/role", "active")
        await lease.put("nodes/gw1/role", "backup")
        await follower.until_value("nodes/gw1/role", "backup")
        # A lease that nobody keeps alive and that was granted later goes first; ours must still be there then.
        forgotten = open_store()
        await (await forgotten.lease(4)).put("nodes/gw2/role", "backup")
        await forgotten.close()
        await follower.until_value("nodes/gw2/role", "backup")
        view = await follower.until_value("nodes/gw2/role", None)
        assert values(view) == {"stays": "1", "nodes/gw1/role": "backup"}
        await owner.close()
        view = await follower.until_value("nodes/gw1/role", None)
        assert values(view) == {"stays": "1"}


async def test_a_revoked_lease_takes_its_keys_along(open_store: OpenStore) -> None:
    store = open_store()
    lease = await store.lease(60)
    await lease.put("nodes/gw1/role", "active")
    await lease.put("nodes/gw1/revision", "7")
    await lease.revoke()
    assert values(await store.snapshot()) == {}
    with pytest.raises(ValueError, match="revoked"):
        await lease.put("nodes/gw1/role", "active")


async def test_a_lost_lease_is_made_again_with_its_keys(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    lease = await store.lease(3)
    await lease.put("nodes/gw1/role", "active")
    await lease.put("nodes/gw1/revision", "7")
    async with follow(other) as follower:
        await other.revoke(lease._id)
        await follower.until(lambda view: not view.entries)
        await follower.until(lambda view: len(view.entries) == 2)
        await other.revoke(lease._id)
        await follower.until(lambda view: not view.entries)
        await lease.put("nodes/gw1/role", "backup")  # a put notices the loss by itself
        await follower.until(lambda view: values(view) == {"nodes/gw1/role": "backup", "nodes/gw1/revision": "7"})
