"""A byte stream to a server, plain or TLS, over one non-blocking socket, closed for sure.

TLS runs over memory buffers (ssl.SSLObject) instead of an asyncio transport: nothing outlives the probe, no
shutdown handshake is waited for, and each phase fails under its own name.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache
from types import TracebackType
from typing import Self, TypeVar

from healthcheck.probes.errors import ProbeFailed, connect_reason, timeout_reason
from healthcheck.probes.sockets import address_of, open_socket
from healthcheck.spec import Result, Target

T = TypeVar("T")

_CHUNK_BYTES = 65536


class Channel:
    """One connection. `phase` says what is being waited for, to go on after "timeout after 1 s "."""

    def __init__(self, target: Target) -> None:
        self.phase = "connecting"
        self._loop = asyncio.get_running_loop()
        self._address = address_of(target)
        self._sock = open_socket(target)
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sock.close()

    async def connect(self) -> None:
        try:
            await self._loop.sock_connect(self._sock, self._address)
        except OSError as error:
            raise ProbeFailed(connect_reason(error.errno or 0)) from error

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Handshake; `server_name` is sent as SNI (unless it is an address) and looked for in the certificate."""
        self.phase = "in the TLS handshake"
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        try:
            await self._run_tls(self._tls.do_handshake)
        except ssl.SSLCertVerificationError as error:
            message = error.verify_message.rstrip(".")
            raise ProbeFailed(f"certificate: {message[:1].lower()}{message[1:]}") from error
        except ssl.SSLEOFError as error:
            raise ProbeFailed("TLS handshake: the server closed the connection") from error
        except ssl.SSLError as error:
            raise ProbeFailed(f"TLS handshake: {_words(error)}") from error
        except OSError as error:
            raise ProbeFailed(f"TLS handshake: {os.strerror(error.errno or 0).lower()}") from error

    async def send(self, data: bytes) -> None:
        try:
            if self._tls is None:
                await self._loop.sock_sendall(self._sock, data)
            else:
                tls = self._tls
                await self._run_tls(lambda: tls.write(data))
        except OSError as error:  # ssl.SSLError too
            raise ProbeFailed(f"connection lost {self.phase}: {_words(error)}") from error

    async def receive(self) -> bytes:
        """Up to 64 KiB; empty at the end of the stream."""
        try:
            if self._tls is None:
                return await self._loop.sock_recv(self._sock, _CHUNK_BYTES)
            tls = self._tls
            return await self._run_tls(lambda: tls.read(_CHUNK_BYTES))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""  # whether something is missing, HTTP knows
        except OSError as error:
            raise ProbeFailed(f"connection lost {self.phase}: {_words(error)}") from error

    async def _run_tls(self, operation: Callable[[], T]) -> T:
        """Repeat an operation of the SSLObject, carrying bytes between it and the socket, until it succeeds."""
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await self._loop.sock_recv(self._sock, _CHUNK_BYTES):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()  # the operation now ends with SSLEOFError
            except ssl.SSLError:
                await self._flush()  # the alert that tells the server why
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._loop.sock_sendall(self._sock, data)


async def attempt(target: Target, exchange: Callable[[Target, Channel], Awaitable[None]]) -> Result:
    """One connection, and what `exchange` does over it, within spec.timeout_s."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    timeout_s = target.spec.timeout_s
    reason = ""
    with Channel(target) as channel:
        try:
            async with asyncio.timeout(timeout_s):
                await exchange(target, channel)
        except ProbeFailed as failed:
            reason = str(failed)
        except TimeoutError:
            reason = timeout_reason(timeout_s, channel.phase)
    return Result(not reason, reason, loop.time() - started)


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return os.strerror(error.errno or 0).lower()


def tls_context(verify: bool, ca_file: str) -> ssl.SSLContext:
    """The client context; made once per set of trusted certificates, since reading the system's takes 20 ms.

    ProbeFailed if `ca_file` cannot be read. A file that was replaced is read again.
    """
    try:
        modified_ns = os.stat(ca_file).st_mtime_ns if verify and ca_file else 0
        return _tls_context(verify, ca_file, modified_ns)
    except ssl.SSLError as error:
        raise ProbeFailed(f"CA file {ca_file}: no PEM certificates in it ({_words(error)})") from error
    except OSError as error:
        raise ProbeFailed(f"CA file {ca_file}: {os.strerror(error.errno or 0).lower()}") from error


@lru_cache(maxsize=64)
def _tls_context(verify: bool, ca_file: str, modified_ns: int) -> ssl.SSLContext:  # noqa: ARG001 part of the key
    context = ssl.create_default_context(cafile=ca_file or None) if verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
