"""Who may use the API and the page: bearer tokens, sessions of the page with CSRF tokens, and those who guess."""

from __future__ import annotations

import pytest

from tests.web.client import BEARER, TOKEN, Client, error_of
from tests.web.fake_control import FakeControl
from web.auth import MAX_FAILURES


async def test_nothing_without_a_token(tcp: Client) -> None:
    for path in ("/api/v1/status", "/api/v1/stream", "/metrics", "/api/v1/openapi.json", "/api/v1/nothing"):
        await error_of(await tcp.get(path), 401, "unauthorized")
    await error_of(await tcp.post("/api/v1/zero", json={}), 401, "unauthorized")
    page = await tcp.get("/", allow_redirects=False)
    assert page.status == 303 and page.headers["Location"] == "/login"
    assert (await tcp.get("/healthz")).status == 200


async def test_bearer(tcp: Client, control: FakeControl) -> None:
    assert (await tcp.get("/api/v1/status", headers=BEARER)).status == 200
    metrics = await tcp.get("/metrics", headers=BEARER)
    assert await metrics.text() == "lb_up 1\n" and metrics.headers["Content-Type"] == "text/plain; version=0.0.4"
    # A program with the token needs no CSRF token: no other site can make it send the header.
    await tcp.post("/api/v1/sysctl/apply", headers=BEARER | {"X-LB-Who": "somebody else"})
    assert control.requests == [("sysctl_apply", "web:127.0.0.1")]


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer ", "Basic Og==", "Bearer \u00fc", TOKEN])
async def test_bad_authorization(tcp: Client, header: str) -> None:
    await error_of(await tcp.get("/api/v1/status", headers={"Authorization": header}), 401, "unauthorized")


async def log_in(client: Client) -> str:
    """Returns the CSRF token of the new session."""
    answer = await client.post("/login", data={"token": TOKEN}, allow_redirects=False)
    assert answer.status == 303 and answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
    session = await (await client.get("/api/v1/session")).json()
    assert session["authenticated_by"] == "cookie"
    return str(session["csrf"])


async def test_login_session_csrf_logout(tcp: Client, control: FakeControl) -> None:
    csrf = await log_in(tcp)
    assert (await tcp.get("/")).content_type == "text/html"
    for headers in ({}, {"X-CSRF-Token": "wrong"}, {"X-CSRF-Token": ""}):
        message = await error_of(await tcp.post("/api/v1/sysctl/apply", headers=headers), 401, "unauthorized")
        assert "X-CSRF-Token" in message
    assert control.requests == []
    assert (await tcp.post("/api/v1/sysctl/apply", headers={"X-CSRF-Token": csrf})).status == 200
    assert control.requests == [("sysctl_apply", "web:127.0.0.1")]
    assert (await tcp.post("/logout", headers={"X-CSRF-Token": csrf}, allow_redirects=False)).status == 303
    await error_of(await tcp.get("/api/v1/status"), 401, "unauthorized")


async def test_login_form_explains_and_escapes(tcp: Client) -> None:
    assert "gw1" in await (await tcp.get("/login")).text()
    answer = await tcp.post("/login", data={"token": "<b>"})
    assert answer.status == 401 and "not this node" in await answer.text()


async def test_guessing_is_slowed_down(tcp: Client) -> None:
    for _ in range(MAX_FAILURES):
        assert (await tcp.post("/login", data={"token": "guess"})).status == 401
    assert (await tcp.post("/login", data={"token": TOKEN}, allow_redirects=False)).status == 429
    response = await tcp.get("/api/v1/status", headers=BEARER)
    await error_of(response, 429, "limit")
    assert int(response.headers["Retry-After"]) > 0
