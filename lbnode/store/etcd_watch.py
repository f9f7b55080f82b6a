"""List, then watch: keeps a Keyspace equal to etcd's prefix through lost members, compaction and replaced clusters."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc
import grpc.aio

from lbnode.errors import StoreUnavailable
from lbnode.store import etcd_pb2 as pb
from lbnode.store.etcd_rpc import TRY_S, EtcdRpc, RpcFailed
from lbnode.store.etcd_wire import (
    BACKOFF_MAX_S,
    BACKOFF_REFUSED_MAX_S,
    Fault,
    backoff_s,
    changes,
    listed,
    prefix_end,
    relist_reason,
)
from lbnode.store.keyspace import Keyspace

log = logging.getLogger(__name__)

SILENCE_S = 2.0  # after so long without a message ask for a sign of life, after as long again give the member up
RESYNC_S = 300.0  # list everything again: etcd before 3.4.36 and 3.5.18 can lose events around a compaction


class Report(Protocol):
    """Tells how we are connected."""

    def __call__(self, connected: bool, problem: str = "") -> None: ...


class _Relist(Exception):
    """The watch cannot be resumed."""


class EtcdWatcher:
    """`run` for ever; `changed` is called after each change of the keyspace, and once after the first list."""

    def __init__(
        self, rpc: EtcdRpc, prefix: str, keyspace: Keyspace, report: Report, changed: Callable[[], None]
    ) -> None:
        self._keyspace = keyspace
        self._rpc = rpc
        self._prefix = prefix
        self._start, self._end = prefix.encode(), prefix_end(prefix.encode())
        self._report = report
        self._changed = changed
        self._cluster_id: int | None = None  # None until the first list
        self._relist_at = 0.0  # monotonic time

    async def run(self) -> None:
        failures = 0  # in a row
        renewed = False  # the token, since the last answer
        while True:
            pause_limit = BACKOFF_REFUSED_MAX_S
            try:
                if time.monotonic() >= self._relist_at:
                    await self._list()
                async for response in self._stream():
                    failures, renewed = 0, False
                    if self._keyspace.apply(changes(self._prefix, response.events)):
                        self._changed()
            except _Relist as why:
                log.info("listing everything again: %s", why)
                self._relist_at = 0.0
                pause_limit = 1.0
            except StoreUnavailable as error:
                self._report(connected=False, problem=str(error))
            except RpcFailed as error:
                if error.fault is Fault.MEMBER:
                    self._report(connected=False, problem=self._rpc.problem())
                    pause_limit = BACKOFF_MAX_S
                elif error.fault is Fault.PERMISSION and not renewed and self._rpc.drop_token():
                    renewed = True  # older 3.4 and 3.5 releases call an unknown token of a watch that, too
                elif error.fault is not Fault.TOKEN:
                    self._report(connected=False, problem=str(error))
            failures += 1
            await asyncio.sleep(backoff_s(failures, random.random(), pause_limit))

    async def _list(self) -> None:
        def failing() -> None:
            self._report(connected=False, problem=self._rpc.problem())

        response = await read_all(self._rpc, self._start, self._end, failing)
        header = response.header
        if self._cluster_id not in (None, header.cluster_id):
            log.warning("the etcd cluster was replaced: its id is %x, was %x", header.cluster_id, self._cluster_id)
        first, self._cluster_id = self._cluster_id is None, header.cluster_id
        self._relist_at = time.monotonic() + RESYNC_S * random.uniform(0.8, 1.2)
        self._report(connected=True)
        if self._keyspace.replace(header.revision, listed(self._prefix, response)) or first:
            self._changed()

    async def _stream(self) -> AsyncIterator[pb.WatchResponse]:
        """Answers of one watch from the revision after ours, at one member, until it fails."""
        index = self._rpc.current
        try:
            call = await self._rpc.open(index, "Watch/Watch", pb.WatchRequest, pb.WatchResponse)
        except RpcFailed as error:
            self._fail(index, error)
        request = pb.WatchCreateRequest(
            key=self._start, range_end=self._end, start_revision=self._keyspace.revision + 1
        )
        reader: asyncio.Future[Any] | None = None
        try:
            async with asyncio.timeout(TRY_S):
                await call.write(pb.WatchRequest(create_request=request))
            asked = True  # creating the watch is answered, like a progress request
            while True:
                reader = reader or asyncio.ensure_future(call.read())
                await asyncio.wait({reader}, timeout=SILENCE_S)
                if not reader.done():
                    if asked:
                        raise TimeoutError
                    async with asyncio.timeout(TRY_S):
                        await call.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
                    asked = True
                    continue
                if reader.cancelled():
                    raise RpcFailed(Fault.MEMBER, "connection closed")
                response, reader, asked = reader.result(), None, False
                if response is grpc.aio.EOF:
                    raise RpcFailed(Fault.MEMBER, "it ended the watch")
                self._check(index, response)
                yield response
        except grpc.aio.AioRpcError as error:
            self._fail(index, self._rpc.explain(index, error))
        except TimeoutError:
            self._fail(index, RpcFailed(Fault.MEMBER, f"silent for {2 * SILENCE_S:.0f} s"))
        except RpcFailed as error:
            self._fail(index, error)
        finally:
            if reader is not None:
                reader.cancel()
            call.cancel()

    def _check(self, index: int, response: pb.WatchResponse) -> None:
        """Raise what ends this watch."""
        assert self._cluster_id is not None
        if why := relist_reason(response, self._cluster_id, self._keyspace.revision):
            raise _Relist(why)
        if response.canceled:
            raise self._rpc.explain_text(index, "UNAVAILABLE", response.cancel_reason or "watch cancelled")
        if response.created:
            self._rpc.succeeded(index)
            self._report(connected=True)
        if time.monotonic() >= self._relist_at:
            raise _Relist("periodic check")

    def _fail(self, index: int, error: RpcFailed) -> None:
        if error.fault is not Fault.TOKEN:
            self._rpc.failed(index, str(error))
        raise error from None


async def read_all(
    rpc: EtcdRpc, start: bytes, end: bytes, failing: Callable[[], None] = lambda: None
) -> pb.RangeResponse:
    """A linearizable read of the prefix."""
    return await rpc.call("KV/Range", pb.RangeRequest(key=start, range_end=end), pb.RangeResponse, failing)
