"""The comparison of listings under live traffic: what it lets pass, and what not."""

from __future__ import annotations

import pytest

from tests.reference.shapes import differences

CONNECTIONS = ["IPVS connection entries", "pro expire state       source             virtual            destination"]
CLOSED = "TCP 01:46  TIME_WAIT   172.16.0.100:58860 172.16.0.50:80     10.1.0.11:80"


@pytest.mark.parametrize(
    ("want", "have"),
    [
        ("  -> 10.1.0.11:80                 Masq    1      1          4         ",
         "  -> 10.1.0.11:80                 Masq    1      12         40        "),
        ("TCP  172.16.0.50:80                     12     3375     2007  130180K   104729",
         "TCP  172.16.0.50:80                      1        2       20      300      400"),
        ("TCP  172.16.0.50:80                     12     3375     2007 130180291   104729",
         "TCP  172.16.0.50:80                      1        2       20      300      400"),
    ],
)  # fmt: skip
def test_numbers_may_differ(want: str, have: str) -> None:
    assert list(differences([have], [want])) == []


@pytest.mark.parametrize(
    ("want", "have"),
    [
        ("  -> 10.1.0.11:80                 Masq    1      1          4         ",
         "  -> 10.1.0.11:80                 Route   1      1          4         "),
        ("  -> 10.1.0.11:80                 Masq    1      1          4         ",
         "  -> 10.1.0.11:80                 Masq    1      1          4"),
        ("  -> 10.1.0.11:80                 Masq    1      1          4         ",
         "  -> 10.1.0.11:80                 Masq    1      1         4         "),
        ("TCP  172.16.0.50:80                     12     3375     2007  130180K   104729",
         "TCP  172.16.0.50:80                     12     3375    2007  130180K   104729"),
        ("TCP  172.16.0.50:80 rr", "TCP  172.16.0.50:80 wrr"),
    ],
)  # fmt: skip
def test_columns_and_words_may_not(want: str, have: str) -> None:
    assert list(differences([have], [want]))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("TCP 00:03  TIME_WAIT   172.16.0.100:1 172.16.0.50:80     10.1.0.12:80", "not in columns"),
        ("TCP 00:03  FIN_WAIT    172.16.0.100:1     172.16.0.50:80     10.1.0.12:80", "no such connection"),
        ("TCP 00:03  TIME_WAIT   172.16.0.100:1     172.16.0.50:81     10.1.0.12:80", "missing"),
    ],
)
def test_connections_are_of_the_same_kinds(line: str, found: str) -> None:
    other = "TCP 00:03  TIME_WAIT   172.16.0.100:1     172.16.0.50:80     10.1.0.12:80"
    assert list(differences([*CONNECTIONS, other], [*CONNECTIONS, CLOSED])) == []
    assert any(found in text for text in differences([*CONNECTIONS, line], [*CONNECTIONS, CLOSED]))
