"""This node: its state, its part in the cluster, its kernel, its metrics."""

from __future__ import annotations

from aiohttp import web

from lbnode.control import NodeStatus
from web.api.request import CONTROL, METRICS, OPERATIONS, SESSION, V1, WHO, Routes, query_of, reply
from web.openapi import Operation, describe
from web.schemas import Done, HandoverQuery, Heir, Session, SysctlList


async def status(request: web.Request) -> web.Response:
    return reply(request.app[CONTROL].node_status.value)


async def heir(request: web.Request) -> web.Response:
    query, control = query_of(request, HandoverQuery), request.app[CONTROL]
    return reply(Heir(control.node_status.value.node, control.heir(request.match_info["name"], query.to)))


async def handover(request: web.Request) -> web.Response:
    query = query_of(request, HandoverQuery)
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


ROUTES: Routes = (
    (Operation("GET", V1 + "/status", "status", "This node, its roles, peers and problems", NodeStatus), status),
    (
        Operation(
            "GET",
            V1 + "/vip-groups/{name}/handover",
            "heir",
            "Who would take a VIP group over from this node, or why it may not give it up",
            Heir,
            query=HandoverQuery,
            errors=(400, 404),
        ),
        heir,
    ),
    (
        Operation(
            "POST",
            V1 + "/vip-groups/{name}/handover",
            "handover",
            "Give up the Active role of a VIP group",
            Done,
            query=HandoverQuery,
            errors=(400, 404),
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
