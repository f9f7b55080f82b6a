"""The two listeners: who may open the unix socket, what happens to a stale one, and addresses that are taken."""

from __future__ import annotations

import os
import socket
import stat
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector
from aiohttp.test_utils import TestClient, TestServer

from lbnode.errors import ConfigError
from tests.web.fake_control import FakeControl
from web.app import HEADERS, STATIC, make_app, serve
from web.openapi import describe


async def test_both_listeners(tmp_path: Path) -> None:
    control, path = FakeControl(), tmp_path / "run" / "api.sock"
    tcp = make_app(control, token="t", metrics=None)
    unix = make_app(control, token=None, metrics=None)
    server = await serve(tcp, unix, host="127.0.0.1", port=0, unix_path=path)
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with ClientSession(connector=UnixConnector(str(path))) as session:
            answer = await session.post("http://node/api/v1/zero", json={}, headers={"X-LB-Who": "root"})
            assert answer.status == 200 and control.requests == [("zero", None)]
        async with ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{server.port}/api/v1/status")
            assert answer.status == 401
        with pytest.raises(ConfigError, match="another lbnoded answers"):
            await serve(None, make_app(control, token=None, metrics=None), unix_path=path)
        other = make_app(control, token="t", metrics=None)
        with pytest.raises(ConfigError, match=r"web\.listen"):
            await serve(other, None, host="127.0.0.1", port=server.port)
    finally:
        await server.close()
    assert not path.exists()


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = await serve(None, make_app(FakeControl(), token=None, metrics=None), unix_path=path)
    async with ClientSession(connector=UnixConnector(str(path))) as session:
        answer = await session.get("http://node/healthz")
        assert answer.status == 200
    await server.close()


async def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        await serve(None, make_app(FakeControl(), token=None, metrics=None), unix_path=path)
    assert path.read_text() == "precious"


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="token"):
        make_app(FakeControl(), token="", metrics=None)


async def test_openapi_describes_exactly_the_routes() -> None:
    app = make_app(FakeControl(), token="t", metrics=None)
    async with TestClient(TestServer(app)) as client:
        document = await (await client.get("/api/v1/openapi.json", headers={"Authorization": "Bearer t"})).json()
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.resource.canonical != "/static"
    }
    assert described == served
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    used = set(_references(document))
    assert used and {name.removeprefix("#/components/schemas/") for name in used} <= set(schemas)
    patch = document["paths"]["/api/v1/services/{id}/servers/{server}"]["patch"]
    assert [parameter["name"] for parameter in patch["parameters"]] == ["id", "server"]
    assert schemas["ServerPatch"]["properties"]["weight"]["maximum"] == 2**31 - 1
    assert "effective_weight" in schemas["ServerInfo"]["properties"]
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    return [found for value in node for found in _references(value)] if isinstance(node, list) else []


def test_openapi_of_nothing_is_valid() -> None:
    assert describe([], "0")["paths"] == {}


def test_static_files_ask_nobody_else() -> None:
    """The page works on an isolated network: nothing in it names another host. w3.org is XML's name space of SVG."""
    names = [path for path in STATIC.rglob("*") if path.is_file()]
    assert {"index.html", "login.html", "style.css", "main.js"} <= {path.name for path in names}
    for path in names:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        if path.name == "index.html":  # its one script, which the policy names by its hash
            script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
            named = b64encode(sha256(script.encode()).digest()).decode()
            assert f"'sha256-{named}'" in HEADERS["Content-Security-Policy"]
            text = text.replace("<script>", "", 1)
        for foreign in ("http:", "https:", '"//', "'//", "url(//", "@import", "<script>", " style=", " onclick="):
            assert foreign not in text, f"{path.name}: {foreign}"
        assert os.path.getsize(path) < 40_000
