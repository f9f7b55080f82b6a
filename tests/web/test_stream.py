"""Server-sent events: first frames, changes, resuming, slow clients, many clients, the end of session and server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from lbnode.journal import Kind
from tests.web.fake_control import DNS, SSH, WEB, FakeControl, service
from web import stream
from web.app import make_app
from web.stream import Client, Feed

Http = TestClient[web.Request, web.Application]
DEADLINE_S = 10.0


@dataclass(frozen=True)
class Sse:
    name: str
    data: Any
    id: str


async def read_events(response: ClientResponse) -> AsyncIterator[Sse]:
    """A minimal reader by the HTML Living Standard 9.2.6."""
    fields: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield Sse(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
            fields = {}


async def until_tick(events: AsyncIterator[Sse]) -> list[Sse]:
    """One frame: everything up to and without its tick."""
    frame = []
    async with asyncio.timeout(DEADLINE_S):
        async for event in events:
            if event.name == "tick":
                break
            frame.append(event)
    return frame


async def next_frame(events: AsyncIterator[Sse]) -> list[Sse]:
    """The next frame that holds more than a tick."""
    while not (frame := await until_tick(events)):
        pass
    return frame


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def http(control: FakeControl) -> AsyncIterator[Http]:
    async with TestClient(TestServer(make_app(control, token=None, metrics=None))) as client:
        yield client


async def test_first_frame_then_changes(http: Http, control: FakeControl) -> None:
    control.journal.record(Kind.NODE, "gw1", "started")
    async with http.get("/api/v1/stream") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        events = read_events(response)
        first = await until_tick(events)
        assert [event.name for event in first] == ["status", "services", "journal"]
        assert first[0].data["node"] == "gw1"
        assert [one["id"] for one in first[1].data["services"]] == [WEB, DNS, SSH]
        assert first[2].data["message"] == "started"

        control.set_health(WEB, "198.51.100.32:80", "down", "connect refused 3 times")
        services, journal = await next_frame(events)
        assert services.data["services"][0]["servers"][1]["health"] == "down"
        assert journal.data["why"] == "connect refused 3 times" and journal.data["seq"] == 2


async def test_quiet_streams_still_tick(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "TICK_S", 0.05)
    async with http.get("/api/v1/stream") as response:
        events = read_events(response)
        await until_tick(events)
        assert await until_tick(events) == [] and await until_tick(events) == []


async def test_delta_sends_only_what_changed(http: Http, control: FakeControl) -> None:
    async with http.get("/api/v1/stream?delta=1") as response:
        events = read_events(response)
        first = (await until_tick(events))[1].data
        assert first["ids"] == [WEB, DNS, SSH] and len(first["services"]) == 3
        control.change_server(WEB, "198.51.100.31:80", configured_weight=9)
        changed = (await next_frame(events))[0].data
        assert [one["id"] for one in changed["services"]] == [WEB] and "ids" not in changed
        control.services.update(lambda old: (service("tcp:192.0.2.9:80", []), *old[1:]))
        changed = (await next_frame(events))[0].data
        assert changed["ids"] == ["tcp:192.0.2.9:80", DNS, SSH]
        assert [one["id"] for one in changed["services"]] == ["tcp:192.0.2.9:80"]


async def test_resume_by_last_event_id(http: Http, control: FakeControl) -> None:
    for number in range(3):
        control.journal.record(Kind.NODE, "gw1", f"event {number}")
    async with http.get("/api/v1/stream") as response:
        seen = [event for event in await until_tick(read_events(response)) if event.name == "journal"]
    assert [event.data["seq"] for event in seen] == [1, 2, 3]
    control.journal.record(Kind.NODE, "gw1", "missed")
    for by in ({"headers": {"Last-Event-ID": seen[-1].id}}, {"params": {"last_event_id": seen[-1].id}}):
        async with http.get("/api/v1/stream", **by) as response:  # type: ignore[arg-type]
            frame = await until_tick(read_events(response))
        assert [event.name for event in frame] == ["status", "services", "journal"]
        assert frame[-1].data["message"] == "missed"


@pytest.mark.parametrize("last_id", ["gw1-1:2", "gw2-99:1", "7", "x", "gw1-1:", "\u00fc"])
async def test_an_id_of_another_life_resets(http: Http, control: FakeControl, last_id: str) -> None:
    """After a restart sequence numbers begin again: taking the old one for ours would hide events."""
    control.journal.record(Kind.NODE, "gw1", "started")
    async with http.get("/api/v1/stream", params={"last_event_id": last_id}) as response:
        frame = await until_tick(read_events(response))
    assert [event.name for event in frame] == ["reset", "status", "services", "journal"]


async def test_a_slow_client_gets_fewer_frames_and_the_newest_state(control: FakeControl) -> None:
    """Without a socket: between two reads of one client, a hundred seconds pass."""
    feed = Feed(control)
    client = Client(feed, "", delta=True)
    await client.missing()
    for number in range(100):
        control.tick()
        control.journal.record(Kind.NODE, "gw1", f"event {number}")
    block = (await client.missing()).decode()
    assert block.count("event: status\n") == 1 and block.count("event: services\n") == 1
    newest = control.services.value[0].counters.connections
    assert f'"connections":{newest}' in block
    assert block.count("event: journal\n") == 100  # what happened is not state: nothing of it is merged away
    assert (await client.missing()).count(b"event:") == 1  # only the tick


async def test_a_client_that_reads_nothing_is_cut_off(
    http: Http, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "WRITE_DEADLINE_S", 0.2)
    monkeypatch.setattr(stream, "MIN_GAP_S", 0.0)
    sample = control.services.value[0]
    many = tuple(replace(sample, id=f"tcp:192.0.2.{n % 250}:{n}") for n in range(300))
    feed = http.app[stream_feed()]  # type: ignore[index]
    assert http.server is not None
    _, writer = await asyncio.open_connection("127.0.0.1", http.server.port, limit=1024)
    writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(DEADLINE_S):
        while feed.clients == 0:
            await asyncio.sleep(0.01)
        number = 0
        while feed.clients:  # frames of about 400 kB fill the socket's buffers soon
            number += 1
            control.services.set((replace(many[0], persistent_s=number), *many[1:]))
            await asyncio.sleep(0.01)
    writer.close()


def stream_feed() -> web.AppKey[Feed]:
    from web.api.request import FEED

    return FEED


async def test_streams_are_capped(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_CLIENTS", 1)
    async with http.get("/api/v1/stream"):
        refused = await http.get("/api/v1/stream")
        assert refused.status == 429 and (await refused.json())["error"]["kind"] == "limit"
        assert int(refused.headers["Retry-After"]) > 0


async def test_logout_ends_the_stream(control: FakeControl) -> None:
    async with TestClient(TestServer(make_app(control, token="t", metrics=None))) as client:
        await client.post("/login", data={"token": "t"}, allow_redirects=False)
        csrf = (await (await client.get("/api/v1/session")).json())["csrf"]
        async with client.get("/api/v1/stream") as response:
            events = read_events(response)
            await until_tick(events)
            await client.post("/logout", headers={"X-CSRF-Token": csrf}, allow_redirects=False)
            async with asyncio.timeout(DEADLINE_S):
                assert [event async for event in events] == []


async def test_shutdown_ends_streams_at_once(control: FakeControl) -> None:
    server = TestServer(make_app(control, token=None, metrics=None))
    async with TestClient(server) as client, client.get("/api/v1/stream") as response:
        events = read_events(response)
        await until_tick(events)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(server.close(), until_tick(events))
