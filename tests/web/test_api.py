"""Every route of the API through aiohttp's test client: bodies, errors; GET changes nothing."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from scapy.utils import RawPcapNgReader

from lbnode.errors import DataPlaneError
from tests.web.client import BEARER, Client, error_of
from tests.web.fake_control import DNS, SSH, WEB, FakeControl

# --- reading ---


async def test_status_is_node_status_field_for_field(api: Client) -> None:
    body = await (await api.get("/api/v1/status")).json()
    assert body["node"] == "gw1" and body["store"]["connected"] is True
    assert body["roles"][0] | {"since": 0} == {
        "group": "front",
        "state": "active",
        "priority": 250,
        "since": 0,
        "reason": "no advertisement heard for 0.36 s",
        "active_address": None,
        "epoch": 0,
        "problem": "",
        "active_node": "",
        "backups": [],
    }
    assert body["nodes"][1]["roles"][0]["active_address"] == "192.0.2.2"
    assert body["dataplane"]["drops"] == {"no-server": 0, "bad-checksum": 2}
    assert body["dataplane"]["leases"] == [{"group": "front", "remaining_s": 0.18}]


async def test_services_and_one_service(api: Client, control: FakeControl) -> None:
    control.tick()
    listed = (await (await api.get("/api/v1/services")).json())["services"]
    assert [one["id"] for one in listed] == [WEB, DNS, SSH]
    # Ids hold ':' and '[': as they are, and percent-encoded.
    for path in (SSH, quote(SSH, safe="")):
        assert await (await api.get(f"/api/v1/services/{path}")).json() == listed[2]
    assert listed[2]["servers"][0]["id"] == "[2001:db8:1::31]:22"
    message = await error_of(await api.get("/api/v1/services/tcp:192.0.2.9:80"), 404, "not-found")
    assert "tcp:192.0.2.9:80" in message


async def test_services_follow_each_change(api: Client, control: FakeControl) -> None:
    await api.get("/api/v1/services")
    control.set_health(WEB, "198.51.100.32:80", "down", "connect refused")
    body = await (await api.get("/api/v1/services")).json()
    assert body["services"][0]["state"] == "degraded"
    assert [one["health"] for one in body["services"][0]["servers"]] == ["up", "down", "up"]


async def test_floats_stay_finite(api: Client, control: FakeControl) -> None:
    control.change_server(WEB, "198.51.100.31:80", health_since=float("nan"))
    text = await (await api.get(f"/api/v1/services/{WEB}")).text()
    assert json.loads(text, parse_constant=pytest.fail)["servers"][0]["health_since"] is None


async def test_document_and_store_unavailable(api: Client, control: FakeControl) -> None:
    body = await (await api.get("/api/v1/document")).json()
    assert body["revision"] == 41 and WEB in body["document"]["services"]
    control.store_down = True
    message = await error_of(await api.get("/api/v1/document"), 503, "store-unavailable")
    assert "3 endpoints" in message


async def test_connections_as_lines(api: Client) -> None:
    response = await api.get("/api/v1/connections")
    assert response.content_type == "application/x-ndjson"
    lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert len(lines) == 6
    assert lines[0]["client"] == ["192.0.2.100", 40000] and lines[0]["state"] == "ESTABLISHED"


async def test_connections_that_are_asked_for(api: Client) -> None:
    async def ports(query: str) -> list[int]:
        text = await (await api.get(f"/api/v1/connections?{query}")).text()
        return [json.loads(line)["client"][1] for line in text.splitlines()]

    assert await ports("limit=4") == [40000, 40001, 40002, 40003]
    assert len(await ports("client=192.0.2.0/24&state=established&service=tcp:192.0.2.10:80")) == 6
    assert await ports("server=198.51.100.32:80") == await ports("client=2001:db8::/32") == []
    for query in ("client=192.0.2.0/33", "service=tcp", "server=x"):
        await error_of(await api.get(f"/api/v1/connections?{query}"), 400, "config")
    for query in ("limit=-1", "colour=blue"):
        await error_of(await api.get(f"/api/v1/connections?{query}"), 400, "bad-request")


async def test_connections_that_cannot_be_read(api: Client, control: FakeControl) -> None:
    async def broken(wanted: object) -> AsyncIterator[list[object]]:
        raise DataPlaneError("map connections: EPERM")
        yield []

    control.connections = broken  # type: ignore[assignment,method-assign]
    assert "EPERM" in await error_of(await api.get("/api/v1/connections"), 500, "data-plane")


async def test_explain(api: Client, control: FakeControl) -> None:
    path = "/api/v1/explain?protocol=udp&source=%5B2001:db8::7%5D:40000&target=%5B2001:db8::10%5D:53"
    body = await (await api.get(path + "&mark=7&length=900")).json()
    assert (body["verdict"], body["reason"]) == ("dropped", "no-server")
    assert body["question"] == "udp [2001:db8::7]:40000 -> [2001:db8::10]:53"
    ((what, question),) = control.requests
    assert what == "explain" and (question.mark, question.length) == (7, 900)
    assert "eth9" in await error_of(await api.get(path + "&interface=eth9"), 404, "not-found")
    assert "length" in await error_of(await api.get(path + "&length=99999"), 400, "bad-request")
    path = "/api/v1/explain?protocol=tcp&source=192.0.2.1&target=192.0.2.10:80"
    assert "source" in await error_of(await api.get(path), 400, "config")


async def test_capture(api: Client, control: FakeControl) -> None:
    wanted = {"service": WEB, "verdicts": ["dropped"], "count": 5}
    answer = await api.post("/api/v1/capture", json=wanted)
    assert answer.content_type == "application/x-pcapng"
    file = await answer.read()
    (packet, one), (_, other) = RawPcapNgReader(io.BytesIO(file))
    assert packet == b"frame" and one.wirelen == 90 and one.comments == [b"dropped (no-server)"]
    assert (one.tshigh << 32 | one.tslow, one.tsresol) == (1_700_000_000_000_000_001, 10**9)
    assert [(meta.ifname, meta.direction) for meta in (one, other)] == [(b"eth0", 1), (b"eth1", 2)]
    assert struct.pack("=HHQ", 5, 8, 3) in file[-28:], "isb_ifdrop: three are missing"
    ((what, request),) = control.requests
    assert what == "capture" and (str(request.service), request.verdicts, request.count) == (WEB, {"dropped"}, 5)
    for body, named in (
        ({"service": "tcp:80"}, "service"),
        ({"client": "192.0.2.1/40"}, "client"),
        ({"verdicts": ["lost"]}, "verdict"),
        ({"server": "x"}, "server"),
        ({"protocol": "gre"}, "protocol"),
        ({"rate": 10**9}, "rate"),
    ):
        response = await api.post("/api/v1/capture", json=body)
        assert response.status == 400 and named in (await response.json())["error"]["message"]
    assert "another capture" in await error_of(await api.post("/api/v1/capture", json={"port": 1}), 500, "data-plane")


async def test_events(api: Client, control: FakeControl) -> None:
    for number in range(5):
        control.set_health(WEB, "198.51.100.31:80", "down" if number % 2 else "up", f"reason {number}")
    body = await (await api.get("/api/v1/events?since=2&limit=2")).json()
    assert [event["seq"] for event in body["events"]] == [4, 5]
    assert body["events"][1]["why"] == "reason 4" and body["events"][1]["kind"] == "health"
    for query in ("since=-1", "limit=0", "since=x", "what=1"):
        message = await error_of(await api.get(f"/api/v1/events?{query}"), 400, "bad-request")
        assert query.split("=")[0] in message


async def test_sysctl(api: Client, control: FakeControl) -> None:
    body = await (await api.get("/api/v1/sysctl")).json()
    assert body["findings"] == [{"key": "net.ipv4.ip_forward", "wanted": "1", "actual": "1", "note": ""}]
    assert control.requests == []
    await api.post("/api/v1/sysctl/apply")
    assert control.requests == [("sysctl_apply", "api.sock")]


# --- changing ---


async def test_patch_server(api: Client, control: FakeControl) -> None:
    path = f"/api/v1/services/{quote(SSH, safe='')}/servers/{quote('[2001:db8:1::31]:22', safe='')}"
    response = await api.patch(path, json={"weight": 7, "drain": True}, headers={"X-LB-Who": "alice"})
    assert response.status == 200
    assert (await response.json())["changes"][0]["key"] == f"services/{SSH}/servers/[2001:db8:1::31]:22"
    assert control.requests == [("set_server", (SSH, "[2001:db8:1::31]:22", {"weight": 7, "drain": True}, "alice"))]


async def test_patch_server_in_every_service(api: Client, control: FakeControl) -> None:
    await api.patch("/api/v1/services/*/servers/198.51.100.31:80", json={"drain": True})
    assert control.requests[0][1][0] == "*"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"weight": 2**31}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": "3"}, "weight"),
        ({"wieght": 3}, "wieght"),
        ({"drain": 1}, "drain"),
        ({"forward": "teleport"}, "forward"),
        ({}, "weight"),
        ([], "body"),
    ],
)
async def test_patch_server_refuses(api: Client, control: FakeControl, body: object, named: str) -> None:
    response = await api.patch(f"/api/v1/services/{WEB}/servers/198.51.100.31:80", json=body)
    assert named in await error_of(response, 400, "bad-request")
    assert control.requests == []


async def test_patch_unknown_server(api: Client) -> None:
    response = await api.patch(f"/api/v1/services/{WEB}/servers/198.51.100.99:80", json={"weight": 1})
    assert "198.51.100.99:80" in await error_of(response, 404, "not-found")


@pytest.mark.parametrize("text", ['{"weight": NaN}', "{", "\ud800".encode("utf-8", "surrogatepass"), "[" * 100_000])
async def test_bodies_that_are_no_json(api: Client, text: str | bytes) -> None:
    response = await api.patch(f"/api/v1/services/{WEB}/servers/198.51.100.31:80", data=text)
    assert "not JSON" in await error_of(response, 400, "bad-request")


async def test_bad_json_names_line_and_column(api: Client) -> None:
    response = await api.post("/api/v1/diff", data='{"document":\n  }')
    body = (await response.json())["error"]
    assert body["problems"][0]["where"] == "body:2:3"


async def test_diff_and_apply(api: Client, control: FakeControl) -> None:
    document = {"services": {WEB: {}, DNS: {}, "tcp:192.0.2.11:80": {"scheduler": "rr"}}}
    body = await (await api.post("/api/v1/diff", json={"document": document, "prune": True})).json()
    assert [(change["key"], change["action"]) for change in body["changes"]] == [
        ("services/tcp:192.0.2.11:80", "create"),
        (f"services/{SSH}", "delete"),
    ]
    # A dry run of apply without prune does not announce deletions that it would not make.
    body = await (await api.post("/api/v1/apply", json={"document": document, "dry_run": True})).json()
    assert [change["action"] for change in body["changes"]] == ["create"]
    assert control.requests == []
    response = await api.post("/api/v1/apply", json={"document": document, "prune": True, "expect_revision": 41})
    assert response.status == 200 and control.requests == [("apply", (document, "api.sock", True))]
    response = await api.post("/api/v1/apply", json={"document": document, "expect_revision": 40})
    await error_of(response, 409, "conflict")
    response = await api.post("/api/v1/apply", json={"document": {"servcies": {}}})
    assert "servcies" in await error_of(response, 400, "config")


async def test_changes(api: Client, control: FakeControl) -> None:
    wanted = {"put": {f"services/{WEB}": {"scheduler": "rr"}}, "delete": [f"services/{SSH}"], "expect_revision": 41}
    body = await (await api.post("/api/v1/changes", json=wanted | {"dry_run": True})).json()
    assert len(body["changes"]) == 2 and control.requests == []
    assert (await api.post("/api/v1/changes", json=wanted)).status == 200
    request = control.requests[0][1]
    assert request.put == wanted["put"] and request.delete == wanted["delete"] and request.who == "api.sock"


async def test_zero_and_handover(api: Client, control: FakeControl) -> None:
    assert (await api.post("/api/v1/zero", json={"service": WEB})).status == 200
    assert (await api.post("/api/v1/zero", json={"service": None})).status == 200
    await error_of(await api.post("/api/v1/zero", json={"service": "tcp:192.0.2.1:1"}), 404, "not-found")
    assert (await api.post("/api/v1/vip-groups/front/handover")).status == 200
    await error_of(await api.post("/api/v1/vip-groups/back/handover"), 404, "not-found")
    assert control.requests == [("zero", WEB), ("zero", None), ("handover", "front")]


async def test_who_would_take_over_is_asked_for_without_a_handover(api: Client, control: FakeControl) -> None:
    path = "/api/v1/vip-groups/front/handover"
    for query in ("", "?to=gw2"):
        assert await (await api.get(path + query)).json() == {"node": "gw1", "to": "gw2"}
    told = await error_of(await api.get(path + "?to=gw3"), 400, "config")
    assert told == "VIP group front: gw3 is not backup now; these are: gw2"
    await error_of(await api.get("/api/v1/vip-groups/back/handover"), 404, "not-found")
    control.resting = ("gw2",)
    assert "nobody would take over" in await error_of(await api.get(path), 400, "config")
    assert "nobody would take over" in await error_of(await api.post(path), 400, "config")
    assert control.requests == []


async def test_wrong_method_and_unknown_path(api: Client, control: FakeControl) -> None:
    response = await api.get("/api/v1/apply")
    assert "POST" in await error_of(response, 405, "bad-request") and response.headers["Allow"] == "POST"
    for path in (f"/api/v1/services/{WEB}/servers/198.51.100.31:80", "/api/v1/zero", "/api/v1/sysctl/apply"):
        assert (await api.get(path)).status == 405
    assert "openapi" in await error_of(await api.get("/api/v1/nothing"), 404, "not-found")
    assert control.requests == []


async def test_body_too_large(api: Client) -> None:
    response = await api.post("/api/v1/diff", data=b" " * (17 * 1024 * 1024))
    await error_of(response, 413, "bad-request")


async def test_who_is_printable_and_short(api: Client, control: FakeControl) -> None:
    await api.post("/api/v1/sysctl/apply", headers={"X-LB-Who": "bob\u202e" + "x" * 100})
    assert control.requests[0][1] == ("bob" + "x" * 100)[:64]


async def test_headers(tcp: Client) -> None:
    for path in ("/login", "/api/v1/status", "/static/style.css"):
        headers = (await tcp.get(path)).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert (await tcp.get("/api/v1/status")).headers["Cache-Control"] == "no-store"


async def test_get_changes_nothing(tcp: Client, control: FakeControl) -> None:
    """GET on every path that exists, also those meant for other methods."""
    before = control.services.version, control.node_status.version, control.journal.latest.value
    for resource in tcp.app.router.resources():  # type: ignore[union-attr]
        path = resource.canonical.format(id=WEB, server="198.51.100.31:80", name="front")
        if path not in ("/api/v1/stream", "/static"):
            await (await tcp.get(path + "?drain=true&weight=0", headers=BEARER, allow_redirects=False)).read()
    assert control.requests == []
    assert before == (control.services.version, control.node_status.version, control.journal.latest.value)
