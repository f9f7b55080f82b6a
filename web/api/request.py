"""What every handler has: the application's parts, who asks, validated input, a JSON answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from lbnode.control import Control
from lbnode.model import Problem
from web.encode import encode
from web.errors import Refused, invalid
from web.openapi import Operation
from web.schemas import Session
from web.stream import Feed

Metrics = Callable[[], tuple[bytes, str]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Routes = tuple[tuple[Operation, Handler], ...]
B = TypeVar("B", bound=BaseModel)

V1 = "/api/v1"
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


def query_of(request: web.Request, model: type[B]) -> B:
    """The validated query string; Refused names every problem."""
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid("query", error) from None


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
