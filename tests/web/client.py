"""Requests to the API in tests: whom it knows, and how it refuses."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestClient

TOKEN = "correct horse"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
Client = TestClient[web.Request, web.Application]


async def error_of(response: object, status: int, kind: str) -> str:
    assert response.status == status  # type: ignore[attr-defined]
    body = await response.json()  # type: ignore[attr-defined]
    assert body["error"]["kind"] == kind
    return str(body["error"]["message"])
