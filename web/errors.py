"""Exceptions -> HTTP status and the one JSON error body. The kinds are those of lbnode.errors."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from lbnode.errors import ConfigError, DataPlaneError, LbError, StoreConflict, StoreUnavailable
from lbnode.model import Problem
from web.encode import encode
from web.schemas import ErrorBody, ErrorDetail

KIND_OF_STATUS = {401: "unauthorized", 403: "unauthorized", 404: "not-found", 409: "conflict", 429: "limit"}


class Refused(LbError):
    """The request itself cannot be served; `status` is the HTTP status."""

    def __init__(self, status: int, message: str, problems: Sequence[Problem] = (), retry_after_s: float = 0) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems
        self.retry_after_s = retry_after_s


def invalid(where: str, error: ValidationError) -> Refused:
    """Every problem that pydantic found, each with its path in the body or query."""
    problems = [
        Problem(where, ".".join(str(part) for part in item["loc"]), item["msg"])
        for item in error.errors(include_url=False, include_context=False)
    ]
    return Refused(400, "; ".join(str(problem) for problem in problems), problems)


def response(status: int, kind: str, message: str, problems: Sequence[Problem] = ()) -> web.Response:
    body = encode(ErrorBody(ErrorDetail(kind, message, tuple(problems))))
    return web.Response(status=status, body=body, content_type="application/json")


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """KeyError is Control's word for an unknown object."""
    try:
        return await handler(request)
    except Refused as error:
        answer = response(error.status, KIND_OF_STATUS.get(error.status, "bad-request"), str(error), error.problems)
        if error.retry_after_s:
            answer.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        return answer
    except ConfigError as error:
        return response(400, "config", str(error), getattr(error, "problems", ()))
    except KeyError as error:
        what = str(error.args[0]) if error.args else request.path
        return response(404, "not-found", what if " " in what else f"no such object: {what}")
    except StoreConflict as error:
        return response(409, "conflict", str(error))
    except StoreUnavailable as error:
        return response(503, "store-unavailable", str(error))
    except DataPlaneError as error:
        return response(500, "data-plane", str(error))
    except web.HTTPException as error:
        return _translated(request, error)


def _translated(request: web.Request, error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals (no such path, other method, body too large) in our words; redirects pass."""
    if error.status < 400:
        raise error
    message = {
        404: f"nothing is served at {request.path}; the paths are in /api/v1/openapi.json",
        405: f"{request.method} is not possible on {request.path}; allowed: {error.headers.get('Allow', '')}",
    }.get(error.status, error.reason)
    answer = response(error.status, KIND_OF_STATUS.get(error.status, "bad-request"), message)
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer
