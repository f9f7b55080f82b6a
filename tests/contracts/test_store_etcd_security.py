"""Passwords, permissions and certificates against a real etcd."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from lbnode.errors import ConfigError, StoreRefused, StoreUnavailable
from lbnode.store.etcd import EtcdStore
from lbnode.store.etcd_rpc import RpcFailed
from tests.contracts.etcd_cluster import EtcdCluster
from tests.contracts.following import PATIENCE_S, follow, health_until, values

pytestmark = pytest.mark.etcd

Connect = Callable[..., EtcdStore]


async def blocking(work: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(work, *arguments)


# --- authentication and permissions --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """User lb may touch the prefix of cluster "t" only."""
    with EtcdCluster(tmp_path_factory.mktemp("guarded")) as cluster:
        cluster.enable_auth("lb", "secret", "/lbnode/t/")
        yield cluster


async def test_user_and_password(guarded: EtcdCluster, connect: Connect) -> None:
    store = connect(guarded.endpoints, "t", user="lb", password="secret")
    lease = await store.lease(60)
    await lease.put("nodes/gw1", "here")
    async with follow(store) as follower:
        await store.txn({"a": "1"})
        assert values(await follower.until_value("a", "1"))["nodes/gw1"] == "here"
    await store.txn({}, deletes=["a"])
    await lease.revoke()


async def test_a_wrong_password_is_reported_and_tried_again(guarded: EtcdCluster, connect: Connect) -> None:
    store = connect(guarded.endpoints, "t", user="lb", password="wrong")
    message = f"etcd at {guarded.address(0)} rejects user 'lb': wrong user name or password"
    with pytest.raises(StoreRefused, match=message):
        await store.snapshot()
    with pytest.raises(ConfigError, match=message):
        await store.txn({"a": "1"})
    with pytest.raises(StoreUnavailable, match=message):
        await (await store.lease(60)).put("nodes/gw1", "here")
    first = asyncio.create_task(anext(store.watch()))  # type: ignore[arg-type]
    health = await health_until(store, lambda health: message in health.problem)
    assert not health.connected
    store._rpc._password = "secret"  # as if the operator had set that password in etcd
    async with asyncio.timeout(PATIENCE_S):
        await first
    await health_until(store, lambda health: health.connected and not health.problem)


async def test_no_user_where_etcd_wants_one(guarded: EtcdCluster, connect: Connect) -> None:
    with pytest.raises(StoreRefused, match="wants a user and a password, and none is configured"):
        await connect(guarded.endpoints, "t").snapshot()


async def test_keys_that_the_user_may_not_touch(guarded: EtcdCluster, connect: Connect) -> None:
    store = connect(guarded.endpoints, "other", user="lb", password="secret")
    message = f"etcd at {guarded.address(0)} denies user 'lb' access to our keys"
    with pytest.raises(StoreRefused, match=message):
        await store.snapshot()
    with pytest.raises(StoreRefused, match=message):
        await store.txn({"a": "1"})
    first = asyncio.create_task(anext(store.watch()))  # type: ignore[arg-type]
    await health_until(store, lambda health: message in health.problem)
    await blocking(guarded.ctl, "role", "grant-permission", "lb", "--prefix=true", "readwrite", "/lbnode/other/")
    async with asyncio.timeout(PATIENCE_S):
        await first
    assert store.health.value.connected


async def test_tokens_that_expire_are_renewed(guarded: EtcdCluster, connect: Connect) -> None:
    """A restarted member knows no token."""
    store = connect(guarded.endpoints, "t", user="lb", password="secret")
    lease = await store.lease(3)
    await lease.put("nodes/gw1", "here")
    async with follow(store) as follower:
        guarded.kill(0)
        await health_until(store, lambda health: not health.connected)
        guarded.restart(0)
        health = await health_until(store, lambda health: health.connected or "denies" in health.problem)
        assert health.connected
        await store.txn({"a": "token"})
        await follower.until_value("a", "token")
        await lease.put("nodes/gw1", "still here")
        await follower.until_value("nodes/gw1", "still here")
        store._rpc._token = "never-issued"
        await store.txn({"a": "new token"})
        await follower.until_value("a", "new token")


async def test_an_unknown_token_that_etcd_calls_permission_denied(guarded: EtcdCluster, connect: Connect) -> None:
    """Older releases of etcd tell a watch so; we must try a new token before we believe it."""
    store = connect(guarded.endpoints, "t", user="lb", password="secret")
    explain, problems = store._rpc.explain_text, []

    def as_older_releases(index: int, code: str, details: str, token: str | None = None) -> RpcFailed:
        problems.append(details)
        details = details.replace("etcdserver: invalid auth token", "etcdserver: permission denied")
        return explain(index, code, details, token)

    async with follow(store) as follower:
        await store.txn({"a": "before"})
        await follower.until_value("a", "before")
        store._rpc.explain_text = as_older_releases  # type: ignore[method-assign]
        store._rpc._token = "never-issued"
        store._rpc._drop_channels()
        await health_until(store, lambda health: health.connected and "invalid auth token" in str(problems))
        await store.txn({"a": "after"})
        await follower.until_value("a", "after")
        assert "denies" not in store.health.value.problem


# --- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """TLS with client certificates, whose common name is etcd's user."""
    with EtcdCluster(tmp_path_factory.mktemp("secured"), tls=True) as cluster:
        cluster.enable_auth("lb", "secret", "/lbnode/t/")
        yield cluster


async def test_tls_with_a_client_certificate_as_user(secured: EtcdCluster, connect: Connect) -> None:
    cert_file, key_file = secured.client_cert("lb")
    files = {"ca_file": secured.ca_file, "cert_file": cert_file, "key_file": key_file}
    store = connect(secured.endpoints, "t", **files)
    async with follow(store) as follower:
        await store.txn({"a": "1"})
        await follower.until_value("a", "1")
    with pytest.raises(StoreRefused, match="denies a client without user and password"):
        await connect(secured.endpoints, "other", **files).snapshot()


async def problem_of_watch(store: EtcdStore, message: str) -> None:
    """Watch `store` until its health complains with `message`."""
    task = asyncio.create_task(anext(store.watch()))  # type: ignore[arg-type]
    try:
        health = await health_until(store, lambda health: bool(re.search(message, health.problem)))
        assert not health.connected
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_tls_without_a_client_certificate(secured: EtcdCluster, connect: Connect) -> None:
    store = connect(secured.endpoints, "t", ca_file=secured.ca_file)
    await problem_of_watch(store, "TLS handshake failed: .* accept our client certificate")


async def test_tls_with_another_authority(secured: EtcdCluster, connect: Connect) -> None:
    cert_file, key_file = secured.client_cert("lb")
    store = connect(secured.endpoints, "t", cert_file=cert_file, key_file=key_file)
    await problem_of_watch(store, "its TLS certificate is not accepted: unable to get local issuer certificate")


async def test_renewed_certificates_are_taken_up(secured: EtcdCluster, connect: Connect, tmp_path: Path) -> None:
    ours = {name: tmp_path / name for name in ("cert", "key")}
    stranger = trustme.CA().issue_cert("lb.example", common_name="lb")
    stranger.cert_chain_pems[0].write_to_path(str(ours["cert"]))
    stranger.private_key_pem.write_to_path(str(ours["key"]))
    store = connect(
        secured.endpoints, "t", ca_file=secured.ca_file, cert_file=str(ours["cert"]), key_file=str(ours["key"])
    )
    first = asyncio.create_task(anext(store.watch()))  # type: ignore[arg-type]
    await health_until(store, lambda health: "TLS handshake failed" in health.problem)
    for path, issued in zip(ours.values(), secured.client_cert("lb"), strict=True):
        shutil.copy(issued, path)
    async with asyncio.timeout(PATIENCE_S):
        await first
    assert store.health.value.connected


async def test_plain_http_where_etcd_speaks_tls(secured: EtcdCluster, connect: Connect) -> None:
    store = connect([secured.endpoints[0].replace("https", "http")], "t")
    await problem_of_watch(store, "does it want https://")
