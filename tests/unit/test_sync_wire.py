"""Datagrams of the connection synchronisation: what is encoded is decoded, what is touched is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.epochs import Label
from lbnode.errors import PeerError
from lbnode.sync import wire
from lbnode.sync.wire import (
    MAX_DATAGRAM,
    Ack,
    Body,
    BulkEnd,
    Datagram,
    Hello,
    OtherVersion,
    Records,
    ReplayWindow,
    decode,
    encode,
    layout_id,
    room_for_records,
)

KEY = b"a key"
u64 = st.integers(0, 2**64 - 1)
bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(
        Hello, u64, u64, u64, u64, st.integers(0, 2**32 - 1), st.integers(0, 65535), st.binary(min_size=8, max_size=8),
        st.text(max_size=40),
    ),
    st.builds(Ack, u64, st.lists(st.tuples(u64, u64), max_size=32).map(tuple)),
    st.builds(Records, u64, st.text(max_size=63), st.builds(Label, u64, st.booleans()), st.binary(max_size=1300)),
    st.builds(BulkEnd, u64, st.integers(0, 2**32 - 1)),
)  # fmt: skip
datagrams = st.builds(Datagram, u64, u64, bodies)


@given(datagrams)
def test_round_trip(datagram: Datagram) -> None:
    assert decode(encode(datagram, KEY), KEY) == datagram


@given(datagrams, st.data())
def test_any_changed_or_missing_byte_is_refused(datagram: Datagram, data: st.DataObject) -> None:
    wire = encode(datagram, KEY)
    position = data.draw(st.integers(0, len(wire) - 1))
    flipped = bytearray(wire)
    flipped[position] ^= data.draw(st.integers(1, 255))
    for forged in (bytes(flipped), wire[:position], wire + b"\0"):
        with pytest.raises(PeerError):
            decode(forged, KEY)


def test_another_key_is_refused_and_the_message_says_what_to_check() -> None:
    with pytest.raises(PeerError, match=r"authentication failed.*\[sync\] key"):
        decode(encode(Datagram(1, 1, Ack(1)), KEY), b"another key")


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode(data, KEY)


@given(st.text(max_size=63))
def test_a_datagram_full_of_records_is_as_long_as_it_may_be(group: str) -> None:
    records = Records(1, group, Label(2**64 - 1), bytes(room_for_records(group)))
    assert len(encode(Datagram(1, 1, records), KEY)) == MAX_DATAGRAM


def test_another_version_is_told_apart_from_a_forgery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "VERSION", 1)
    former = encode(Datagram(1, 1, Ack(1)), KEY)
    monkeypatch.undo()
    with pytest.raises(OtherVersion, match="speaks version 1 of the synchronisation, this node version 2"):
        decode(former, KEY)
    with pytest.raises(PeerError, match="authentication failed"):
        decode(former, b"another key")


def test_a_group_name_longer_than_the_datagram_is_refused() -> None:
    head = wire._HEADER.pack(wire.MAGIC, wire.VERSION, wire.TYPE_RECORDS, 18, 0, 1, 1)
    body = wire._RECORDS.pack(1, 1, True, 5)
    with pytest.raises(PeerError, match="a group name of 5 bytes"):
        decode(head + body + wire._tag(head + body, KEY), KEY)


def test_layout_ids_differ() -> None:
    assert layout_id("xdp/1") != layout_id("xdp/2")
    assert len(layout_id("")) == 8


@given(st.lists(st.integers(1, 300), max_size=200))
def test_replay_window_accepts_each_counter_at_most_once(counters: list[int]) -> None:
    window, accepted = ReplayWindow(size=64), set[int]()
    for counter in counters:
        newest = max(accepted, default=0)
        expected = counter not in accepted and counter > newest - 64
        assert window.accept(counter) is expected
        if expected:
            accepted.add(counter)
