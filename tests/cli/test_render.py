"""Text for people: exact where people align by eye or scripts cut columns."""

from __future__ import annotations

import pytest

from lbnode.cli.lbctl import render

FIGURES = ("connections", "bytes_in", "bytes_out")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (192, "3m12s"), (18480, "5h08m"), (1047600, "12d3h"), (-5, "0s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (7.5, "7.5"), (999, "999"), (12300, "12.3k"), (4100000, "4.1M"), (2e9, "2G")]
)
def test_quantity(value: float, text: str) -> None:
    assert render.quantity(value) == text


def test_table_aligns_and_trims() -> None:
    assert render.table(("A", "LONG"), [("1", "x"), ("22", "")]) == "A   LONG\n1   x\n22\n"


def test_weight_shows_what_differs() -> None:
    assert render.weight({"configured_weight": 3, "effective_weight": 3}) == "3"
    assert render.weight({"configured_weight": 3, "effective_weight": 0}) == "3→0"
    assert render.weight({"configured_weight": 3, "effective_weight": None}) == "3→-"


def test_whom_services_refuse_and_did_refuse_stands_below_them() -> None:
    def service(name: str, admission: dict[str, object] | None, access: str = "") -> dict[str, object]:
        counters, rates = dict.fromkeys(("active", "inactive"), 0), dict.fromkeys(FIGURES, 0.0)
        facts = {"scheduler": "rr", "scheduler_flags": [], "state": "ok", "status": "programmed at revision 7"}
        facts |= {"admission": admission, "access": access}
        return {"id": name, "servers": [], "counters": counters, "rates": rates, **facts}

    def counted(refused: dict[str, int], sent: int = 0, accepted: int = 0, clamped: int = 0) -> dict[str, object]:
        cookies = {"cookies_sent": sent, "cookies_accepted": accepted, "cookies_refused": 0}
        return {"refused": refused, **cookies, "mss_clamped": clamped}

    quiet = [service("udp:a:53", counted({"denied": 0})), service("udp:b:53", None)]
    text = render.services(quiet)
    assert text.count("\n") == 3 and "REFUSED" not in text
    busy = [service("tcp:a:80", counted({"denied": 31, "rate": 0, "no-server": 2}, 40, 38)), *quiet]
    busy += [service("tcp:b:80", counted({}, clamped=7)), service("tcp:c:80", None, "deny 192.0.2.0/24")]
    assert render.services(busy).split("\n\n")[1] == (
        "SERVICE   REFUSED                 SYN COOKIES           MSS CLAMPED  ACCESS\n"
        "tcp:a:80  denied 31, no-server 2  sent 40, accepted 38\n"
        "tcp:b:80                                                7\n"
        "tcp:c:80                                                             deny 192.0.2.0/24\n"
    )


def test_changes_name_each_field() -> None:
    text = render.changes(
        [
            {"key": "services/a", "action": "create", "old": None, "new": {"scheduler": "rr"}},
            {"key": "services/b", "action": "update", "old": {"weight": 1, "x": 1}, "new": {"weight": 2, "x": 1}},
            {"key": "services/c", "action": "delete", "old": {"weight": 1}, "new": None},
        ]
    )
    assert text == (
        "+ services/a\n    scheduler: 'rr'\n~ services/b\n    weight: 1 → 2\n- services/c\n    weight: 1 → (removed)\n"
    )


@pytest.mark.parametrize(
    ("remaining_s", "text"), [(0.1844, "184 ms"), (None, "dark"), (0.0, "dark for 0s"), (-75.0, "dark for 1m15s")]
)
def test_a_lease_says_how_long_or_since_when(remaining_s: float | None, text: str) -> None:
    assert render.lease(remaining_s) == text


def test_moves_name_the_best_backup_that_is_reachable() -> None:
    def node(name: str, state: str, priority: int, *, reachable: bool = True) -> dict[str, object]:
        return {
            "name": name,
            "reachable": reachable,
            "roles": [{"group": "front", "state": state, "priority": priority, "backups": []}],
        }

    nodes = [node("gw1", "active", 250), node("gw2", "backup", 150), node("gw3", "backup", 100)]
    nodes.append(node("gw4", "backup", 200, reachable=False))
    assert render.moves({"nodes": nodes}, "gw1", ["front"]) == "front: gw1 -> gw2\n"
    assert render.moves({"nodes": nodes}, "gw1", ["front"], ["gw2"]) == "front: gw1 -> gw3\n"
    assert render.heir({"nodes": nodes}, "gw1", "front", ["gw2"]) == "gw3", "gw2 is in maintenance"
    assert render.heir({"nodes": nodes}, "gw1", "front", ["gw2", "gw3"]) == ""
    assert render.moves({"nodes": nodes[:1]}, "gw1", ["front"]) == "front: stays at gw1, no other node is backup\n"
    heard = {**nodes[0], "roles": [{"group": "front", "state": "active", "priority": 250, "backups": ["gw3", "gw2"]}]}
    assert render.moves({"nodes": [heard]}, "gw1", ["front"]) == "front: gw1 -> gw3\n", "without a shared store"


def test_the_timeline_of_a_group_shows_its_nodes_and_its_events() -> None:
    role = {"group": "front", "state": "active", "priority": 150, "since": 40.0, "reason": "released by gw1"}
    status = {"time": 100.0, "nodes": [{"name": "gw2", "roles": [role]}]}
    told = [("2026-11-23 21:34:46", {"node": "gw2", "message": "became active", "why": "released by gw1"})]
    assert render.election("front", status, told) == (
        "front\n"
        "  NODE  ROLE    PRIORITY  SINCE      WHY\n"
        "  gw2   active  150       1m00s ago  released by gw1\n"
        "  2026-11-23 21:34:46  gw2  became active: released by gw1\n\n"
    )


def test_an_explanation_begins_with_the_decision() -> None:
    text = render.explanation(
        {
            "question": "tcp 203.0.113.5:40000 -> 192.0.2.10:80",
            "packet": "TCP SYN",
            "interface": "eth0",
            "hook": "tcx",
            "verdict": "to-server",
            "reason": "new-connection",
            "text": "a new connection: the scheduler rr chooses 198.51.100.11:80",
            "service": "tcp:192.0.2.10:80",
            "scheduler": "rr",
            "connection": "",
            "server": "198.51.100.11:80",
            "forward": "direct",
            "next_hop": {"interface": "eth1", "address": "198.51.100.11", "mac": ""},
            "before": ["IPv4 203.0.113.5 -> 192.0.2.10"],
            "after": [],
            "answer": [],
            "candidates": [
                {"server": "198.51.100.11:80", "weight": 1, "active": 0, "inactive": 2, "why_not": "weight 0"},
            ],
            "candidates_left_off": 3,
            "counters": {"no-neighbour": 1},
            "notes": ["mark left out"],
        }
    )
    assert text == (
        "tcp 203.0.113.5:40000 -> 192.0.2.10:80\n"
        "a new connection: the scheduler rr chooses 198.51.100.11:80\n\n"
        "  packet      TCP SYN, in by eth0 (tcx)\n"
        "  verdict     to-server (new-connection)\n"
        "  service     tcp:192.0.2.10:80, scheduler rr\n"
        "  server      198.51.100.11:80, direct\n"
        "  next hop    198.51.100.11 (not resolved) by eth1\n"
        "  counters    no-neighbour +1\n\n"
        "  as it comes in\n    IPv4 203.0.113.5 -> 192.0.2.10\n\n"
        "  SERVER            WEIGHT  ACTIVE  INACTIVE  MAY BE CHOSEN\n"
        "  198.51.100.11:80  1       0       2         weight 0\n"
        "  and 3 more\n\n"
        "note: mark left out\n"
    )


def test_connections_show_a_local_end_where_there_is_one() -> None:
    plain = {
        "protocol": "tcp",
        "client": ("203.0.113.5", 40000),
        "virtual": ("192.0.2.10", 80),
        "server": ("198.51.100.11", 8080),
        "state": "ESTABLISHED",
        "expires_s": 899.5,
        "local": None,
    }
    header, first, second = render.connections([plain, plain | {"local": ("198.51.100.4", 1500)}])
    assert header.index("LOCAL") == second.index("198.51.100.4:1500")
    assert first.endswith(" 198.51.100.11:8080\n") and first.strip() == second[: len(first)].strip()
