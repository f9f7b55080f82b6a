"""What ip_vs says to a change, and what of a document changes."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.cli.ipvsadm import listing
from lbnode.cli.ipvsadm.grammar import parse
from lbnode.cli.ipvsadm.table import Table, rows, running
from lbnode.cli.ipvsadm.values import Refused
from tests.reference.host import ReferenceHost

WEB, SERVER = "tcp:192.0.2.1:80", "198.51.100.1:80"
DOCUMENT: dict[str, Any] = {
    "services": {
        WEB: {
            "scheduler": "rr",
            "check": "http",
            "vip_group": "rack",
            "servers": {SERVER: {"weight": 3, "forward": "masquerade", "drain": True}},
        }
    },
    "settings": {"sysctl": {"net.core.somaxconn": "8192"}},
}


def after(*lines: str, document: dict[str, Any] = DOCUMENT) -> Table:
    table = Table(document, ReferenceHost())
    for line in lines:
        table.execute(parse(shlex.split(line), ReferenceHost()))
    return table


def test_an_edit_replaces_what_ipvsadm_knows_and_keeps_the_rest() -> None:
    put, delete = after("-E -t 192.0.2.1:80 -s wrr", "-e -t 192.0.2.1:80 -r 198.51.100.1 -g").changes()
    # The servers of an edited service stay; their keys are not touched unless they change.
    assert put == {
        f"services/{WEB}": {"scheduler": "wrr", "check": "http", "vip_group": "rack"},
        f"services/{WEB}/servers/{SERVER}": {"weight": 1, "forward": "direct", "drain": True},
    }
    assert delete == []


def test_deleting_a_service_takes_its_servers_along() -> None:
    assert after("-D -t 192.0.2.1:80").changes() == ({}, [f"services/{WEB}"])
    assert after("-C").changes() == ({}, [f"services/{WEB}"])
    assert after("-d -t 192.0.2.1:80 -r 198.51.100.1").changes() == ({}, [f"services/{WEB}/servers/{SERVER}"])


def test_replacing_a_table_puts_only_what_differs() -> None:
    table = after("-C", "-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 198.51.100.2 -m")
    assert table.changes() == (
        {
            f"services/{WEB}": {"scheduler": "rr"},
            f"services/{WEB}/servers/198.51.100.2:80": {"weight": 1, "forward": "masquerade"},
        },
        [f"services/{WEB}/servers/{SERVER}"],
    )


def test_settings_keep_their_other_fields() -> None:
    put, _ = after("--set 1 0 3", "--start-daemon backup --mcast-interface dummy0").changes()
    assert put["settings"]["sysctl"] == {"net.core.somaxconn": "8192"}
    assert put["settings"]["timeouts"] == {"tcp": 1, "tcp_fin": 120, "udp": 3}
    assert put["settings"]["sync_daemons"]["backup"]["interface"] == "dummy0"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-A -t 192.0.2.1:80", "Service already exists"),
        ("-E -t 192.0.2.9:80", "No such service"),
        ("-D -u 192.0.2.1:80", "No such service"),
        ("-A -t 192.0.2.9:80 -s nosuch", "Scheduler or persistence engine not found"),
        ("-A -t 192.0.2.9:80 --pe nosuch", "Scheduler or persistence engine not found"),
        ("-a -t 192.0.2.9:80 -r 198.51.100.9", "Service not defined"),
        ("-a -t 192.0.2.1:80 -r 198.51.100.1", "Destination already exists"),
        ("-e -t 192.0.2.1:80 -r 198.51.100.9", "No such destination"),
        ("-a -t 192.0.2.1:80 -r 198.51.100.9 -x 5 -y 6", "Numerical result out of range"),
        ("-a -t 192.0.2.1:80 -r fe80::1 -i", ("Invalid operation.  Possibly wrong module version, "
         "address not unicast, ...")),
        ("--stop-daemon master", "No daemon is running"),
        ("--start-daemon master --mcast-interface nosuch0", "No such device"),
    ],
)  # fmt: skip
def test_refusals(line: str, message: str) -> None:
    table = Table(DOCUMENT, ReferenceHost())
    with pytest.raises(Refused) as caught:
        table.execute(parse(shlex.split(line), ReferenceHost()))
    assert str(caught.value) == message
    assert table.changes() == ({}, [])


def test_daemons_that_follow_the_roles_go_on_doing_so() -> None:
    document = {"settings": {"sync_daemons": {"by_role": True, "master": {"interface": "lo"}}}}
    assert list(running(after(document=document).daemons, ReferenceHost())) == ["master"]
    table = after("--start-daemon backup --mcast-interface lo", "--stop-daemon master", document=document)
    assert table.settings["sync_daemons"]["by_role"] is True and list(table.daemons) == ["backup"]


def test_a_daemon_runs_once() -> None:
    with pytest.raises(Refused, match="Daemon has already run"):
        after("--start-daemon master --mcast-interface lo", "--start-daemon master --mcast-interface lo")


LINES = (
    "-A -t 192.0.2.1:80 -s rr", "-E -t 192.0.2.1:80 -s sh -b sh-port -p 60", "-D -t 192.0.2.1:80", "-C",
    "-A -f 7 -6 -s mh", "-a -f 7 -6 -r [2001:db8::1]:80 -i --tun-type gre",
    "-a -t 192.0.2.1:80 -r 198.51.100.1 -m -x 5",
    "-e -t 192.0.2.1:80 -r 198.51.100.1 -i --tun-type gue --tun-port 6080 --tun-csum",
    "-d -t 192.0.2.1:80 -r 198.51.100.1", "--set 5 6 7", "--stop-daemon backup",
    "--start-daemon backup --mcast-interface dummy0",
)  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_what_is_saved_in_full_makes_the_same_table_again(lines: list[str]) -> None:
    table = Table({}, ReferenceHost())
    for line in lines:
        try:
            table.execute(parse(shlex.split(line), ReferenceHost()))
        except Refused:
            continue
    saved = [
        *listing.saved(list(rows(table)), listing.numeric, full=True),
        *listing.saved_settings(table.timeouts, running(table.daemons, ReferenceHost())),
    ]
    again = after(*saved, document={})
    assert _listed(again) == _listed(table)
    assert again.timeouts == table.timeouts
    assert running(again.daemons, ReferenceHost()) == running(table.daemons, ReferenceHost())


def _listed(table: Table) -> list[str]:
    return sorted(str({**row, "servers": sorted(row["servers"], key=str)}) for row in rows(table))
