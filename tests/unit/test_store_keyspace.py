"""The keys in memory: changes applied one by one, merged, repeated or listed anew give the same view."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.store.base import Entry, Expect
from lbnode.store.keyspace import Change, Keyspace, check_transaction, conflict

keys = st.sampled_from(["a", "b", "c", "services/x", "services/x/servers/y"])
transactions = st.lists(st.dictionaries(keys, st.one_of(st.none(), st.sampled_from("123")), min_size=1), max_size=12)


def history_of(steps: list[dict[str, str | None]]) -> list[list[Change]]:
    """One list of changes per revision, from revision 2 on."""
    return [[Change(at, key, value) for key, value in step.items()] for at, step in enumerate(steps, start=2)]


def model_of(history: list[list[Change]]) -> dict[str, Entry]:
    """What a store would list after `history`."""
    entries: dict[str, Entry] = {}
    for changes in history:
        for change in changes:
            if change.value is None:
                entries.pop(change.key, None)
            else:
                entries[change.key] = Entry(change.value, change.revision)
    return entries


@settings(max_examples=60, deadline=None)
@given(transactions, st.data())
def test_any_mix_of_lists_and_repeated_or_merged_changes_leads_to_the_same_view(
    steps: list[dict[str, str | None]], data: st.DataObject
) -> None:
    history = history_of(steps)
    keyspace = Keyspace()
    keyspace.replace(1, {})
    done = 0
    while done < len(history):
        if data.draw(st.booleans(), label="list"):
            done = data.draw(st.integers(done, len(history)), label="up to")
            before = dict(keyspace.view().entries)
            assert keyspace.replace(done + 1, model_of(history[:done])) == (before != model_of(history[:done]))
        else:
            repeated = data.draw(st.integers(0, done), label="from")
            upto = data.draw(st.integers(done, len(history)), label="up to")
            merged = [change for changes in history[repeated:upto] for change in changes]
            assert keyspace.apply(merged) == (upto > done)
            done = upto
        assert keyspace.view().revision == keyspace.revision == done + 1
        assert keyspace.view().entries == model_of(history[:done])


def test_a_view_is_frozen_and_made_once() -> None:
    keyspace = Keyspace()
    keyspace.replace(5, {"a": Entry("1", 3)})
    view = keyspace.view()
    assert keyspace.view() is view
    assert not keyspace.apply([Change(5, "a", "repeated")])
    assert keyspace.view() is view
    assert keyspace.apply([Change(6, "a", "2")])
    assert view.entries["a"].value == "1"
    with pytest.raises(TypeError):
        view.entries["a"] = Entry("3", 9)  # type: ignore[index]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, st.integers(1, 5)), st.lists(st.builds(Expect, keys, st.integers(0, 5)), max_size=4))
def test_a_conflict_is_found_if_and_only_if_a_guard_fails(found: dict[str, int], expect: list[Expect]) -> None:
    error = conflict(expect, found)
    wrong = [guard.key for guard in expect if found.get(guard.key, 0) != guard.revision]
    assert (error is not None) == bool(wrong)
    if error is not None:
        assert str(error).startswith(f"{wrong[0]} ")


def test_put_and_delete_of_one_key_is_refused() -> None:
    check_transaction({"a": "1"}, ["b"])
    with pytest.raises(ValueError, match="b is both put and deleted"):
        check_transaction({"a": "1", "b": "1"}, ["c", "b"])
