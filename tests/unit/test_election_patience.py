"""The election process of a daemon that died waits for the next one, but not for ever."""

from __future__ import annotations

from lbnode.election.patience import AWAY, LONGEST, STEP, Patience

DIED = 7_000_000_000
SECOND = 1_000_000_000


def test_without_a_word_it_ends_soon() -> None:
    patience = Patience(DIED)
    assert patience.ends == DIED + AWAY
    assert patience.why(DIED + AWAY) == "no lbnoded for 10 s"


def test_a_daemon_that_comes_and_then_hangs_is_given_up_later() -> None:
    patience = Patience(DIED)
    patience.heard(DIED + 3 * SECOND)
    assert patience.ends == DIED + 3 * SECOND + STEP
    assert patience.why(patience.ends) == "the next lbnoded came, but did not take over within 23 s"


def test_one_that_gets_on_is_waited_for_within_a_limit() -> None:
    patience, now = Patience(DIED), DIED
    while now < patience.ends:
        patience.heard(now)
        now += SECOND
    assert now == patience.ends == DIED + LONGEST
