"""Server-sent events: what changed, as fast as each client reads it, never a growing queue.

Each client's loop sends the newest state and then waits for a newer one; what happened meanwhile is merged. So a slow
client gets fewer frames, and what waits for it is at most one frame beside the socket buffer.

Events: `status` (NodeStatus), `services` ({"services": [...]}; with ?delta=1 only those that changed, and "ids" when
services came or went), `journal` (Event, with an id to resume from), `reset` (the journal begins anew: forget what you
have), `tick` ({"time": server clock}) after each frame and at least every TICK_S: it keeps proxies from closing the
connection, and a reader can tell a quiet node from a dead one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator

from aiohttp import web

from lbnode.control import Control, ServiceInfo
from lbnode.watched import Watched, changes_of
from web.encode import array, encode
from web.errors import Refused

MAX_CLIENTS = 64
TICK_S = 2.0
MIN_GAP_S = 0.1  # between two frames to one client: status and services renewed together go out together
WRITE_DEADLINE_S = 30.0  # a client that takes nothing for so long is cut off
JOURNAL_FIRST = 200  # events sent to a client that has none
JOURNAL_BATCH = 500
ENCODE_CHUNK = 200  # services encoded before other tasks get their turn (about 4 ms)


class ServiceFrames:
    """Each service encoded once per change, shared by all clients."""

    def __init__(self, services: Watched[tuple[ServiceInfo, ...]]) -> None:
        self._services = services
        self._seen = -1
        self._lock = asyncio.Lock()
        self._encoded: dict[str, tuple[bytes, int]] = {}  # id -> JSON, version of its last change; in listing order
        self._membership = 0  # version at which services last came, went or changed order
        self.version = 0

    async def refresh(self) -> None:
        async with self._lock:
            if self._seen == self._services.version:
                return
            self._seen, services, version = self._services.version, self._services.value, self.version + 1
            fresh: dict[str, tuple[bytes, int]] = {}
            for number, service in enumerate(services, 1):
                text = encode(service)
                old = self._encoded.get(service.id)
                fresh[service.id] = old if old is not None and old[0] == text else (text, version)
                if number % ENCODE_CHUNK == 0:
                    await asyncio.sleep(0)
            if list(fresh) != list(self._encoded):
                self._membership = version
            self._encoded, self.version = fresh, version

    def frame(self, since: int, delta: bool) -> bytes:
        """The JSON of one `services` event for a client that has version `since` (0 = nothing)."""
        if not delta:
            return b'{"services":' + array(text for text, _ in self._encoded.values()) + b"}"
        changed = array(text for text, version in self._encoded.values() if version > since)
        if self._membership <= since:
            return b'{"services":' + changed + b"}"
        ids = array(json.dumps(service_id).encode() for service_id in self._encoded)
        return b'{"ids":' + ids + b',"services":' + changed + b"}"


class Feed:
    """What all streams of one application share: the wake-up, the encoded frames, the number of clients."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.frames = ServiceFrames(control.services)
        self.changed: Watched[int] = Watched(0)
        self.closing = False
        self.clients = 0
        self._status: tuple[int, bytes] = (-1, b"")
        # Ids of journal events from another life of this daemon, or from another node, must not be taken for ours.
        status = control.node_status.value
        self._epoch = f"{status.node}-{int(status.started * 1000)}"

    async def run(self) -> None:
        """Turn the three sources into one wake-up, for as long as the application runs."""
        async for _ in changes_of(self.control.node_status, self.control.services, self.control.journal.latest):
            self.wake()

    def wake(self) -> None:
        self.changed.update(lambda count: count + 1)

    def close(self) -> None:
        self.closing = True
        self.wake()

    @contextlib.contextmanager
    def client(self) -> Iterator[None]:
        if self.clients >= MAX_CLIENTS:
            raise Refused(429, f"{MAX_CLIENTS} streams are open already; close some browser tabs", retry_after_s=5)
        self.clients += 1
        try:
            yield
        finally:
            self.clients -= 1

    def status(self) -> tuple[int, bytes]:
        """(version, NodeStatus as JSON), encoded once per change."""
        watched = self.control.node_status
        if self._status[0] != watched.version:
            self._status = (watched.version, encode(watched.value))
        return self._status

    def event_id(self, seq: int) -> str:
        return f"{self._epoch}:{seq}"

    def resume_from(self, last_event_id: str) -> int | None:
        """The sequence number the client has seen, or None if its id is not of this journal."""
        epoch, _, seq = last_event_id.rpartition(":")
        if epoch != self._epoch or not seq.isdecimal() or int(seq) > self.control.journal.latest.value:
            return None
        return int(seq)


class Client:
    """What one client has; `frames` yields what it lacks, in one block of bytes at a time."""

    def __init__(self, feed: Feed, last_event_id: str, delta: bool) -> None:
        self._feed = feed
        self._delta = delta
        self._status_version = -1
        self._services_version = 0
        latest = feed.control.journal.latest.value
        resumed = feed.resume_from(last_event_id) if last_event_id else None
        self._reset = bool(last_event_id) and resumed is None
        self._seq = resumed if resumed is not None else max(0, latest - JOURNAL_FIRST)

    async def missing(self) -> bytes:
        """Everything newer than what this client has, as the text of server-sent events."""
        feed, block = self._feed, []
        if self._reset:
            self._reset = False
            block.append(event("reset", b"{}", feed.event_id(self._seq)))
        version, status = feed.status()
        if version != self._status_version:
            self._status_version = version
            block.append(event("status", status))
        await feed.frames.refresh()
        if feed.frames.version != self._services_version:
            block.append(event("services", feed.frames.frame(self._services_version, self._delta)))
            self._services_version = feed.frames.version
        for entry in feed.control.events_since(self._seq, JOURNAL_BATCH):
            block.append(event("journal", encode(entry), feed.event_id(entry.seq)))
            self._seq = entry.seq
        block.append(event("tick", b'{"time":%.3f}' % time.time()))
        return b"".join(block)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Blocks until the application closes; at least one every TICK_S."""
        while not self._feed.closing:
            seen = self._feed.changed.version
            yield await self.missing()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._feed.changed.wait_changed(seen)
            await asyncio.sleep(MIN_GAP_S)


def event(name: str, data: bytes, event_id: str = "") -> bytes:
    """One server-sent event (HTML Living Standard 9.2); JSON text has no line breaks of its own."""
    head = f"id: {event_id}\nevent: {name}\ndata: " if event_id else f"event: {name}\ndata: "
    return head.encode() + data + b"\n\n"


async def serve_events(request: web.Request, feed: Feed, allowed: Callable[[], bool]) -> web.StreamResponse:
    """Stream until the client leaves, its session ends (`allowed`) or the application closes."""
    last_id = request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")
    with feed.client():
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        try:
            await response.write(b"retry: 1000\n\n")
            async for block in Client(feed, last_id, "delta" in request.query).blocks():
                if not allowed():
                    break
                async with asyncio.timeout(WRITE_DEADLINE_S):
                    await response.write(block)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionResetError:
            pass  # the client left; there is nobody to tell
        return response
