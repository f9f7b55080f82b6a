"""Heartbeats of the second path: bytes, whom to believe, who hears whom."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.election.heartbeat import Beat, Conversation, decode, encode
from lbnode.election.packet import Reason, Rejected

KEY = bytes(range(32))
BEAT = Beat("front", "gw1", ip_address("192.0.2.1"), True, False, False, 250, 7, 11, 1, (0, 0), b"message")
I = 100_000_000  # noqa: E741 - an interval in ns, the RFC's symbol
PATIENCE = 3 * I

beats = st.builds(
    Beat,
    group=st.text(max_size=63).filter(lambda text: len(text.encode()) < 256),
    node=st.text(max_size=63).filter(lambda text: len(text.encode()) < 256),
    source=st.ip_addresses(),
    active=st.booleans(),
    connected=st.booleans(),
    gateway=st.booleans(),
    priority=st.integers(0, 255),
    epoch=st.integers(0, 2**64 - 1),
    incarnation=st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 2**64 - 1),
    echo=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    message=st.binary(max_size=1300),
    successor=st.text(max_size=63).filter(lambda text: len(text.encode()) < 256),
)


@given(beats)
def test_every_beat_is_read_back(beat: Beat) -> None:
    assert decode(encode(beat, 3, KEY), {3: KEY}) == beat


def refused(data: bytes, keys: dict[int, bytes] | None = None) -> Reason:
    with pytest.raises(Rejected) as caught:
        decode(data, {1: KEY} if keys is None else keys)
    return caught.value.reason


def test_each_check_refuses_with_its_reason() -> None:
    good = encode(BEAT, 1, KEY)
    assert refused(good[:60]) is Reason.LENGTH
    assert refused(b"LB" + good[2:]) is Reason.VERSION
    assert refused(good, {2: KEY}) is Reason.KEY
    assert refused(good, {1: bytes(32)}) is Reason.SIGNATURE
    assert refused(good + b"\0") is Reason.SIGNATURE


def test_any_bytes_are_refused_and_nothing_else() -> None:
    rng = random.Random(1)
    good = encode(BEAT, 1, KEY)
    for _ in range(50_000):
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        refused(bytes(data[: rng.randrange(len(data) + 1)]) if rng.random() < 0.3 else bytes(data))


class Side:
    """One end of a conversation."""

    def __init__(self, name: str, incarnation: int) -> None:
        self.name, self.talk = name, Conversation(incarnation)

    def beat(self, now: int, *, active: bool = False) -> Beat:
        incarnation, sequence, echo = self.talk.next(now)
        return replace(BEAT, node=self.name, active=active, incarnation=incarnation, sequence=sequence, echo=echo)

    def take(self, beat: Beat, now: int) -> bool:
        try:
            self.talk.receive(beat, now, PATIENCE)
        except Rejected:
            return False
        return True


def talking() -> tuple[Side, Side, int]:
    """Two ends that believe each other, and the time."""
    a, b = Side("gw1", 11), Side("gw2", 22)
    for step in range(3):
        b.take(a.beat(step * I), step * I)
        a.take(b.beat(step * I), step * I)
    return a, b, 2 * I


def test_a_new_peer_is_believed_when_it_has_answered() -> None:
    a, b = Side("gw1", 11), Side("gw2", 22)
    assert not b.take(a.beat(0), 0)  # who knows when that was recorded
    assert a.take(b.beat(1), 1)  # it echoes what a sent just now
    assert b.take(a.beat(2), 2)
    assert a.talk.hears(2, PATIENCE) and b.talk.is_heard(2, PATIENCE)


def test_a_copy_and_an_older_beat_are_refused() -> None:
    a, b, now = talking()
    first, second = a.beat(now), a.beat(now)
    assert b.take(second, now) and not b.take(second, now) and not b.take(first, now)


def test_a_recording_of_an_earlier_life_does_not_disturb_the_present_one() -> None:
    a, b, now = talking()
    recorded = a.beat(now)
    reborn = Side("gw1", 12)
    b.take(a.beat(now), now)
    later = now + PATIENCE + 1
    for step in range(3):
        b.take(reborn.beat(later + step), later + step)
        reborn.take(b.beat(later + step), later + step)
    assert b.talk.heard is not None and b.talk.heard.incarnation == 12
    for _ in range(100):  # b's own sequence went on, too: what the recording echoes is long forgotten
        b.talk.next(later)
    assert not b.take(recorded, later + 3)
    assert b.talk.heard.incarnation == 12 and b.talk.hears(later + 3, PATIENCE)


def test_who_is_heard_and_who_is_deaf_when_one_direction_is_cut() -> None:
    a, b, now = talking()
    for _ in range(8):  # a -> b is lost
        now += I
        a.beat(now)
        assert a.take(b.beat(now), now)
    assert a.talk.hears(now, PATIENCE) and not a.talk.is_heard(now, PATIENCE) and a.talk.is_deaf(now, PATIENCE)
    assert not b.talk.hears(now, PATIENCE) and not b.talk.is_deaf(now, PATIENCE)


def test_after_a_silence_of_both_nobody_is_called_deaf_at_once() -> None:
    a, b, now = talking()
    now += 50 * I
    assert a.take(b.beat(now), now) and not a.talk.is_deaf(now, PATIENCE)
    assert b.take(a.beat(now), now)
    assert a.take(b.beat(now + 1), now + 1) and a.talk.is_heard(now + 1, PATIENCE)
