"""The pure half of the etcd client: endpoints, requests, what answers and errors mean."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.errors import ConfigError
from lbnode.store import etcd_pb2 as pb
from lbnode.store.base import Entry, Expect
from lbnode.store.etcd_wire import (
    MAX_TXN_OPS,
    Endpoint,
    Fault,
    backoff_s,
    changes,
    classify,
    listed,
    nest,
    prefix_end,
    reason,
    refusal_hint,
    relist_reason,
    transaction,
)
from lbnode.store.keyspace import Change

PLAIN, TLS = Endpoint("192.0.2.1", 2379, tls=False), Endpoint("192.0.2.1", 2379, tls=True)


@pytest.mark.parametrize(
    ("url", "text", "tls"),
    [
        ("http://192.0.2.1:2379", "192.0.2.1:2379", False),
        ("https://etcd1.example", "etcd1.example:2379", True),
        ("192.0.2.1:4001", "192.0.2.1:4001", False),
        ("http://[2001:db8::1]:2379/", "[2001:db8::1]:2379", False),
    ],
)
def test_endpoints(url: str, text: str, tls: bool) -> None:
    endpoint = Endpoint.parse(url)
    assert (str(endpoint), endpoint.tls) == (text, tls)


@pytest.mark.parametrize(
    "url", ["", "http://", "ftp://192.0.2.1", "http://a:port", "http://a:70000", "http://a/v3", "unix://x"]
)
def test_bad_endpoints_say_how_to_write_them(url: str) -> None:
    with pytest.raises(ConfigError, match="write http://HOST:2379 or https://HOST:2379"):
        Endpoint.parse(url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="settings of their own") as error:
        Endpoint.parse("http://lb:secret@192.0.2.1:2379")
    assert "secret" not in str(error.value)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=5).map(lambda name: f"/lbnode/{name}/".encode()), st.binary(max_size=6))
def test_the_range_of_a_prefix_holds_what_begins_with_it(prefix: bytes, rest: bytes) -> None:
    assert prefix <= prefix + rest < prefix_end(prefix)
    assert not prefix <= rest < prefix_end(prefix) or rest.startswith(prefix)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_grows_to_its_limit(failures: int, jitter: float) -> None:
    assert 0.02 < backoff_s(failures, jitter) <= 3.0
    assert backoff_s(failures, jitter) <= backoff_s(failures + 1, jitter)


@pytest.mark.parametrize(
    ("code", "details", "fault"),
    [
        ("UNAVAILABLE", "etcdserver: no leader", Fault.MEMBER),
        ("UNAVAILABLE", "etcdserver: request timed out", Fault.MEMBER),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Fault.MEMBER),
        ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Fault.MEMBER),
        ("UNAUTHENTICATED", "etcdserver: invalid auth token", Fault.TOKEN),
        ("INVALID_ARGUMENT", "etcdserver: user name is empty", Fault.TOKEN),
        ("INVALID_ARGUMENT", "etcdserver: revision of auth store is old", Fault.TOKEN),
        ("INVALID_ARGUMENT", "etcdserver: authentication failed, invalid user ID or password", Fault.CREDENTIALS),
        ("PERMISSION_DENIED", "etcdserver: permission denied", Fault.PERMISSION),
        ("UNAVAILABLE", "rpc error: code = PermissionDenied desc = etcdserver: permission denied", Fault.PERMISSION),
        ("NOT_FOUND", "etcdserver: requested lease not found", Fault.LEASE_GONE),
        ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Fault.REFUSED),
        ("INVALID_ARGUMENT", "etcdserver: request is too large", Fault.REFUSED),
        ("UNIMPLEMENTED", "unknown service etcdserverpb.KV", Fault.REFUSED),
    ],
)
def test_what_errors_mean(code: str, details: str, fault: Fault) -> None:
    assert classify(code, details) is fault


NO_CONNECTION = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:192.0.2.1:2379: "


@pytest.mark.parametrize(
    ("endpoint", "code", "details", "text"),
    [
        (PLAIN, "DEADLINE_EXCEEDED", "Deadline Exceeded", "no answer in time"),
        (PLAIN, "UNAVAILABLE", NO_CONNECTION + "connect: Connection refused (111)", "connection refused"),
        (PLAIN, "UNAVAILABLE", NO_CONNECTION + "Socket closed", "does it want https://"),
        (PLAIN, "UNAVAILABLE", "Stream removed (Socket closed)", "connection lost"),
        (TLS, "UNAVAILABLE", "Stream removed (Socket closed)", "connection lost"),
        (TLS, "UNAVAILABLE", NO_CONNECTION + "Unwrap failed (TSI_DATA_CORRUPTED)", "TLS handshake failed"),
        (TLS, "UNAVAILABLE", NO_CONNECTION + "Handshake read failed (Socket closed)", "TLS handshake failed"),
        (TLS, "UNAVAILABLE", NO_CONNECTION + "CERTIFICATE_VERIFY_FAILED: expired: OK", "not accepted: expired (check"),
        (PLAIN, "UNAVAILABLE", "errors resolving etcd1.example:2379: []", "host name not found"),
        (PLAIN, "UNAVAILABLE", "etcdserver: no leader", "no leader"),
        (PLAIN, "UNAVAILABLE", "rpc error: code = Unavailable desc = etcdserver: no leader", "no leader"),
        (PLAIN, "UNAVAILABLE", NO_CONNECTION + "connection attempt timed out before", "no answer in time"),
        (PLAIN, "UNKNOWN", "", "UNKNOWN"),
    ],
)
def test_reasons_are_for_people(endpoint: Endpoint, code: str, details: str, text: str) -> None:
    assert text in reason(code, details, endpoint)
    assert "ipv4:" not in reason(code, details, endpoint)


def test_refusals_say_what_to_do() -> None:
    assert "--max-request-bytes" in refusal_hint("etcdserver: request is too large")
    assert "--max-txn-ops" in refusal_hint("etcdserver: too many operations in txn request")
    assert "alarm disarm" in refusal_hint("etcdserver: mvcc: database space exceeded")
    assert refusal_hint("something else") == ""


def fits(request: pb.TxnRequest, limit: int = MAX_TXN_OPS) -> bool:
    """etcd's own check, v3rpc/key.go checkTxnRequest."""
    used = max(len(request.compare), len(request.success), len(request.failure))
    nested = [op.request_txn for op in request.success if op.HasField("request_txn")]
    return used <= limit and all(fits(each, limit - used) for each in nested)


def leaves(ops: list[pb.RequestOp]) -> list[bytes]:
    """Keys put, in order."""
    return [
        key
        for op in ops
        for key in (leaves(list(op.request_txn.success)) if op.HasField("request_txn") else [op.request_put.key])
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 100))
def test_large_transactions_fit_and_keep_every_operation(count: int, guards: int) -> None:
    ops = [pb.RequestOp(request_put=pb.PutRequest(key=b"%d" % n)) for n in range(count)]
    tree = nest(ops, guards)
    assert leaves(tree) == [b"%d" % n for n in range(count)]
    assert fits(pb.TxnRequest(success=tree, compare=[pb.Compare()] * guards)) or guards > 60


def test_a_transaction_on_the_wire() -> None:
    request = transaction("/lbnode/t/", {"a": "é"}, ["b", "b"], [Expect("a", 0), Expect("c", 7)], lease=3)
    assert [(each.key, each.mod_revision, each.target) for each in request.compare] == [
        (b"/lbnode/t/a", 0, pb.Compare.MOD),
        (b"/lbnode/t/c", 7, pb.Compare.MOD),
    ]
    assert request.success == [
        pb.RequestOp(request_put=pb.PutRequest(key=b"/lbnode/t/a", value="é".encode(), lease=3)),
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"/lbnode/t/b")),
    ]
    assert [each.request_range.key for each in request.failure] == [b"/lbnode/t/a", b"/lbnode/t/c"]


def test_a_guard_on_revision_zero_is_sent_although_zero_is_protobufs_default() -> None:
    guard = transaction("/lbnode/t/", {"a": "1"}, (), [Expect("a", 0)]).compare[0]
    assert guard.WhichOneof("target_union") == "mod_revision"
    assert pb.Compare.FromString(guard.SerializeToString()).WhichOneof("target_union") == "mod_revision"


def test_answers() -> None:
    kv = pb.KeyValue(key="/lbnode/t/ä".encode(), value=b"\xff1", mod_revision=4)
    assert listed("/lbnode/t/", pb.RangeResponse(kvs=[kv])) == {"ä": Entry("\ufffd1", 4)}
    events = [
        pb.Event(type=pb.Event.PUT, kv=kv),
        pb.Event(type=pb.Event.DELETE, kv=pb.KeyValue(key=kv.key, mod_revision=5)),
    ]
    assert changes("/lbnode/t/", events) == [Change(4, "ä", "\ufffd1"), Change(5, "ä", None)]


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (pb.WatchResponse(header=pb.ResponseHeader(cluster_id=1, revision=9)), ""),
        (pb.WatchResponse(header=pb.ResponseHeader(cluster_id=1, revision=12)), ""),
        (pb.WatchResponse(header=pb.ResponseHeader(cluster_id=1, revision=8)), "restored or lagging"),
        (pb.WatchResponse(header=pb.ResponseHeader(cluster_id=2, revision=12)), "another cluster"),
        (pb.WatchResponse(canceled=True, compact_revision=11), "up to 11 were compacted"),
        (pb.WatchResponse(canceled=True, cancel_reason="no leader"), ""),
    ],
)
def test_when_to_list_again(response: pb.WatchResponse, text: str) -> None:
    why = relist_reason(response, cluster_id=1, revision=9)
    assert text in why
    assert bool(why) == bool(text)
