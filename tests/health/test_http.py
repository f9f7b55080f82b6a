"""HTTP and HTTPS probes against servers that behave well, badly and worse."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from pathlib import Path

import pytest
import trustme

from healthcheck import probes
from healthcheck.probes.http import MAX_BODY_BYTES, format_statuses
from healthcheck.spec import CheckType, HttpSpec, Result
from tests.health.servers import Handler, answering, closing, serve, silent, target, with_body


async def ask(handler: Handler, http: HttpSpec | None = None, *, timeout_s: float = 5.0) -> Result:
    async with serve(handler) as port:
        return await probes.start(target(port, http=http, timeout_s=timeout_s))


async def test_the_request() -> None:
    requests: list[bytes] = []
    spec = HttpSpec(method="HEAD", path="/health?deep=1", host="www.example.org")
    assert (await ask(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", requests), spec)).ok
    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "HEAD /health?deep=1 HTTP/1.1"
    assert "Host: www.example.org" in lines and "Connection: close" in lines


@pytest.mark.parametrize(("address", "text"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_the_host_is_the_server_unless_told(address: str, text: str) -> None:
    requests: list[bytes] = []
    async with serve(answering(with_body(b""), requests), address) as port:
        assert (await probes.start(target(port, address=address))).ok
    assert f"Host: {text}:{port}\r\n".encode() in requests[0]


@pytest.mark.parametrize("body", [b"status=ready\n", b"x" * 5000 + b"ready" + b"x" * 50000])
async def test_a_body_that_matches(body: bytes) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    until_close = b"HTTP/1.0 200 OK\r\n\r\n" + body
    for answer in (with_body(body), chunked, until_close, b"HTTP/1.1 103 Early Hints\r\n\r\n" + with_body(body)):
        assert (await ask(answering(answer), HttpSpec(body_match=r"r[aeiou]+dy"))).ok


OK_HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "spec", "reason"),
    [
        (with_body(b"", 503), HttpSpec(), "status 503 not in 200"),
        (with_body(b"", 302), HttpSpec(expected_statuses=frozenset(range(200, 300))), "status 302 not in 200-299"),
        (with_body(b"sick"), HttpSpec(body_match="ready"), "body does not match 'ready'"),
        (b"", HttpSpec(), "server closed the connection without an answer"),
        (OK_HEAD + b"Content-", HttpSpec(), "server closed the connection in the headers of the answer"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", HttpSpec(), "not HTTP/1.x, it begins with b'SSH-2.0-OpenSSH_9.2p1"),
        (bytes(range(256)) * 8, HttpSpec(), "answer is not HTTP/1.x, it begins with b'\\x00"),
        (OK_HEAD + b"no colon\r\n\r\n", HttpSpec(), "answer breaks HTTP: "),
        (OK_HEAD + b"X: " + b"y" * 200_000, HttpSpec(), "headers of the answer are larger than 64 KiB"),
        (OK_HEAD + b"Content-Length: 99\r\n\r\nshort", HttpSpec(body_match="x"), "body of the answer: "),
        (OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", HttpSpec(body_match="x"), "body of the answer: "),
    ],
)
async def test_answers_that_are_not_healthy(answer: bytes, spec: HttpSpec, reason: str) -> None:
    result = await ask(answering(answer), spec)
    assert not result.ok and reason in result.reason


async def test_the_body_is_read_no_further_than_64_kib() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK_HEAD + b"\r\n")
        while True:
            writer.write(b"z" * 65536)
            await writer.drain()

    result = await ask(endless, HttpSpec(body_match="ready"))
    assert result.reason == f"first {MAX_BODY_BYTES // 1024} KiB of the body does not match 'ready'"
    assert (await ask(endless, HttpSpec(body_match="^z{65536}$"))).ok
    assert (await ask(endless, HttpSpec())).ok  # without body_match it is not read


async def test_a_server_that_accepts_and_never_answers() -> None:
    result = await ask(silent, timeout_s=0.2)
    assert result.reason == "timeout after 0.2 s waiting for the answer" and result.latency_s >= 0.2


@pytest.mark.parametrize(
    ("start", "phase"), [(b"HTTP/1.1 200 OK\r\nX: ", "waiting for the answer"), (OK_HEAD + b"\r\n", "reading the body")]
)
async def test_one_deadline_however_slowly_it_drips(start: bytes, phase: str) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.02)

    result = await ask(drip, HttpSpec(body_match="b"), timeout_s=0.3)
    assert result.reason == f"timeout after 0.3 s {phase}"


async def test_a_server_that_closes_at_once() -> None:
    reason = (await ask(closing)).reason
    assert reason == "server closed the connection without an answer" or reason.startswith("connection lost")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (HttpSpec(path="/a b\r\n"), "the check's own request is not valid HTTP"),
        (HttpSpec(host="ex\nample"), "the check's own request is not valid HTTP"),
        (HttpSpec(path="/ü"), "the check's own request is not valid HTTP"),
        (HttpSpec(body_match="(["), "the check's own body_match '([' is not a regular expression"),
    ],
)
async def test_a_check_that_cannot_be_asked_says_so(spec: HttpSpec, reason: str) -> None:
    assert reason in (await ask(answering(with_body(b"")), spec)).reason


def test_statuses_are_shown_as_ranges() -> None:
    assert format_statuses(frozenset({204, 200, 201, 404, 500, 501})) == "200-201, 204, 404, 500-501"


# --- TLS -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


def server_context(ca: trustme.CA, *names: str, cert: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (cert or ca.issue_cert(*names)).configure_cert(context)
    return context


async def ask_tls(context: ssl.SSLContext, http: HttpSpec, handler: Handler | None = None) -> Result:
    async with serve(handler or answering(with_body(b"ready" * 10_000)), tls=context) as port:
        return await probes.start(target(port, CheckType.HTTPS, http=http))


@pytest.mark.parametrize(
    ("certified", "spec"),
    [
        ("www.example.org", {"host": "www.example.org"}),
        ("www.example.org", {"host": "www.example.org:8443"}),
        ("backend.example.org", {"host": "www.example.org", "tls_server_name": "backend.example.org"}),
        ("127.0.0.1", {}),
    ],
)
async def test_a_certificate_that_fits(ca: trustme.CA, ca_file: str, certified: str, spec: dict[str, str]) -> None:
    result = await ask_tls(server_context(ca, certified), HttpSpec(tls_ca_file=ca_file, body_match="(ready)+$", **spec))
    assert result == Result(True, "", result.latency_s)


async def test_a_certificate_for_another_name(ca: trustme.CA, ca_file: str) -> None:
    result = await ask_tls(server_context(ca, "a.example.org"), HttpSpec(host="b.example.org", tls_ca_file=ca_file))
    assert result.reason.startswith("certificate: hostname mismatch") and "b.example.org" in result.reason


async def test_a_certificate_of_an_unknown_authority(ca: trustme.CA, ca_file: str) -> None:
    strangers = server_context(trustme.CA(), "127.0.0.1")
    assert (await ask_tls(strangers, HttpSpec(tls_ca_file=ca_file))).reason.startswith("certificate: ")
    assert (await ask_tls(strangers, HttpSpec())).reason.startswith("certificate: ")  # the system's authorities
    assert (await ask_tls(strangers, HttpSpec(tls_verify=False))).ok


async def test_an_expired_certificate(ca: trustme.CA, ca_file: str) -> None:
    from datetime import UTC, datetime, timedelta

    expired = ca.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))
    context = server_context(ca, cert=expired)
    result = await ask_tls(context, HttpSpec(tls_ca_file=ca_file))
    assert result.reason == "certificate: certificate has expired"


async def test_the_server_name_is_sent_as_sni_even_without_verification(ca: trustme.CA) -> None:
    asked: list[str | None] = []
    context = server_context(ca, "www.example.org")
    context.sni_callback = lambda sock, name, ctx: asked.append(name)
    assert (await ask_tls(context, HttpSpec(tls_server_name="sni.example.org", tls_verify=False))).ok
    assert asked == ["sni.example.org"]


async def test_no_tls_on_that_port() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await writer.drain()
        await reader.read()

    async with serve(plain) as port:
        result = await probes.start(target(port, CheckType.HTTPS))
    assert result.reason == "TLS handshake: wrong version number"


@pytest.mark.parametrize(
    ("handler", "reason"),
    [(silent, "timeout after 0.2 s in the TLS handshake"), (closing, "TLS handshake: ")],
)
async def test_a_handshake_that_goes_nowhere(handler: Handler, reason: str) -> None:
    async with serve(handler) as port:
        result = await probes.start(target(port, CheckType.HTTPS, timeout_s=0.2))
    assert result.reason.startswith(reason)


async def test_the_server_that_never_answers_behind_tls(ca: trustme.CA) -> None:
    async with serve(silent, tls=server_context(ca, "127.0.0.1")) as port:
        result = await probes.start(target(port, CheckType.HTTPS, timeout_s=0.5, http=HttpSpec(tls_verify=False)))
    assert result.reason == "timeout after 0.5 s waiting for the answer"


async def test_a_ca_file_that_cannot_be_used(tmp_path: Path) -> None:
    missing = HttpSpec(tls_ca_file=str(tmp_path / "missing.pem"))
    assert (await probes.start(target(1, CheckType.HTTPS, http=missing))).reason == (
        f"CA file {tmp_path}/missing.pem: no such file or directory"
    )
    (tmp_path / "empty.pem").write_text("")
    empty = HttpSpec(tls_ca_file=str(tmp_path / "empty.pem"))
    assert "no PEM certificates in it" in (await probes.start(target(1, CheckType.HTTPS, http=empty))).reason


async def test_a_replaced_ca_file_is_read_again(ca: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    spec = HttpSpec(tls_ca_file=str(path))
    context = server_context(ca, "127.0.0.1")
    assert not (await ask_tls(context, spec)).ok
    ca.cert_pem.write_to_path(path)
    os.utime(path, (time.time() + 10, time.time() + 10))
    assert (await ask_tls(context, spec)).ok
