"""What is balanced: services with their figures, connections, and what would become of a packet."""

from __future__ import annotations

import sys

from aiohttp import web

from lbnode.connection_filter import ConnectionFilter
from lbnode.control import ServiceInfo
from lbnode.explanation import Explanation, Question
from lbnode.model import Connection
from web.api.request import CONTROL, FEED, V1, Routes, body_of, query_of, reply
from web.openapi import Operation
from web.schemas import ConnectionsQuery, Done, ExplainQuery, ServiceList, ZeroBody


async def services(request: web.Request) -> web.Response:
    frames = request.app[FEED].frames
    await frames.refresh()
    return web.Response(body=frames.frame(0, delta=False), content_type="application/json")


async def service(request: web.Request) -> web.Response:
    wanted = request.match_info["id"]
    for found in request.app[CONTROL].services.value:
        if found.id == wanted:
            return reply(found)
    raise KeyError(f"no service {wanted}; GET /api/v1/services lists them")


async def zero(request: web.Request) -> web.Response:
    body = await body_of(request, ZeroBody)
    await request.app[CONTROL].zero(body.service)
    return reply(Done())


async def connections(request: web.Request) -> web.StreamResponse:
    """Newline-delimited JSON. The first chunk is read before the answer begins, so that a refusal has its status."""
    query = query_of(request, ConnectionsQuery)
    wanted = ConnectionFilter.parse(query.service, query.server, query.client, query.state)
    chunks = aiter(request.app[CONTROL].connections(wanted))
    chunk, left = await anext(chunks, None), query.limit or sys.maxsize
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    while chunk is not None and left > 0:
        await response.write("".join(chunk[:left]).encode())
        left -= len(chunk)
        chunk = await anext(chunks, None)
    return response


async def explain(request: web.Request) -> web.Response:
    query = query_of(request, ExplainQuery)
    return reply(await request.app[CONTROL].explain(Question.parse(**query.model_dump())))


ROUTES: Routes = (
    (Operation("GET", V1 + "/services", "services", "All services with their servers", ServiceList), services),
    (Operation("GET", V1 + "/services/{id}", "service", "One service", ServiceInfo, errors=(404,)), service),
    (
        Operation(
            "POST",
            V1 + "/zero",
            "zero",
            "Zero the counters of one service or of all",
            Done,
            request=ZeroBody,
            errors=(400, 404, 500),
        ),
        zero,
    ),
    (
        Operation(
            "GET",
            V1 + "/connections",
            "connections",
            "Tracked connections, one Connection per line",
            Connection,
            "application/x-ndjson",
            query=ConnectionsQuery,
            errors=(400, 500),
        ),
        connections,
    ),
    (
        Operation(
            "GET",
            V1 + "/explain",
            "explain",
            "What would become of a packet, and why; nothing changes by it",
            Explanation,
            query=ExplainQuery,
            errors=(400, 404, 500),
        ),
        explain,
    ),
)
