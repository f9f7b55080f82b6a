"""What the failover bench makes of its probes' records."""

from __future__ import annotations

from typing import Any

from tests.bench.failover.judge import Outcome, judge

MS = 1_000_000
END = 3000 * MS


def saw(client: list[range], a: list[range], b: list[range]) -> dict[str, Any]:
    """One question each millisecond; answered in these ranges of milliseconds."""
    return {
        "sent": [n * MS for n in range(3000)],
        "answers": [[n, "a"] for spell in client for n in spell],
        "direct": {"mac a": [n for spell in a for n in spell], "mac b": [n for spell in b for n in spell]},
    }


def test_the_gap_lies_between_the_last_answer_of_one_and_the_first_of_the_other() -> None:
    outcome = judge(saw([range(1001), range(1300, 3000)], [range(1001)], [range(1300, 3000)]), 1000 * MS, None, END)
    assert outcome == Outcome(gap=0.3, double=0.0, heal_gap=None, lost=False, takeover=0.3)


def test_the_clients_own_arp_entry_may_make_its_gap_longer_than_the_takeover() -> None:
    outcome = judge(saw([range(1001), range(1900, 3000)], [range(1001)], [range(1300, 3000)]), 1000 * MS, None, END)
    assert (outcome.gap, outcome.takeover) == (0.9, 0.3)


def test_a_gap_before_the_fault_is_not_of_it() -> None:
    outcome = judge(saw([range(500), range(900, 3000)], [range(3000)], []), 1000 * MS, None, END)
    assert outcome.gap == 0.0


def test_a_question_that_the_probe_asked_late_is_no_gap() -> None:
    late = saw([range(3000)], [range(3000)], [])
    late["sent"] = [at + (at >= 1500 * MS) * 20 * MS for at in late["sent"]]
    assert judge(late, 1000 * MS, None, END).gap == 0.0


def test_both_serve_while_both_answer() -> None:
    outcome = judge(saw([range(3000)], [range(2000)], [range(1500, 3000)]), 1000 * MS, None, END)
    assert outcome.double == 0.499


def test_lost_answers_do_not_end_a_spell_but_long_breaks_do() -> None:
    a = [range(100, 110), range(115, 200), range(700, 800)]
    outcome = judge(saw([range(3000)], a, [range(150, 750)]), 0, None, END)
    assert outcome.double == 0.049 + 0.049


def test_an_address_that_answers_no_more_is_lost_and_its_gap_lasts_to_the_end() -> None:
    outcome = judge(saw([range(1000), range(1200, 2000)], [], []), 999 * MS, 2000 * MS, END)
    assert outcome.lost and outcome.gap == 0.201 and outcome.heal_gap == 1.001


def test_an_address_that_was_not_asked_any_more_is_not_lost() -> None:
    saying = saw([range(2000)], [range(2000)], [])
    saying["sent"] = saying["sent"][:2001]  # the probe did not run until the end
    assert not judge(saying, 1000 * MS, None, END).lost
