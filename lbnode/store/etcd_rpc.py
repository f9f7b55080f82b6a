"""Calls to an etcd cluster over gRPC: one channel per member, deadlines of our own, fail-over, tokens, TLS.

gRPC's own balancing does not leave a member that hangs or has lost quorum: we keep to one member, and rotate ourselves.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast

# Set before gRPC's C core starts: it writes lost connections to stderr, past our journal and `health`.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc
import grpc.aio

from lbnode.errors import ConfigError, StoreRefused, StoreUnavailable
from lbnode.store import etcd_pb2 as pb
from lbnode.store.etcd_wire import Endpoint, Fault, backoff_s, classify, reason, refusal_hint
from lbnode.store.lease import LeaseGone

TRY_S = 2.0  # deadline of one try at one member
TOTAL_S = 10.0  # deadline of a call over all tries

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a list of everything exceeds gRPC's 4 MiB
    ("grpc.keepalive_time_ms", 10_000),  # etcd drops clients that ping more often than every 5 s
    ("grpc.http2.ping_timeout_ms", 3_000),  # in grpcio 1.85 keepalive_timeout_ms alone has no effect
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class Message(Protocol):
    """What we need of a generated protobuf class."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802  (protobuf's name)
    @classmethod
    def FromString(cls, data: bytes, /) -> Self: ...  # noqa: N802


T = TypeVar("T")
M = TypeVar("M", bound=Message)


class RpcFailed(Exception):
    """One try at one member failed."""

    def __init__(self, fault: Fault, text: str, details: str = "") -> None:
        super().__init__(text)
        self.fault = fault
        self.details = details


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: CA bundle (None: the system's), client certificate and key (None: anonymous)."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def stamp(self) -> tuple[float, ...]:
        """Changes when a file is replaced."""
        files = [Path(name) for name in (self.ca_file, self.cert_file, self.key_file) if name]
        return tuple(file.stat().st_mtime for file in files if file.exists())

    def credentials(self) -> Any:
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("etcd: a client certificate needs both cert_file and key_file")
        return grpc.ssl_channel_credentials(_pem(self.ca_file), _pem(self.key_file), _pem(self.cert_file))


def _pem(name: str | None) -> bytes | None:
    if name is None:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"etcd: cannot read {name}: {error.strerror}") from None


class EtcdRpc:
    """A sticky connection to one member at a time; `current` is its index in `endpoints`."""

    def __init__(self, endpoints: Sequence[Endpoint], user: str | None, password: str | None, tls: Tls) -> None:
        self.endpoints = endpoints
        self.current = random.randrange(len(endpoints))
        self.user = user
        self._password = password or ""
        self._tls = tls
        self._channels: dict[int, Any] = {}
        self._token: str | None = None  # "" once etcd said that it has authentication switched off
        self._authenticating = asyncio.Lock()
        self._faults: dict[int, str] = {}  # endpoint index -> why its last try failed
        self._stamp = tls.stamp()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        if any(endpoint.tls for endpoint in endpoints):
            tls.credentials()  # a missing file is reported at start

    @property
    def endpoint(self) -> str:
        return str(self.endpoints[self.current])

    # --- fail-over -------------------------------------------------------------------------------------------

    def succeeded(self, index: int) -> None:
        """Member `index` served us: forget what was wrong before."""
        self._faults.clear()
        self.current = index

    def failed(self, index: int, why: str) -> None:
        """Note why and leave member `index` for the next one."""
        self._faults[index] = why
        if self.endpoints[index].tls and (stamp := self._tls.stamp()) != self._stamp:
            self._stamp = stamp  # certificates were renewed: connect with the new ones
            self._drop_channels()
        if self.current == index:
            self.current = (index + 1) % len(self.endpoints)

    def problem(self) -> str:
        """What is wrong with which member."""
        faults = "; ".join(f"{self.endpoints[i]}: {why}" for i, why in sorted(self._faults.items()))
        if len(self._faults) < len(self.endpoints):
            return f"lost etcd member {faults}"
        return f"no etcd member answers ({faults})"

    async def run(self, attempt: Callable[[int, float], Awaitable[T]], failing: Callable[[], None] = lambda: None) -> T:
        """Try `attempt(member index, deadline in s)` at one member after the other until one succeeds.

        A try may have taken effect although it failed: `attempt` must be fit to be repeated. `failing` is called each
        time that all members have failed. StoreUnavailable after TOTAL_S, StoreRefused when etcd says no, LeaseGone.
        """
        end = time.monotonic() + TOTAL_S
        failures, reauthenticated = 0, False
        while True:
            index = self.current
            # Members that answer late get more time in each round: a big list on a slow machine must not starve.
            limit = TRY_S * (1 + failures // len(self.endpoints))
            try:
                result = await attempt(index, min(limit, max(0.05, end - time.monotonic())))
            except RpcFailed as error:
                if error.fault is Fault.TOKEN and not reauthenticated:
                    reauthenticated = True
                    continue
                self._raise_final(error)
                self.failed(index, str(error))
                failures += 1
                pause = 0.0
                if failures >= len(self.endpoints):
                    failing()
                    pause = backoff_s(failures - len(self.endpoints) + 1, random.random())
                if time.monotonic() + pause >= end:
                    raise StoreUnavailable(self.problem()) from None
                await asyncio.sleep(pause)
            else:
                self.succeeded(index)
                return result

    async def call(
        self, method: str, request: Message, response_type: type[M], failing: Callable[[], None] = lambda: None
    ) -> M:
        """`run` one unary call of `/etcdserverpb.<method>`."""

        async def attempt(index: int, timeout_s: float) -> M:
            return await self.unary(index, method, request, response_type, timeout_s)

        return await self.run(attempt, failing)

    def _raise_final(self, error: RpcFailed) -> None:
        """Raise what no other member would answer differently."""
        if error.fault is Fault.LEASE_GONE:
            raise LeaseGone
        if error.fault in (Fault.CREDENTIALS, Fault.PERMISSION, Fault.REFUSED):
            raise StoreRefused(str(error)) from None

    # --- single tries ----------------------------------------------------------------------------------------

    async def unary(self, index: int, method: str, request: Message, response_type: type[M], timeout_s: float) -> M:
        """One call of `/etcdserverpb.<method>` at member `index`; RpcFailed."""
        token = await self._authenticate(index, timeout_s)
        call = self._channel(index).unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        try:
            return cast(M, await call(request, timeout=timeout_s, metadata=_metadata(token)))
        except grpc.aio.AioRpcError as error:
            raise self.explain(index, error, token) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RpcFailed(Fault.MEMBER, "connection closed") from None  # the channel was, not our caller

    async def open(self, index: int, method: str, request_type: type[M], response_type: type[Message]) -> Any:
        """A bidirectional stream of `/etcdserverpb.<method>` that ends when its member loses the leader."""
        token = await self._authenticate(index, TRY_S)
        return self._channel(index).stream_stream(
            f"/etcdserverpb.{method}",
            request_serializer=request_type.SerializeToString,
            response_deserializer=response_type.FromString,
        )(metadata=(*_metadata(token), ("hasleader", "true")))

    def explain(self, index: int, error: grpc.aio.AioRpcError, token: str | None = None) -> RpcFailed:
        return self.explain_text(index, error.code().name, error.details() or "", token)

    def explain_text(self, index: int, code: str, details: str, token: str | None = None) -> RpcFailed:
        """Turn a gRPC status into what it means; a bad token is dropped, so that the next try authenticates."""
        endpoint = self.endpoints[index]
        fault = classify(code, details)
        if fault is Fault.TOKEN and (token is None or token == self._token):
            self._token = None
        who = f"user {self.user!r}" if self.user else "a client without user and password"
        text = reason(code, details, endpoint)
        if fault is Fault.CREDENTIALS:
            text = f"etcd at {endpoint} rejects user {self.user!r}: wrong user name or password"
        elif fault is Fault.PERMISSION:
            text = f"etcd at {endpoint} denies {who} access to our keys: grant readwrite on the prefix to its role"
        elif fault is Fault.TOKEN and not self.user:
            fault = Fault.REFUSED
            text = f"etcd at {endpoint} wants a user and a password, and none is configured"
        elif fault is Fault.REFUSED:
            text = f"etcd at {endpoint}: {text}{refusal_hint(details)}"
        return RpcFailed(fault, text, details)

    def drop_token(self) -> bool:
        """Forget the token, so that the next try authenticates; False if there was none."""
        had, self._token = bool(self._token), None
        return had

    async def _authenticate(self, index: int, timeout_s: float) -> str:
        """The token to send, fetched first if there is none; "" where none is needed."""
        if self.user is None:
            return ""
        async with self._authenticating:
            if self._token is not None:
                return self._token
            call = self._channel(index).unary_unary(
                "/etcdserverpb.Auth/Authenticate",
                request_serializer=pb.AuthenticateRequest.SerializeToString,
                response_deserializer=pb.AuthenticateResponse.FromString,
            )
            try:
                request = pb.AuthenticateRequest(name=self.user, password=self._password)
                self._token = cast(str, (await call(request, timeout=timeout_s)).token)
            except grpc.aio.AioRpcError as error:
                if "authentication is not enabled" not in (error.details() or ""):
                    raise self.explain(index, error) from None
                self._token = ""
            return self._token

    def _channel(self, index: int) -> Any:
        if self._closed:
            raise RpcFailed(Fault.REFUSED, "the store was closed")
        if index not in self._channels:
            endpoint = self.endpoints[index]
            target = f"dns:///{endpoint}"
            if endpoint.tls:
                try:
                    credentials = self._tls.credentials()
                except ConfigError as error:
                    raise RpcFailed(Fault.MEMBER, str(error)) from None
                channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
            else:
                channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
            self._channels[index] = channel
        return self._channels[index]

    def _drop_channels(self) -> None:
        for channel in self._channels.values():
            task = asyncio.ensure_future(channel.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._channels.clear()

    async def close(self) -> None:
        self._closed = True
        self._drop_channels()
        await asyncio.gather(*self._closing)


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("token", token),) if token else ()
