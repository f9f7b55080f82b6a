"""The aiohttp application and its two listeners: TCP (token) and the unix socket (file mode 0600 is the token)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import stat
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from lbnode.control import Control
from lbnode.errors import ConfigError
from web import errors
from web.api import ROUTES
from web.api.request import (
    CONTROL,
    FEED,
    METRICS,
    OPERATIONS,
    SESSION,
    STILL_ALLOWED,
    WHO,
    Metrics,
    Routes,
)
from web.auth import CSRF_HEADER, SESSION_IDLE_S, Auth
from web.openapi import Operation
from web.schemas import Session
from web.stream import Feed

STATIC = Path(str(files("web") / "static"))
MAX_BODY = 16 * 1024 * 1024  # bytes; a document of about 50,000 servers
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OPEN_PATHS = ("/login", "/healthz", "/static/")
# The one script that stands in a page itself, because a file could be lost: it loads again what was lost on the way.
INLINE = re.findall(r"<script>(.*?)</script>", (STATIC / "index.html").read_text(), re.DOTALL)
HASHES = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in INLINE)
HEADERS = {
    "Content-Security-Policy": f"default-src 'self'; script-src 'self' {HASHES}; base-uri 'none'; object-src 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

AUTH = web.AppKey("auth", Auth)


class LoginForm(BaseModel):
    token: str


async def page(_request: web.Request) -> web.StreamResponse:
    return web.FileResponse(STATIC / "index.html")


async def login_page(request: web.Request, message: str = "", status: int = 200) -> web.Response:
    node = request.app[CONTROL].node_status.value.node
    text = (STATIC / "login.html").read_text()
    text = text.replace("<!--node-->", escape(node)).replace("<!--message-->", escape(message))
    return web.Response(text=text, status=status, content_type="text/html")


async def login(request: web.Request) -> web.Response:
    """The token by form -> a session cookie. Wrong: the form again, with the reason."""
    auth = request.app[AUTH]
    now, remote = time.monotonic(), request.remote or ""
    if wait := auth.blocked_for(remote, now):
        return await login_page(request, f"Too many wrong tokens. Try again in {round(wait) + 1} s.", 429)
    form = await request.post()
    if not auth.check_token(str(form.get("token", "")), remote, now):
        return await login_page(request, "That is not this node's token.", 401)
    response = web.Response(status=303, headers={"Location": "/"})
    response.set_cookie(
        auth.cookie,
        auth.open_session(now).id,
        httponly=True,
        samesite="Strict",
        secure=request.secure,
        path="/",
        max_age=int(SESSION_IDLE_S),
    )
    return response


async def logout(request: web.Request) -> web.Response:
    response = web.Response(status=303, headers={"Location": "/login"})
    if (auth := request.app.get(AUTH)) is not None:
        auth.close_session(request.cookies.get(auth.cookie, ""))
        response.del_cookie(auth.cookie, path="/")
        request.app[FEED].wake()  # the streams of this session end now
    return response


PAGE = (Operation("GET", "/", "page", "The web UI", media="text/html"), page)
LOGIN_ROUTES: Routes = (
    (Operation("GET", "/login", "loginPage", "The login form", media="text/html", public=True), login_page),
    (
        Operation(
            "POST",
            "/login",
            "login",
            "Trade the token for a session cookie",
            media="text/html",
            status=303,
            request=LoginForm,
            request_media="application/x-www-form-urlencoded",
            errors=(401, 429),
            public=True,
        ),
        login,
    ),
    (Operation("POST", "/logout", "logout", "End the session", media="text/html", status=303), logout),
)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Sets who acts, or refuses. A browser that asks for the page is sent to the login form instead."""
    auth = request.app.get(AUTH)
    node = request.app[CONTROL].node_status.value.node
    if auth is None:
        given = request.headers.get("X-LB-Who", "")
        request[WHO] = "".join(c for c in given if c.isprintable())[:64] or "api.sock"
        request[SESSION] = Session(node, "socket", "")
        request[STILL_ALLOWED] = lambda: True
        return await handler(request)
    request[WHO] = f"web:{request.remote}"
    if request.path.startswith(OPEN_PATHS):
        return await handler(request)
    if "Authorization" in request.headers:
        _check_bearer(request, auth)
        request[SESSION] = Session(node, "bearer", "")
        request[STILL_ALLOWED] = lambda: True
        return await handler(request)
    cookie = request.cookies.get(auth.cookie, "")
    session = auth.find_session(cookie, time.monotonic())
    if session is None:
        if request.path == "/":
            raise web.HTTPSeeOther("/login")
        raise errors.Refused(401, "not logged in: send 'Authorization: Bearer TOKEN', or log in at /login")
    if request.method not in SAFE_METHODS and not session.has_csrf(request.headers.get(CSRF_HEADER, "")):
        raise errors.Refused(401, f"{CSRF_HEADER} is missing or wrong; GET /api/v1/session tells it")
    request[SESSION] = Session(node, "cookie", session.csrf)
    request[STILL_ALLOWED] = lambda: auth.find_session(cookie, time.monotonic()) is not None
    return await handler(request)


def _check_bearer(request: web.Request, auth: Auth) -> None:
    now, remote = time.monotonic(), request.remote or ""
    if wait := auth.blocked_for(remote, now):
        raise errors.Refused(429, f"too many wrong tokens from {remote}; try again in {wait:.0f} s", retry_after_s=wait)
    scheme, _, token = request.headers["Authorization"].partition(" ")
    if scheme.lower() != "bearer" or not auth.check_token(token.strip(), remote, now):
        raise errors.Refused(
            401,
            "the token is wrong; it stands in node.toml under [web], or in the file token of the state directory",
        )


async def set_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    # Pages and scripts are asked for again each time (and mostly answered 304); data is never kept.
    own = request.path.startswith("/static/")
    response.headers.setdefault("Cache-Control", "no-cache" if own else "no-store")
    if request.path.startswith("/api/"):
        response.headers.pop("Server", None)


def make_app(control: Control, *, token: str | None, metrics: Metrics | None) -> web.Application:
    """`token` None: no authentication, for the unix socket. `metrics` returns (body, content type)."""
    app = web.Application(middlewares=[errors.middleware, authenticate], client_max_size=MAX_BODY)
    feed = Feed(control)
    app[CONTROL], app[FEED] = control, feed
    routes = [*ROUTES, PAGE]
    if token is not None:
        if not token:
            raise ConfigError("node.toml: web.token is empty; set web.token or web.token_file")
        app[AUTH] = Auth(token, control.node_status.value.node)
        routes += LOGIN_ROUTES
    if metrics is not None:
        app[METRICS] = metrics
    app[OPERATIONS] = [operation for operation, _ in routes]
    for operation, handler in routes:
        app.router.add_route(operation.method, operation.path, handler)
    app.router.add_static("/static", STATIC)
    app.on_response_prepare.append(set_headers)
    app.cleanup_ctx.append(_run_feed)

    async def end_streams(_app: web.Application) -> None:
        feed.close()

    app.on_shutdown.append(end_streams)
    return app


async def _run_feed(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(app[FEED].run(), name="web feed")
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@dataclass(slots=True)
class WebServer:
    """The running listeners. `port` is the real one (if 0 was asked for)."""

    port: int = 0
    _close: list[Callable[[], object]] = field(default_factory=list)
    _runners: list[web.AppRunner] = field(default_factory=list)

    async def close(self) -> None:
        """End the streams, give running requests a second, remove the unix socket."""
        for runner in reversed(self._runners):
            await runner.cleanup()
        for undo in self._close:
            undo()
        self._runners.clear()
        self._close.clear()


async def serve(
    app_tcp: web.Application | None,
    app_unix: web.Application | None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unix_path: str | os.PathLike[str] | None = None,
) -> WebServer:
    """Listen on TCP and on the unix socket (either may be None). ConfigError if an address cannot be had."""
    server = WebServer()
    try:
        if app_unix is not None and unix_path is not None:
            path = Path(unix_path)
            runner = await _runner(server, app_unix)
            listener = bind_unix(path)
            server._close.append(lambda: path.unlink(missing_ok=True))
            await web.SockSite(runner, listener).start()
        if app_tcp is not None:
            runner = await _runner(server, app_tcp)
            try:
                await web.TCPSite(runner, host, port, reuse_address=True).start()
            except OSError as error:
                raise ConfigError(f"node.toml: web.listen: cannot listen on {host}:{port}: {error.strerror}") from error
            server.port = runner.addresses[0][1]
    except BaseException:
        await server.close()
        raise
    return server


async def _runner(server: WebServer, app: web.Application) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    server._runners.append(runner)
    await runner.setup()
    return runner


def bind_unix(path: Path) -> socket.socket:
    """A listening-ready unix socket with mode 0600 from its first moment. Replaces one that nobody answers on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path}: exists and is no socket; remove it or choose another run directory")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise ConfigError(
                    f"{path}: another lbnoded answers there; stop it, or give this one its own run directory"
                )
    listener = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: cannot make the socket: {error.strerror}") from error
    finally:
        os.umask(umask)
    return listener
