"""Servers on loopback that behave as told, well or badly."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from healthcheck.spec import CheckSpec, CheckType, Target

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serve(handler: Handler, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that runs `handler` for each connection, and drops what is left of them at the end."""
    handlers: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            handlers.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connected, address, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def answering(answer: bytes, requests: list[bytes] | None = None) -> Handler:
    """Read a request's head (kept in `requests`), send these bytes, close."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if requests is not None:
            requests.append(head)
        writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return handler


def with_body(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts, reads, never answers."""
    while await reader.read(65536):
        pass


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts and closes."""


@asynccontextmanager
async def serve_datagrams(answer: Callable[[bytes], Iterable[bytes]], address: str = "127.0.0.1") -> AsyncIterator[int]:
    """The port of a server that sends back what `answer` makes of each datagram."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
            for datagram in answer(data):
                self.transport.sendto(datagram, sender)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=(address, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def target(
    port: int,
    kind: CheckType = CheckType.HTTP,
    address: str = "127.0.0.1",
    timeout_s: float = 5.0,
    **more: Any,
) -> Target:
    """`more`: further fields of the CheckSpec."""
    return Target("svc/server", ip_address(address), port, CheckSpec(type=kind, timeout_s=timeout_s, **more))
