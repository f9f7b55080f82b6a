"""Which gateways answer: times of questions and answers."""

from __future__ import annotations

from ipaddress import ip_address

from lbnode.election.gateway import MIN_PERIOD, Gateways

FIRST, SECOND = ip_address("192.0.2.254"), ip_address("fe80::fe")
MAC = bytes.fromhex("020000000009")
T0 = 10**12
PERIOD = MIN_PERIOD


def gateways() -> Gateways:
    made = Gateways()
    made.configure([FIRST, SECOND], 10_000_000, T0)
    return made


def test_each_is_asked_in_each_period_but_not_more_often() -> None:
    asked = gateways()
    assert asked.questions(T0) == [(FIRST, b""), (SECOND, b"")]
    assert asked.questions(T0 + PERIOD - 1) == []
    assert asked.ask_at == T0 + PERIOD
    assert asked.questions(T0 + PERIOD) == [(FIRST, b""), (SECOND, b"")]


def test_who_answered_is_asked_by_unicast_until_an_answer_is_missing() -> None:
    asked = gateways()
    asked.questions(T0)
    asked.heard(FIRST, MAC, T0 + 1)
    assert asked.questions(T0 + PERIOD) == [(FIRST, MAC), (SECOND, b"")]
    assert asked.questions(T0 + 2 * PERIOD) == [(FIRST, b""), (SECOND, b"")]


def test_one_that_answers_is_enough_and_a_new_one_gets_its_time() -> None:
    asked = gateways()
    late = T0 + asked.patience + 1
    assert not asked.asked_long_enough(late - 1) and asked.asked_long_enough(late)
    assert asked.answers(late, PERIOD) is False
    asked.heard(SECOND, b"", late)
    assert asked.answers(late + PERIOD, PERIOD) is True
    assert asked.answers(late + PERIOD + 1, PERIOD) is False


def test_none_configured_says_nothing() -> None:
    asked = Gateways()
    asked.heard(FIRST, MAC, T0)
    assert asked.answers(T0, 1) is None and asked.questions(T0) == []
