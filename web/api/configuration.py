"""The shared configuration: read it, compare it, change it."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from lbnode.control import ChangeRequest, ChangeResult
from web.api.request import CONTROL, V1, WHO, Routes, body_of, reply
from web.errors import Refused
from web.openapi import Operation
from web.schemas import ApplyBody, ChangesBody, DiffBody, Document, ServerPatch

CHANGE_ERRORS = (400, 404, 409, 503)
SERVER_PATH = V1 + "/services/{id}/servers/{server}"


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


ROUTES: Routes = (
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
)
