"""A conversation in datagrams with a server, over one connected socket, within one deadline."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from healthcheck.probes.errors import ProbeFailed, datagram_reason, raise_if_local, timeout_reason
from healthcheck.spec import Result, Target

MAX_BYTES = 65535


class Conversation:
    """Connected, so that the kernel passes on only what comes from the server, and the ICMP errors about it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as error:
            raise ProbeFailed(datagram_reason(error.errno or 0)) from error

    async def receive(self) -> bytes:
        """One datagram."""
        try:
            return await self._loop.sock_recv(self._sock, MAX_BYTES)
        except OSError as error:
            raise ProbeFailed(datagram_reason(error.errno or 0)) from error


def udp_socket(target: Target) -> socket.socket:
    """Non-blocking; ProbeImpossible if this machine has none left."""
    return open_socket(target, socket.SOCK_DGRAM, socket.IPPROTO_UDP)


def open_socket(target: Target, kind: int, protocol: int) -> socket.socket:
    """PermissionError is the caller's to judge."""
    family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
    try:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    except OSError as error:
        raise_if_local(error.errno or 0)
        raise


async def converse(
    target: Target,
    sock: socket.socket,
    talk: Callable[[Conversation], Awaitable[None]],
    port: int,
    *,
    silence_is_healthy: bool = False,
) -> Result:
    """Connect, `talk`, close. What fails in words; within spec.timeout_s."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    reason = ""
    with sock:
        try:
            async with asyncio.timeout(target.spec.timeout_s):
                try:
                    sock.connect((str(target.address), port))  # sends nothing
                except OSError as error:
                    raise ProbeFailed(datagram_reason(error.errno or 0)) from error
                await talk(Conversation(sock))
        except ProbeFailed as failed:
            reason = str(failed)
        except TimeoutError:
            if not silence_is_healthy:
                reason = timeout_reason(target.spec.timeout_s, "waiting for the answer")
    return Result(not reason, reason, loop.time() - started)
