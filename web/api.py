"""HTTP -> Control: one handler per operation, and the one route table that the router and OpenAPI are made from."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from lbnode.control import ChangeRequest, ChangeResult, Control, NodeStatus, ServiceInfo
from lbnode.explanation import Explanation, Question
from lbnode.model import Connection, Problem
from web.encode import encode
from web.errors import Refused, invalid
from web.openapi import Operation, describe
from web.schemas import (
    ApplyBody,
    ChangesBody,
    DiffBody,
    Document,
    Done,
    EventList,
    EventsQuery,
    ExplainQuery,
    HandoverQuery,
    ServerPatch,
    ServiceList,
    Session,
    SysctlList,
    ZeroBody,
)
from web.stream import Feed, serve_events

Metrics = Callable[[], tuple[bytes, str]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
B = TypeVar("B", bound=BaseModel)

CONTROL: web.AppKey[Control] = web.AppKey("control")
FEED = web.AppKey("feed", Feed)
OPERATIONS: web.AppKey[Sequence[Operation]] = web.AppKey("operations")  # all that this application serves
METRICS: web.AppKey[Metrics] = web.AppKey("metrics")
# Set by the authentication of each request:
WHO = web.RequestKey("who", str)  # who is written into the journal
SESSION = web.RequestKey("session", Session)
STILL_ALLOWED: web.RequestKey[Callable[[], bool]] = web.RequestKey(
    "still_allowed"
)  # () -> bool: for streams, which outlive their authentication


def reply(value: object) -> web.Response:
    return web.Response(body=encode(value), content_type="application/json")


async def body_of(request: web.Request, model: type[B]) -> B:
    """The validated JSON body; Refused names every problem."""
    raw = await request.read()
    try:
        document = json.loads(raw or b"{}", parse_constant=_not_json)
        return model.model_validate(document)
    except json.JSONDecodeError as error:
        where = f"body:{error.lineno}:{error.colno}"
        raise Refused(400, f"{where}: not JSON: {error.msg}", [Problem(where, "", f"not JSON: {error.msg}")]) from None
    except ValidationError as error:
        raise invalid("body", error) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Refused(400, f"body: not JSON: {error}", [Problem("body", "", f"not JSON: {error}")]) from None


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


async def status(request: web.Request) -> web.Response:
    return reply(request.app[CONTROL].node_status.value)


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


async def document(request: web.Request) -> web.Response:
    revision, text = await request.app[CONTROL].document()
    return reply(Document(revision, text))


async def diff(request: web.Request) -> web.Response:
    body, control = await body_of(request, DiffBody), request.app[CONTROL]
    return reply(
        await control.apply(body.document, who=request[WHO], prune=body.prune, expect_revision=None, dry_run=True)
    )


async def apply(request: web.Request) -> web.Response:
    body, control = await body_of(request, ApplyBody), request.app[CONTROL]
    return reply(
        await control.apply(
            body.document,
            who=request[WHO],
            prune=body.prune,
            expect_revision=body.expect_revision,
            dry_run=body.dry_run,
        )
    )


async def changes(request: web.Request) -> web.Response:
    body = await body_of(request, ChangesBody)
    wanted = ChangeRequest(body.put, body.delete, body.expect_revision, body.dry_run, request[WHO])
    return reply(await request.app[CONTROL].change(wanted))


async def patch_server(request: web.Request) -> web.Response:
    body = await body_of(request, ServerPatch)
    merged: Mapping[str, object] = body.model_dump(exclude_unset=True)
    if not merged:
        raise Refused(400, "body: nothing to change; name at least one of " + ", ".join(ServerPatch.model_fields))
    where = request.match_info
    return reply(await request.app[CONTROL].set_server(where["id"], where["server"], merged, request[WHO]))


async def zero(request: web.Request) -> web.Response:
    body = await body_of(request, ZeroBody)
    await request.app[CONTROL].zero(body.service)
    return reply(Done())


async def connections(request: web.Request) -> web.StreamResponse:
    """Newline-delimited JSON. The first chunk is read before the answer begins, so that a refusal has its status."""
    chunks = aiter(request.app[CONTROL].connections())
    chunk = await anext(chunks, None)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    while chunk is not None:
        await response.write(b"".join(encode(entry) + b"\n" for entry in chunk))
        chunk = await anext(chunks, None)
    return response


async def explain(request: web.Request) -> web.Response:
    try:
        query = ExplainQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid("query", error) from None
    return reply(await request.app[CONTROL].explain(Question.parse(**query.model_dump())))


async def events(request: web.Request) -> web.Response:
    try:
        query = EventsQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid("query", error) from None
    return reply(EventList(request.app[CONTROL].events_since(query.since, query.limit)))


async def stream(request: web.Request) -> web.StreamResponse:
    return await serve_events(request, request.app[FEED], request[STILL_ALLOWED])


async def handover(request: web.Request) -> web.Response:
    try:
        query = HandoverQuery.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid("query", error) from None
    await request.app[CONTROL].handover(request.match_info["name"], query.to)
    return reply(Done())


async def sysctl(request: web.Request) -> web.Response:
    return reply(SysctlList(await request.app[CONTROL].sysctl_check()))


async def sysctl_apply(request: web.Request) -> web.Response:
    return reply(SysctlList(await request.app[CONTROL].sysctl_apply(request[WHO])))


async def session(request: web.Request) -> web.Response:
    return reply(request[SESSION])


async def openapi(request: web.Request) -> web.Response:
    version = request.app[CONTROL].node_status.value.version
    return web.json_response(describe(request.app[OPERATIONS], version))


async def metrics(request: web.Request) -> web.Response:
    collect = request.app.get(METRICS)
    if collect is None:
        raise KeyError("this node collects no metrics")
    body, content_type = collect()
    return web.Response(body=body, headers={"Content-Type": content_type})


async def healthz(_request: web.Request) -> web.Response:
    """The process answers; whether the cluster is well is /api/v1/status."""
    return web.Response(text="ok\n")


V1 = "/api/v1"
CHANGE_ERRORS = (400, 404, 409, 503)
SERVER_PATH = V1 + "/services/{id}/servers/{server}"
ROUTES: tuple[tuple[Operation, Handler], ...] = (
    (Operation("GET", V1 + "/status", "status", "This node, its roles, peers and problems", NodeStatus), status),
    (Operation("GET", V1 + "/services", "services", "All services with their servers", ServiceList), services),
    (Operation("GET", V1 + "/services/{id}", "service", "One service", ServiceInfo, errors=(404,)), service),
    (Operation("GET", V1 + "/document", "document", "The configuration", Document, errors=(503,)), document),
    (
        Operation(
            "POST",
            V1 + "/diff",
            "diff",
            "What apply with prune would change",
            ChangeResult,
            request=DiffBody,
            errors=(400, 503),
        ),
        diff,
    ),
    (
        Operation(
            "POST",
            V1 + "/apply",
            "apply",
            "Make the configuration equal to a document",
            ChangeResult,
            request=ApplyBody,
            errors=CHANGE_ERRORS,
        ),
        apply,
    ),
    (
        Operation(
            "POST",
            V1 + "/changes",
            "changes",
            "Put and delete keys in one transaction",
            ChangeResult,
            request=ChangesBody,
            errors=CHANGE_ERRORS,
        ),
        changes,
    ),
    (
        Operation(
            "PATCH",
            SERVER_PATH,
            "patchServer",
            "Change fields of one server ('*': in every service it is in)",
            ChangeResult,
            request=ServerPatch,
            errors=CHANGE_ERRORS,
        ),
        patch_server,
    ),
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
            errors=(500,),
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
    (
        Operation(
            "POST",
            V1 + "/vip-groups/{name}/handover",
            "handover",
            "Give up the Active role of a VIP group",
            Done,
            query=HandoverQuery,
            errors=(404,),
        ),
        handover,
    ),
    (Operation("GET", V1 + "/sysctl", "sysctl", "Kernel settings beside the profile", SysctlList), sysctl),
    (
        Operation(
            "POST",
            V1 + "/sysctl/apply",
            "sysctlApply",
            "Write the profile into this node's kernel",
            SysctlList,
            errors=(400, 500),
        ),
        sysctl_apply,
    ),
    (Operation("GET", V1 + "/session", "session", "How this request is authenticated", Session), session),
    (
        Operation("GET", V1 + "/openapi.json", "openapi", "This description", media="application/json"),
        openapi,
    ),
    (Operation("GET", "/metrics", "metrics", "Prometheus metrics", media="text/plain", errors=(404,)), metrics),
    (Operation("GET", "/healthz", "healthz", "The process answers", media="text/plain", public=True), healthz),
)
