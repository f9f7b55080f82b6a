"""What only etcd can do wrong: members that die, hang or lose their memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lbnode.errors import StoreConflict, StoreRefused, StoreUnavailable
from lbnode.store import etcd_pb2 as pb
from lbnode.store.base import Expect
from lbnode.store.etcd import EtcdStore
from lbnode.store.etcd_rpc import RpcFailed
from lbnode.store.etcd_wire import Endpoint, Fault
from tests.contracts.etcd_cluster import EtcdCluster
from tests.contracts.following import PATIENCE_S, follow, health_until, values

pytestmark = pytest.mark.etcd

_names = itertools.count()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), members=3) as cluster:
        yield cluster


@pytest.fixture
def etcd(three: EtcdCluster) -> Iterator[EtcdCluster]:
    """Three members, all healthy at start."""
    yield three
    three.heal()


Connect = Callable[..., EtcdStore]


def new_name() -> str:
    return f"faults{next(_names)}"


async def blocking(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


async def until_txn(store: EtcdStore, puts: dict[str, str]) -> None:
    """Put, and put again while the cluster elects a new leader."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await store.txn(puts)
            except StoreUnavailable:
                continue
            return


async def test_etcdctl_and_the_store_see_each_others_keys(etcd: EtcdCluster, connect: Connect) -> None:
    store = connect(etcd.endpoints, name := new_name())
    async with follow(store) as follower:
        await blocking(etcd.ctl, "put", f"/lbnode/{name}/services/tcp:192.0.2.10:80", '{"scheduler": "wrr"}')
        await follower.until_value("services/tcp:192.0.2.10:80", '{"scheduler": "wrr"}')
        await store.txn({"settings": "{}"})
        assert await blocking(etcd.ctl, "get", "--print-value-only", f"/lbnode/{name}/settings") == "{}\n"
        await blocking(etcd.ctl, "del", f"/lbnode/{name}/settings")
        await follower.until_value("settings", None)


async def test_other_prefixes_are_not_ours(etcd: EtcdCluster, connect: Connect) -> None:
    name = new_name()
    store, neighbour = connect(etcd.endpoints, name), connect(etcd.endpoints, name + "0")
    await neighbour.txn({"a": "1"})
    await blocking(etcd.ctl, "put", f"/lbnode/{name}", "no key of ours")
    async with follow(store) as follower:
        await store.txn({"b": "1"})
        assert values(await follower.until_value("b", "1")) == {"b": "1"}


async def test_bytes_that_are_no_text_do_not_stop_the_watch(etcd: EtcdCluster, connect: Connect) -> None:
    store = connect(etcd.endpoints, new_name())
    async with follow(store) as follower:
        request = pb.PutRequest(key=store.prefix.encode() + b"bad\xff", value=b'{"weight": \xfe}')
        await store._rpc.call("KV/Put", request, pb.TxnResponse)
        await follower.until_value("bad\ufffd", '{"weight": \ufffd}')


async def test_the_watched_member_is_killed(etcd: EtcdCluster, connect: Connect) -> None:
    name = new_name()
    store = connect(etcd.endpoints, name)
    async with follow(store) as follower:
        for round_ in range(2):
            member = etcd.member_at(store.health.value.endpoint)
            etcd.kill(member)
            await until_txn(connect(etcd.endpoints, name), {"a": str(round_)})
            await follower.until_value("a", str(round_))
            health = await health_until(store, lambda health: health.connected)
            assert etcd.member_at(health.endpoint) != member
            await blocking(etcd.heal)
        revisions = [view.revision for view in follower.views]
        assert revisions == sorted(set(revisions))


async def test_the_watched_member_hangs(etcd: EtcdCluster, connect: Connect) -> None:
    """SIGSTOP: the connection stays open, nothing arrives any more, no error either."""
    name = new_name()
    store = connect(etcd.endpoints, name)
    async with follow(store) as follower:
        await store.txn({"a": "0"})
        await follower.until_value("a", "0")
        member = etcd.member_at(store.health.value.endpoint)
        etcd.pause(member)
        others = [url for i, url in enumerate(etcd.endpoints) if i != member]
        await until_txn(connect(others, name), {"a": "1"})
        await follower.until_value("a", "1")
        assert etcd.member_at(store.health.value.endpoint) != member


async def test_a_member_cut_off_from_the_others_is_left(etcd: EtcdCluster, connect: Connect) -> None:
    """The watched member runs, but its cluster has no quorum: it cannot know of changes, and says so."""
    store = connect(etcd.endpoints, new_name())
    async with follow(store) as follower:
        await store.txn({"a": "1"})
        await follower.until_value("a", "1")
        member = etcd.member_at(store.health.value.endpoint)
        for other in {0, 1, 2} - {member}:
            etcd.pause(other)
        await health_until(store, lambda health: not health.connected)
        for other in {0, 1, 2} - {member}:
            etcd.resume(other)
        await health_until(store, lambda health: health.connected)
        await until_txn(store, {"a": "2"})
        await follower.until_value("a", "2")


async def test_all_members_down_and_back(etcd: EtcdCluster, connect: Connect) -> None:
    name = new_name()
    store = connect(etcd.endpoints, name)
    lease = await store.lease(2)
    await lease.put("nodes/gw1/role", "active")
    async with follow(store) as follower:
        await store.txn({"a": "1"})
        await follower.until_value("a", "1")
        etcd.stop_all()
        health = await health_until(store, lambda health: "no etcd member answers" in health.problem)
        assert not health.connected
        refused = [f"{etcd.address(member)}: connection refused" for member in range(3)]
        await health_until(store, lambda health: all(text in health.problem for text in refused))
        assert values(follower.views[-1])["a"] == "1"  # the last view stays

        async with asyncio.timeout(PATIENCE_S):
            calls = [store.snapshot(), store.txn({"a": "never"}), lease.put("nodes/gw1/role", "backup")]
            for error in await asyncio.gather(*calls, return_exceptions=True):  # each gives up after its deadline
                assert isinstance(error, StoreUnavailable)
                assert "connection refused" in str(error)

        starter = connect(etcd.endpoints, name)
        late = asyncio.create_task(anext(starter.watch()))  # type: ignore[arg-type]
        await health_until(starter, lambda health: "no etcd member answers" in health.problem)
        await blocking(etcd.heal)
        await health_until(store, lambda health: health.connected and not health.problem)
        await until_txn(store, {"a": "2"})
        await follower.until_value("a", "2")
        await follower.until_value("nodes/gw1/role", "backup")
        async with asyncio.timeout(PATIENCE_S):
            assert "a" in (await late).entries


@contextmanager
def cut_off(store: EtcdStore) -> Iterator[None]:
    """The store loses its connection and finds no member until the end of the block."""
    endpoints = store._rpc.endpoints
    store._rpc.endpoints = [Endpoint("127.0.0.1", 1, tls=False)] * len(endpoints)
    store._rpc._drop_channels()
    yield
    store._rpc.endpoints = endpoints
    store._rpc._drop_channels()


async def test_compaction_while_cut_off_lists_again(etcd: EtcdCluster, connect: Connect) -> None:
    name = new_name()
    store, other = connect(etcd.endpoints, name), connect(etcd.endpoints, name)
    await store.txn({"stays": "1", "goes": "1", "changes": "1"})
    async with follow(store) as follower:
        with cut_off(store):
            await health_until(store, lambda health: not health.connected)
            await other.txn({"changes": "2", "comes": "1"})
            revision = await other.txn({}, deletes=["goes"])
            await blocking(etcd.ctl, "compact", str(revision))
            assert values(follower.views[-1]) == {"stays": "1", "goes": "1", "changes": "1"}
        view = await follower.until_value("goes", None)
        assert values(view) == {"stays": "1", "changes": "2", "comes": "1"}
        await other.txn({"changes": "3"})
        await follower.until_value("changes", "3")


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_replaced_cluster_is_listed_anew(tmp_path: Path, connect: Connect, ahead: bool) -> None:
    """Another cluster at the same address, at a lower or higher revision: a plain watch would stay silent or lie."""
    with EtcdCluster(tmp_path) as etcd:
        store = connect(etcd.endpoints, "t")
        lease = await store.lease(60)
        await lease.put("nodes/gw1/role", "active")
        for step in range(10):
            await store.txn({"a": str(step)})
        async with follow(store) as follower:
            with cut_off(store):
                await health_until(store, lambda health: not health.connected)
                etcd.kill(0)
                etcd.start(0, fresh=9)
                await blocking(etcd.wait_ready)
                for step in range(20 if ahead else 0):
                    await blocking(etcd.ctl, "put", "/lbnode/t/new", str(step))
            await follower.until_value("a", None)
            await until_txn(store, {"b": "1"})
            view = await follower.until_value("b", "1")
            assert values(view) == ({"b": "1", "new": "19"} if ahead else {"b": "1"})
            await lease.put("nodes/gw1/role", "backup")
            await follower.until_value("nodes/gw1/role", "backup")


async def test_a_write_repeated_after_a_lost_answer_is_no_conflict(etcd: EtcdCluster, connect: Connect) -> None:
    """The member dies after it has committed and before it answers: the repeated guard fails because of ourselves."""
    store = connect(etcd.endpoints, new_name())
    send = store._rpc.unary

    async def lose_first_answer(*arguments: Any) -> Any:
        store._rpc.unary = send  # type: ignore[method-assign]
        await send(*arguments)
        raise RpcFailed(Fault.MEMBER, "no answer in time")

    created = await store.txn({"a": "0", "old": "0"})
    store._rpc.unary = lose_first_answer  # type: ignore[method-assign, assignment]
    revision = await store.txn({"a": "1", "b": "1"}, ["old"], expect=[Expect("a", created)])
    view = await store.snapshot()
    assert {key: (entry.value, entry.revision) for key, entry in view.entries.items()} == {
        "a": ("1", revision),
        "b": ("1", revision),
    }
    store._rpc.unary = lose_first_answer  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreConflict, match="a is at revision"):
        await store.txn({"a": "2"}, expect=[Expect("a", created)])


async def test_too_much_for_one_transaction_is_explained(etcd: EtcdCluster, connect: Connect) -> None:
    store = connect(etcd.endpoints, new_name())
    with pytest.raises(StoreRefused, match="--max-request-bytes"):
        await store.txn({"a": "x" * 3_000_000})
    with pytest.raises(StoreRefused, match="--max-txn-ops"):
        await store.txn({"a": "1"}, expect=[Expect(f"k{n}", 0) for n in range(200)])
    assert values(await store.snapshot()) == {}


async def test_a_user_where_etcd_wants_none(etcd: EtcdCluster, connect: Connect) -> None:
    store = connect(etcd.endpoints, new_name(), user="lb", password="secret")
    async with follow(store) as follower:
        await store.txn({"a": "1"})
        await follower.until_value("a", "1")
