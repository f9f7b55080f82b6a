"""The journal, and the stream of everything that changes."""

from __future__ import annotations

from aiohttp import web

from web.api.request import CONTROL, FEED, STILL_ALLOWED, V1, Routes, query_of, reply
from web.openapi import Operation
from web.schemas import EventList, EventsQuery
from web.stream import serve_events


async def events(request: web.Request) -> web.Response:
    query = query_of(request, EventsQuery)
    return reply(EventList(request.app[CONTROL].events_since(query.since, query.limit)))


async def stream(request: web.Request) -> web.StreamResponse:
    return await serve_events(request, request.app[FEED], request[STILL_ALLOWED])


ROUTES: Routes = (
    (
        Operation(
            "GET", V1 + "/events", "events", "The journal, oldest first", EventList, query=EventsQuery, errors=(400,)
        ),
        events,
    ),
    (
        Operation(
            "GET",
            V1 + "/stream",
            "stream",
            "Server-sent events: status, services, journal, reset, tick",
            media="text/event-stream",
        ),
        stream,
    ),
)
