"""HTTP and HTTPS probe: one HTTP/1.1 request, its status, and on request its body.

Redirects are not followed: a server that redirects is healthy if its status is among the expected ones.
"""

from __future__ import annotations

import re

import h11

from healthcheck.probes.channel import Channel, attempt, tls_context
from healthcheck.probes.errors import ProbeFailed
from healthcheck.probes.sockets import address_of
from healthcheck.spec import CheckType, HttpSpec, Result, Target

MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024  # body_match looks no further
_HTTP_1 = b"HTTP/1."
_BEGINNING_BYTES = 32  # of an answer that is not HTTP, shown to the operator


async def probe(target: Target) -> Result:
    """One request, within spec.timeout_s from connect to the last byte looked at."""
    return await attempt(target, _exchange)


async def _exchange(target: Target, channel: Channel) -> None:
    """ProbeFailed says why the server is not healthy."""
    spec = target.spec.http or HttpSpec()
    request = _request(target, spec)
    context = tls_context(spec.tls_verify, spec.tls_ca_file) if target.spec.type is CheckType.HTTPS else None
    await channel.connect()
    if context is not None:
        await channel.start_tls(context, spec.tls_server_name or _without_port(spec.host) or str(target.address))
    channel.phase = "waiting for the answer"
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)
    await channel.send(connection.send(request) or b"")
    connection.send(h11.EndOfMessage())
    status = await _read_status(connection, channel)
    if status not in spec.expected_statuses:
        raise ProbeFailed(f"status {status} not in {format_statuses(spec.expected_statuses)}")
    if spec.body_match:
        channel.phase = "reading the body"
        body = await _read_body(connection, channel)
        if not _compile(spec.body_match).search(body.decode("utf-8", errors="replace")):
            where = f"first {MAX_BODY_BYTES // 1024} KiB of the body" if len(body) == MAX_BODY_BYTES else "body"
            raise ProbeFailed(f"{where} does not match {spec.body_match!r}")


def _request(target: Target, spec: HttpSpec) -> h11.Request:
    host = spec.host
    if not host:
        address, port = address_of(target)
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    headers = [("Host", host), ("User-Agent", "lbnode-healthcheck"), ("Accept", "*/*"), ("Connection", "close")]
    if spec.method in ("POST", "PUT", "PATCH"):
        headers.append(("Content-Length", "0"))
    try:
        return h11.Request(method=spec.method, target=spec.path, headers=headers)
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise ProbeFailed(f"the check's own request is not valid HTTP: {error}") from error


async def _read_status(connection: h11.Connection, channel: Channel) -> int:
    """The status of the final response; interim ones (100 Continue, 103 Early Hints) are passed over."""
    beginning = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise ProbeFailed(f"headers of the answer are larger than {MAX_HEADER_BYTES // 1024} KiB") from error
            raise ProbeFailed(f"answer breaks HTTP: {error}") from error
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            data = await channel.receive()
            if not data:
                where = "in the headers of the answer" if beginning else "without an answer"
                raise ProbeFailed(f"server closed the connection {where}")
            beginning = (beginning + data)[:_BEGINNING_BYTES]
            if not beginning.startswith(_HTTP_1[: len(beginning)]):  # such a server may wait for us to speak first
                raise ProbeFailed(f"answer is not HTTP/1.x, it begins with {beginning!r}")
            connection.receive_data(data)


async def _read_body(connection: h11.Connection, channel: Channel) -> bytes:
    """The body, or its first 64 KiB."""
    body = bytearray()
    while len(body) < MAX_BODY_BYTES:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise ProbeFailed(f"body of the answer: {error}") from error
        if isinstance(event, h11.Data):
            body += event.data
        elif event is h11.NEED_DATA:
            connection.receive_data(await channel.receive())
        else:  # EndOfMessage; PAUSED after CONNECT, which has no body
            break
    return bytes(body[:MAX_BODY_BYTES])


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ProbeFailed(f"the check's own body_match {pattern!r} is not a regular expression: {error}") from error


def _without_port(host: str) -> str:
    """`example.org:8443` -> `example.org`, `[2001:db8::1]:443` -> `2001:db8::1`."""
    match = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", host)
    return (match[1] or match[2] or "") if match else host


def format_statuses(statuses: frozenset[int]) -> str:
    """`{200, 201, 202, 404}` -> `200-202, 404`."""
    ordered = sorted(statuses)
    starts = [s for s in ordered if s - 1 not in statuses]
    ends = [s for s in ordered if s + 1 not in statuses]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
