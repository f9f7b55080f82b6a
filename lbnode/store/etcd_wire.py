"""Pure half of the etcd client: endpoints, requests, what answers and errors mean, when to try again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit

from lbnode.errors import ConfigError
from lbnode.store import etcd_pb2 as pb
from lbnode.store.base import Entry, Expect
from lbnode.store.keyspace import Change

MAX_TXN_OPS = 128  # etcd's default of --max-txn-ops
BACKOFF_MIN_S, BACKOFF_MAX_S, BACKOFF_REFUSED_MAX_S = 0.05, 2.0, 10.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """`http://HOST[:PORT]`, `https://HOST[:PORT]` or `HOST:PORT`; ConfigError says what is wrong."""
        hint = f"etcd endpoint {url!r}: write http://HOST:2379 or https://HOST:2379"
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port or 2379
        except ValueError as error:
            raise ConfigError(f"{hint} ({error})") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError(hint)
        if parts.username is not None:
            raise ConfigError(f"etcd endpoint of {parts.hostname}: give user and password as settings of their own")
        return cls(parts.hostname, port, parts.scheme == "https")


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys that begin with `prefix` (etcd's range_end); the prefix ends in "/"."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def backoff_s(failures: int, jitter: float, maximum_s: float = BACKOFF_MAX_S) -> float:
    """Pause after the n-th failure in a row (from 1): doubling, with `jitter` in 0..1 spreading it by ±50 %."""
    return min(BACKOFF_MIN_S * 2.0 ** min(failures - 1, 32), maximum_s) * (0.5 + jitter)


# --- errors --------------------------------------------------------------------------------------------------


class Fault(Enum):
    """What an error means for us."""

    MEMBER = auto()  # this member cannot serve now: ask another
    TOKEN = auto()  # authenticate again, then repeat
    CREDENTIALS = auto()  # wrong user or password
    PERMISSION = auto()  # the user may not touch these keys
    LEASE_GONE = auto()
    REFUSED = auto()  # the request itself; repeating it is pointless


_MEANING = (  # texts of etcd's api/v3rpc/rpctypes/error.go: the status codes alone are ambiguous
    ("invalid auth token", Fault.TOKEN),
    ("user name is empty", Fault.TOKEN),
    ("revision of auth store is old", Fault.TOKEN),
    ("authentication failed", Fault.CREDENTIALS),
    ("permission denied", Fault.PERMISSION),
    ("requested lease not found", Fault.LEASE_GONE),
    ("too many requests", Fault.MEMBER),
)
_MEMBER_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN", "ABORTED"})


def classify(code: str, details: str) -> Fault:
    """Meaning of a gRPC status by its code's name and its text."""
    for text, fault in _MEANING:
        if text in details:
            return fault
    return Fault.MEMBER if code in _MEMBER_CODES else Fault.REFUSED


def reason(code: str, details: str, endpoint: Endpoint) -> str:
    """A status as an operator wants to read it. The texts come from gRPC's C core, the rest is etcd's own words."""
    text = details.rpartition("last error: ")[2].rpartition(" desc = ")[2].removeprefix("etcdserver: ")
    text = re.sub(r"^[A-Z_]+: ipv[46]:\S+: ", "", text)
    lowered = text.lower()
    closed = "socket closed" in lowered or "connection reset" in lowered
    if code == "DEADLINE_EXCEEDED" or "attempt timed out" in lowered:
        return "no answer in time"
    if "connection refused" in lowered:
        return "connection refused"
    if "errors resolving" in lowered:
        return "host name not found"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = text.rpartition("CERTIFICATE_VERIFY_FAILED: ")[2].removesuffix(": OK")
        return f"its TLS certificate is not accepted: {why} (check ca_file)"
    if "failed to connect" in details and endpoint.tls and (closed or "handshake" in lowered or "unwrap" in lowered):
        return "TLS handshake failed: does it speak TLS, and does it accept our client certificate?"
    if "failed to connect" in details and closed:
        return "it closes the connection: does it want https:// ?"
    return "connection lost" if closed else text or code


def refusal_hint(details: str) -> str:
    """What the operator can do about a refused request."""
    if "too many operations" in details:
        return f" (etcd takes {MAX_TXN_OPS} guards per transaction: split the change, or raise --max-txn-ops)"
    if "too large" in details or "larger than max" in details:
        return " (etcd takes 1.5 MiB per transaction: split the change, or raise --max-request-bytes)"
    if "space exceeded" in details:
        return " (compact and defragment etcd, raise --quota-backend-bytes, then `etcdctl alarm disarm`)"
    return ""


# --- requests ------------------------------------------------------------------------------------------------


def transaction(
    prefix: str, puts: Mapping[str, str], deletes: Sequence[str] = (), expect: Sequence[Expect] = (), lease: int = 0
) -> pb.TxnRequest:
    """The request for Store.txn; if a guard fails it reads the guarded keys, to say which one it was."""
    ops = [
        pb.RequestOp(request_put=pb.PutRequest(key=_key(prefix, key), value=value.encode(), lease=lease))
        for key, value in puts.items()
    ]
    ops += [
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=_key(prefix, key)))
        for key in dict.fromkeys(deletes)
    ]
    return pb.TxnRequest(
        compare=[
            pb.Compare(
                result=pb.Compare.EQUAL,
                target=pb.Compare.MOD,
                key=_key(prefix, guard.key),
                mod_revision=guard.revision,
            )
            for guard in expect
        ],
        success=nest(ops, len(expect)),
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=_key(prefix, guard.key))) for guard in expect],
    )


def nest(ops: list[pb.RequestOp], guards: int, limit: int = MAX_TXN_OPS) -> list[pb.RequestOp]:
    """Arrange more operations than `limit` as a tree of nested transactions: still one transaction, one revision.

    etcd (v3rpc/key.go, checkTxnRequest) takes a transaction of max(guards, operations) <= limit, and allows a nested
    one what is left of the limit after each level above it; siblings do not add up. If nothing fits, the list stays
    flat for etcd to judge, whose limit may have been raised.
    """
    if len(ops) <= limit:
        return ops
    for depth in range(2, 7):
        top = max(guards, limit // depth)
        inner = (limit - top) // (depth - 1)
        if inner > 0 and top * inner ** (depth - 1) >= len(ops):
            for _ in range(depth - 1):
                ops = [
                    pb.RequestOp(request_txn=pb.TxnRequest(success=ops[start : start + inner]))
                    for start in range(0, len(ops), inner)
                ]
            return ops
    return ops


def _key(prefix: str, key: str) -> bytes:
    return (prefix + key).encode()


# --- answers -------------------------------------------------------------------------------------------------


def listed(prefix: str, response: pb.RangeResponse) -> dict[str, Entry]:
    skip = len(prefix.encode())
    return {_text(kv.key[skip:]): Entry(_text(kv.value), kv.mod_revision) for kv in response.kvs}


def found_revisions(prefix: str, response: pb.TxnResponse) -> dict[str, int]:
    """Keys and revisions that a transaction read because a guard failed."""
    skip = len(prefix.encode())
    return {_text(kv.key[skip:]): kv.mod_revision for answer in response.responses for kv in answer.response_range.kvs}


def changes(prefix: str, events: Iterable[pb.Event]) -> list[Change]:
    skip = len(prefix.encode())
    return [
        Change(
            event.kv.mod_revision,
            _text(event.kv.key[skip:]),
            None if event.type == pb.Event.DELETE else _text(event.kv.value),
        )
        for event in events
    ]


def relist_reason(response: pb.WatchResponse, cluster_id: int, revision: int) -> str:
    """Why the watch cannot be trusted or resumed from `revision` and everything must be listed again; "" if it can.

    A watch from a revision that a restored or replaced cluster has not reached yet is accepted and stays silent, so
    the answer's header is what tells.
    """
    if response.compact_revision:
        return f"revisions up to {response.compact_revision} were compacted"
    header = response.header
    if header.cluster_id and header.cluster_id != cluster_id:
        return "the member belongs to another cluster: replaced?"
    if header.revision and header.revision < revision:
        return f"the member is at revision {header.revision}, we are at {revision}: restored or lagging"
    return ""


def _text(data: bytes) -> str:
    """Bytes that are no UTF-8 (etcdctl can put anything) become U+FFFD: the reader of the value reports it."""
    return data.decode(errors="replace")
