"""Differences by meaning, and requests turned into guarded transactions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from lbnode.config.change import Transaction, patch_server, plan_apply, plan_request
from lbnode.config.diff import diff_entries
from lbnode.config.document import documents, entries_to_document
from lbnode.config.resolve import resolve
from lbnode.control import ChangeRequest
from lbnode.errors import ConfigError, StoreConflict
from lbnode.store.base import Entry, Expect

WEB = "services/tcp:192.0.2.10:80"
ONE, TWO = f"{WEB}/servers/198.51.100.21:80", f"{WEB}/servers/198.51.100.22:80"
DNS = "services/udp:192.0.2.10:53"
ENTRIES = {
    WEB: Entry('{"scheduler": "wrr"}', 3),
    ONE: Entry('{"weight": 2}', 4),
    TWO: Entry("{}", 5),
    DNS: Entry("{}", 6),
    f"{DNS}/servers/198.51.100.21:80": Entry("{}", 7),
    "nodes/gw1": Entry('{"x": 1}', 9),
}
CURRENT = resolve(ENTRIES, {}, 7)


def request(*, current: Any = CURRENT, entries: Mapping[str, Entry] = ENTRIES, **fields: Any) -> Transaction:
    return plan_request(entries, ChangeRequest(**fields), current)


def apply(document: Mapping[str, Any], **options: Any) -> Transaction:
    return plan_apply(ENTRIES, document, CURRENT, **{"prune": False, **options})


def test_defaults_written_out_are_no_difference() -> None:
    new = {**ENTRIES, TWO: Entry('{"weight": 1, "forward": "masquerade"}', 8), ONE: Entry('{ "weight":2 }', 8)}
    assert diff_entries(ENTRIES, new) == ()


def test_differences_are_sorted_and_tell_old_and_new() -> None:
    new = {WEB: ENTRIES[WEB], ONE: Entry('{"weight": 3}', 8), TWO: ENTRIES[TWO], "checks/a": Entry("{", 8)}
    changes = diff_entries(ENTRIES, new)
    assert [(change.key, change.action) for change in changes] == [
        ("checks/a", "create"),
        (ONE, "update"),
        (DNS, "delete"),
        (f"{DNS}/servers/198.51.100.21:80", "delete"),
    ]
    assert (changes[1].old, changes[1].new) == ({"weight": 2}, {"weight": 3})


def test_deleting_a_service_deletes_its_servers_under_guard() -> None:
    transaction = request(delete=[WEB])
    assert transaction.deletes == (WEB, ONE, TWO)
    assert transaction.expect == (Expect(WEB, 3), Expect(ONE, 4), Expect(TWO, 5))
    assert [change.action for change in transaction.changes] == ["delete"] * 3


def test_a_put_that_means_the_same_is_nothing() -> None:
    assert request(put={TWO: {"weight": 1}}).changes == ()
    assert request(put={TWO: {"weight": 1}}).puts == {}


def test_new_keys_expect_to_be_new() -> None:
    transaction = request(put={"checks/web": {"type": "http"}})
    assert transaction.expect == (Expect("checks/web", 0),)
    assert json.loads(transaction.puts["checks/web"]) == {"type": "http"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"put": {ONE: {"weight": 3000000000}}}, "3000000000 is out of range"),
        ({"put": {ONE: {"weigth": 1}}}, 'did you mean "weight"?'),
        ({"put": {WEB: {"check": "nope"}}}, "there is no check 'nope'"),
        ({"put": {"services/tcp:192.0.2.99:80/servers/198.51.100.21:80": {}}}, "has no service"),
        ({"put": {"nodes/gw1": {}}}, "no configuration"),
        ({"put": {"servces/x": {}}}, 'did you mean "services"?'),
        ({"put": {WEB: {}}, "delete": [WEB]}, "to be put and to be deleted"),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        request(**fields)
    assert message in str(caught.value)
    assert "in force" not in str(caught.value)


def test_deleting_a_check_in_use_is_refused() -> None:
    entries = {**ENTRIES, "checks/web": Entry("{}", 8), WEB: Entry('{"check": "web"}', 8)}
    with pytest.raises(ConfigError, match="check 'web' was deleted"):
        request(entries=entries, current=resolve(entries, {}, 8), delete=["checks/web"])


def test_errors_that_are_there_already_do_not_block_other_changes() -> None:
    entries = {**ENTRIES, "checks/bad": Entry("{", 8)}
    current = resolve(entries, {}, 8)
    assert request(entries=entries, current=current, put={ONE: {"weight": 9}}).changes
    assert request(entries=entries, current=current, put={"checks/bad": {}}).changes
    with pytest.raises(ConfigError):
        request(entries=entries, current=current, put={"checks/bad": {"x": 1}})


def test_unknown_keys_and_newer_revisions() -> None:
    with pytest.raises(KeyError, match=r"services/tcp:192\.0\.2\.77:80"):
        request(delete=["services/tcp:192.0.2.77:80"])
    with pytest.raises(StoreConflict, match="changed at revision 4"):
        request(put={ONE: {"weight": 9}}, expect_revision=3)
    assert request(put={ONE: {"weight": 9}}, expect_revision=4).changes


def test_applying_what_is_there_changes_nothing() -> None:
    document = entries_to_document(documents(ENTRIES))
    for prune in (False, True):
        assert apply(document, prune=prune).changes == ()


def test_apply_with_and_without_prune() -> None:
    document = {"services": {"tcp:192.0.2.10:80": {"servers": {"198.51.100.21:80": {"weight": 7}}}}}
    kept = apply(document)
    assert [(change.key, change.action) for change in kept.changes] == [(WEB, "update"), (ONE, "update")]
    pruned = apply(document, prune=True)
    assert set(pruned.deletes) == {TWO, DNS, f"{DNS}/servers/198.51.100.21:80"}


def test_warnings_come_back() -> None:
    (warning,) = request(put={"checks/slow": {"interval": 1, "timeout": 3}}).warnings
    assert warning.where == "checks/slow"


def test_patching_a_server() -> None:
    assert patch_server(ENTRIES, "tcp:192.0.2.10:80", "198.51.100.21:80", {"drain": True}) == {
        ONE: {"weight": 2, "drain": True}
    }
    everywhere = patch_server(ENTRIES, "*", "198.51.100.21:80", {"weight": None, "drain": True})
    assert everywhere == {ONE: {"drain": True}, f"{DNS}/servers/198.51.100.21:80": {"drain": True}}
    for service, server in (("tcp:192.0.2.10:80", "198.51.100.99:80"), ("tcp:192.0.2.99:80", "x"), ("*", "x")):
        with pytest.raises(KeyError):
            patch_server(ENTRIES, service, server, {})
    with pytest.raises(ConfigError, match="malformed JSON"):
        patch_server({ONE: Entry("{", 1)}, "tcp:192.0.2.10:80", "198.51.100.21:80", {})
