"""The I/O of connection synchronisation: one UDP socket (asyncio-dgram), one Peer per configured peer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import asyncio_dgram

from lbnode.epochs import Epochs
from lbnode.errors import DataPlaneError, LbError, PeerError
from lbnode.journal import Journal, Kind
from lbnode.model import Address
from lbnode.sync.peer import BulkRequested, Peer, RecordsReceived, RecordsRefused, StateChanged
from lbnode.sync.status import SyncPeerInfo
from lbnode.watched import Watched

COLLECT_INTERVAL_S = 0.01  # how long a change may wait in the data plane before it is sent
COLLECT_LIMIT = 20_000  # records taken from the data plane in one go
BULK_BACKLOG = 512  # datagrams; a bulk transfer waits while more are unacknowledged
STATUS_INTERVAL_S = 0.5
BIND_RETRY_S = 0.5
# asyncio-dgram's recv() does not yield while datagrams are queued: let others run now and then.
YIELD_EVERY = 64

log = logging.getLogger(__name__)


class RecordSource(Protocol):
    """The part of a data plane that synchronisation needs (lbnode.dataplane.base.DataPlane)."""

    record_layout: str
    record_size: int

    async def changed_records(self, limit: int) -> bytes: ...
    def all_records(self) -> AsyncIterator[bytes]: ...
    async def import_records(self, records: bytes) -> int: ...
    def by_group(self, records: bytes, group_of: Mapping[Address, str]) -> Mapping[str, bytes]: ...


def parse_host_port(text: str) -> tuple[str, int]:
    """`192.0.2.1:8848` or `[2001:db8::1]:8848`; ValueError otherwise."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


class ConnectionSync:
    """Keeps the connection tables of the configured peers and this node alike.

    `peers` maps node names to HOST:PORT of their [sync] listen. `key` authenticates every datagram. `epochs` are those
    of this node's VIP groups.
    """

    def __init__(
        self,
        node: str,
        listen: str,
        peers: Mapping[str, str],
        key: bytes,
        source: RecordSource,
        journal: Journal,
        epochs: Epochs,
    ) -> None:
        self._listen = parse_host_port(listen)
        self._addresses = {name: parse_host_port(address) for name, address in peers.items()}
        self._source = source
        self._journal = journal
        stream = secrets.randbits(64) | 1
        self._epochs = epochs
        layout = source.record_layout, source.record_size
        self._peers = {name: Peer(name, node, key, stream, *layout, epochs) for name in peers}
        self._bad: dict[str, int] = dict.fromkeys(peers, 0)
        self._last_bad = ""
        self._bulks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._soon = asyncio.Event()
        self.peers: Watched[tuple[SyncPeerInfo, ...]] = Watched(())

    def collect_soon(self) -> None:
        """To be called when this node has given a VIP group up: its last changes are to arrive before the group has
        another epoch."""
        self._soon.set()

    async def run(self) -> None:
        """Until cancelled. An address that is not there yet (an interface that comes up late) is waited for."""
        socket = await self._bind()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(socket))
                tasks.create_task(self._collect(socket))
                tasks.create_task(self._timers(socket))
                tasks.create_task(self._publish())
        finally:
            for bulk in self._bulks.values():
                bulk.cancel()
            await asyncio.gather(*self._bulks.values(), return_exceptions=True)
            await self._send_changes(socket)  # a last time
            socket.close()

    async def _bind(self) -> asyncio_dgram.aio.DatagramServer:
        told = ""
        while True:
            try:
                return await asyncio_dgram.bind(self._listen)
            except OSError as error:
                why = f"cannot listen on {self._listen[0]}:{self._listen[1]}: {error.strerror or error}"
                if why != told:
                    told = why
                    self._journal.record(Kind.SYNC, "listen", "waiting", f"{why}; check [sync] listen in node.toml")
                await asyncio.sleep(BIND_RETRY_S)

    async def _receive(self, socket: asyncio_dgram.aio.DatagramServer) -> None:
        count = 0
        while True:
            data, address = await socket.recv()
            await self._handle(data, address, socket)
            count += 1
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _handle(self, data: bytes, address: tuple[str, int], socket: asyncio_dgram.aio.DatagramServer) -> None:
        name = next((name for name, known in self._addresses.items() if known == address[:2]), None)
        if name is None:
            self._reject("", f"a datagram from the unknown address {address[0]}:{address[1]}: check [sync] peers")
            return
        peer = self._peers[name]
        try:
            peer.receive_datagram(data, asyncio.get_running_loop().time())
        except PeerError as error:
            self._reject(name, str(error))
            return
        await self._after(name, peer, socket)

    def _reject(self, name: str, why: str) -> None:
        self._bad[name] = self._bad.get(name, 0) + 1
        if why != self._last_bad:
            self._last_bad = why
            self._journal.record(Kind.SYNC, name or "?", "datagram rejected", why)

    async def _after(self, name: str, peer: Peer, socket: asyncio_dgram.aio.DatagramServer) -> None:
        """Act on what an input to `peer` brought about."""
        while (event := peer.next_event()) is not None:
            match event:
                case RecordsReceived(data=data):
                    try:
                        await self._source.import_records(data)
                    except DataPlaneError as error:
                        self._journal.record(Kind.SYNC, name, "records not imported", str(error))
                case RecordsRefused(group=group, why=why):
                    self._journal.record(Kind.SYNC, name, "records refused", f"VIP group {group}: {why}")
                case BulkRequested(request=request):
                    if (running := self._bulks.pop(name, None)) is not None:
                        running.cancel()
                    self._bulks[name] = asyncio.create_task(self._bulk(name, peer, request, socket))
                case StateChanged(state=state, why=why):
                    self._journal.record(Kind.SYNC, name, f"is {state}", why)
                    self._publish_now()
        await self._send(name, peer, socket)
        self._wake.set()

    async def _send(self, name: str, peer: Peer, socket: asyncio_dgram.aio.DatagramServer) -> None:
        for datagram in peer.datagrams_to_send():
            try:
                await socket.send(datagram, self._addresses[name])
            except OSError as error:  # no route, interface down: the timers send again
                log.debug("to %s: %s", name, error)

    async def _collect(self, socket: asyncio_dgram.aio.DatagramServer) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._soon.clear()
            full = False
            if not self._epochs.holds(loop.time()):
                full = await self._send_changes(socket) >= COLLECT_LIMIT
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if full else COLLECT_INTERVAL_S):
                    await self._soon.wait()

    async def _send_changes(self, socket: asyncio_dgram.aio.DatagramServer) -> int:
        """What changed since the last time, to all peers; returns the number of records."""
        given_up = self._epochs.given_up()
        try:
            records = await self._source.changed_records(COLLECT_LIMIT)
        except DataPlaneError as error:
            log.warning("changed connections could not be read: %s", error)
            return 0
        if records:
            for name, peer in self._peers.items():
                await self._send_records(name, peer, records, socket)
            self._wake.set()
        count = len(records) // self._source.record_size
        if count < COLLECT_LIMIT:
            self._epochs.all_sent(given_up)
        return count

    async def _send_records(
        self, name: str, peer: Peer, records: bytes, socket: asyncio_dgram.aio.DatagramServer
    ) -> None:
        now = asyncio.get_running_loop().time()
        for group, part in self._source.by_group(records, self._epochs.group_of).items():
            peer.send_records(group, part, now)
        await self._send(name, peer, socket)

    async def _bulk(self, name: str, peer: Peer, request: int, socket: asyncio_dgram.aio.DatagramServer) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for chunk in self._source.all_records():
                while peer.backlog > BULK_BACKLOG:  # noqa: ASYNC110 - paced by time on purpose
                    await asyncio.sleep(COLLECT_INTERVAL_S)
                await self._send_records(name, peer, chunk, socket)
                await asyncio.sleep(0)
            peer.finish_bulk(request, loop.time())
            await self._send(name, peer, socket)
            self._wake.set()
        except LbError as error:
            self._journal.record(Kind.SYNC, name, "bulk transfer failed", str(error))

    async def _timers(self, socket: asyncio_dgram.aio.DatagramServer) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for name, peer in self._peers.items():
                if peer.get_timer() <= loop.time():
                    peer.handle_timer(loop.time())
                    await self._after(name, peer, socket)
            self._wake.clear()
            due = min((peer.get_timer() for peer in self._peers.values()), default=loop.time() + STATUS_INTERVAL_S)
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _publish(self) -> None:
        while True:
            self._publish_now()
            await asyncio.sleep(STATUS_INTERVAL_S)

    def _publish_now(self) -> None:
        now = asyncio.get_running_loop().time()
        self.peers.set(
            tuple(
                SyncPeerInfo(
                    name=name,
                    address="{}:{}".format(*self._addresses[name]),
                    state=peer.state,
                    sent_records=peer.sent_records,
                    received_records=peer.received_records,
                    lag_s=peer.lag(now),
                    problem=peer.problem,
                    bad_datagrams=self._bad[name],
                    refused_records=peer.refused_records,
                )
                for name, peer in self._peers.items()
            )
        )
