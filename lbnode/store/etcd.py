"""The configuration store on an etcd v3 cluster (etcd 3.4 and later; 3.5.18 or later recommended)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

import grpc
import grpc.aio

from lbnode.errors import ConfigError, StoreUnavailable
from lbnode.store import etcd_pb2 as pb
from lbnode.store.base import Expect, View
from lbnode.store.etcd_rpc import EtcdRpc, RpcFailed, Tls
from lbnode.store.etcd_watch import EtcdWatcher, read_all
from lbnode.store.etcd_wire import Endpoint, Fault, found_revisions, listed, prefix_end, transaction
from lbnode.store.following import FollowingStore
from lbnode.store.keyspace import check_transaction, conflict
from lbnode.store.lease import LeaseGone

T = TypeVar("T")


class EtcdStore(FollowingStore):
    """Store of store/base.py on the prefix `/lbnode/<cluster>/`.

    `health` tells how the watch is doing (`endpoint` is the member it is connected to); before one runs, how the
    last call did.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        cluster: str,
        *,
        user: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        """`endpoints` are http:// or https:// URLs; the files are PEM. ConfigError for what cannot work."""
        if not endpoints:
            raise ConfigError("etcd: no endpoints given")
        if not cluster or "/" in cluster:
            raise ConfigError(f"cluster name {cluster!r}: must be non-empty and without '/'")
        if password and not user:
            raise ConfigError("etcd: a password without a user")
        parsed = [Endpoint.parse(url) for url in endpoints]
        if (ca_file or cert_file or key_file) and not any(endpoint.tls for endpoint in parsed):
            raise ConfigError("etcd: TLS files are configured, but no endpoint begins with https://")
        super().__init__("etcd", ", ".join(map(str, parsed)))
        self.prefix = f"/lbnode/{cluster}/"
        self._range = (self.prefix.encode(), prefix_end(self.prefix.encode()))
        self._rpc = EtcdRpc(parsed, user, password, Tls(ca_file, cert_file, key_file))

    async def snapshot(self) -> View:
        response = await self._reported(read_all(self._rpc, *self._range))
        return View(response.header.revision, listed(self.prefix, response))

    async def txn(self, puts: Mapping[str, str], deletes: Sequence[str] = (), expect: Sequence[Expect] = ()) -> int:
        check_transaction(puts, deletes)
        request = transaction(self.prefix, puts, deletes, expect)
        tries = 0

        async def attempt(index: int, timeout_s: float) -> pb.TxnResponse:
            nonlocal tries
            tries += 1
            return await self._rpc.unary(index, "KV/Txn", request, pb.TxnResponse, timeout_s)

        response = await self._reported(self._rpc.run(attempt))
        if response.succeeded:
            return response.header.revision
        if tries > 1 and (revision := await self._took_effect(puts, deletes)):
            return revision
        error = conflict(expect, found_revisions(self.prefix, response))
        assert error is not None, "etcd failed guards that hold"
        raise error

    async def _took_effect(self, puts: Mapping[str, str], deletes: Sequence[str]) -> int:
        """After a try with unknown outcome: the revision at which our puts and deletes are in force, or 0.

        One transaction gives all its keys one revision; that tells it from somebody else's puts of the same values.
        """
        view = await self.snapshot()
        entries = [view.entries.get(key) for key in puts]
        if any(key in view.entries for key in deletes):
            return 0
        if [entry and entry.value for entry in entries] != list(puts.values()):
            return 0
        revisions = {entry.revision for entry in entries if entry} or {view.revision}
        return revisions.pop() if len(revisions) == 1 else 0

    async def grant(self, ttl_s: int) -> int:
        return (await self._rpc.call("Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=ttl_s), pb.LeaseGrantResponse)).ID

    async def keep_alive(self, lease_id: int) -> bool:
        async def attempt(index: int, timeout_s: float) -> bool:
            stream = "Lease/LeaseKeepAlive"
            call = await self._rpc.open(index, stream, pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse)
            try:
                async with asyncio.timeout(timeout_s):
                    await call.write(pb.LeaseKeepAliveRequest(ID=lease_id))
                    response = await call.read()
            except grpc.aio.AioRpcError as error:
                raise self._rpc.explain(index, error) from None
            except TimeoutError:
                raise RpcFailed(Fault.MEMBER, "no answer in time") from None
            finally:
                call.cancel()
            if response is grpc.aio.EOF:
                raise RpcFailed(Fault.MEMBER, "it ended the stream")
            return bool(response.TTL > 0)  # a lost lease is answered with TTL 0, not with an error

        return await self._rpc.run(attempt)

    async def put_leased(self, lease_id: int, puts: Mapping[str, str]) -> None:
        await self._rpc.call("KV/Txn", transaction(self.prefix, puts, lease=lease_id), pb.TxnResponse)

    async def revoke(self, lease_id: int) -> None:
        try:
            await self._rpc.call("Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease_id), pb.LeaseRevokeResponse)
        except LeaseGone:
            return

    async def _follow(self) -> None:
        def report(connected: bool, problem: str = "") -> None:
            self._report(connected, self._rpc.endpoint, problem)

        await EtcdWatcher(self._rpc, self.prefix, self._keyspace, report, self._step).run()

    async def _reported(self, call: Awaitable[T]) -> T:
        """Await a call; while no watch runs, its outcome is what we know about the connection."""
        try:
            result = await call
        except StoreUnavailable as error:
            if not self._following:
                self._report(connected=False, endpoint=self._rpc.endpoint, problem=str(error))
            raise
        if not self._following:
            self._report(connected=True, endpoint=self._rpc.endpoint)
        return result

    async def _disconnect(self) -> None:
        await self._rpc.close()
