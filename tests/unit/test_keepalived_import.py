"""keepalived.conf -> document: each directive is translated or listed."""

from __future__ import annotations

import re

import pytest
import yaml

from lbnode.config.keepalived.importer import Source, import_keepalived
from lbnode.model import Severity
from tests.unit.keepalived_conf import DEFAULTS, GATEWAY, load, no_files, told


def test_a_gateway() -> None:
    imported = load(GATEWAY)
    assert [str(problem) for problem in imported.problems if problem.severity is Severity.ERROR] == []
    assert imported.document == yaml.safe_load("""
services:
  udp:192.0.2.20:53: &dns
    scheduler: wrr
    one_packet: true
    check: DNS
    when_down: remove
    servers:
      198.51.100.22:5353: {}
  udp:192.0.2.21:53: *dns
  fwmark:7: *dns
  tcp:192.0.2.10:80:
    scheduler: sh
    flags: [sh-fallback, sh-port]
    persistent: 120
    persistent_netmask: 24
    check: {type: http, port: 8080, interval: 5, timeout: 3, rise: 1, fall: 3, path: /health,
            expected_statuses: [200, 204-206], host: www.example.net, body_match: "(?im)^ok$"}
    when_down: weight-zero
    vip_group: BOTH
    servers:
      198.51.100.21:80: {weight: 3, upper_threshold: 100, lower_threshold: 50, forward: tunnel,
                         tunnel_type: gue, tunnel_port: 6080, tunnel_checksum: csum}
      198.51.100.23:80: {forward: direct}
vip-groups:
  BOTH:
    vrid: 51
    interface: eth0
    addresses: [192.0.2.10/24 dev eth0, 192.0.2.11/24 dev eth2, 192.0.2.12/24 dev eth0, 198.51.100.1/24 dev eth1]
    priorities: {gw1: 150}
    advert_interval: 0.5
    preempt: false
checks:
  DNS: {type: tcp, port: 53, interval: 60, timeout: 5, rise: 1, fall: 2}
settings:
  timeouts: {tcp: 600, tcp_fin: 60, udp: 200}
  foreign_services: remove
  sync_daemons:
    master: &daemon {interface: eth1, syncid: 7, maxlen: 1400, port: 8849, ttl: 2, group: 224.0.0.82}
    backup: *daemon
    by_role: true
""")


def test_each_line_counts() -> None:
    """Without any one line something else comes out: nothing is taken for translated that was dropped."""
    lines = GATEWAY.splitlines()
    whole = load(GATEWAY)
    for number, line in enumerate(lines):
        if line.strip().endswith(("{", "}")) or line in DEFAULTS:
            continue
        less = load("\n".join((*lines[:number], "", *lines[number + 1 :])))
        assert (less.document, less.problems) != (whole.document, whole.problems), f"line {number + 1}: {line}"


def test_two_gateways_become_one_cluster() -> None:
    other = GATEWAY.replace("priority 150", "priority 100").replace("weight 3", "weight 4")
    other = other.replace("TCP_CHECK", "XCP_CHECK").replace("198.51.100.22 5353", "198.51.100.25 5353")
    imported = import_keepalived([Source("gw1", "a", GATEWAY), Source("gw2", "b", other)], no_files)
    assert imported.document["vip-groups"]["BOTH"]["priorities"] == {"gw1": 150, "gw2": 100}
    assert imported.document["services"]["tcp:192.0.2.10:80"]["servers"]["198.51.100.21:80"]["weight"] == 3
    problems = [str(problem) for problem in imported.problems]
    server = "services/tcp:192.0.2.10:80/servers/198.51.100.21:80"
    assert any(re.fullmatch(rf"b:(\d+):5: {server}: differs from a:\1:5 in weight .*", problem) for problem in problems)
    assert any("/servers/198.51.100.25:5353: only on gw2 so far" in problem for problem in problems)


def test_conditional_lines_make_one_file_two_gateways() -> None:
    text = GATEWAY.replace("    priority 150\n", "@gw1 priority 150\n@gw2 priority 100\n")
    imported = import_keepalived([Source("gw1", "k", text), Source("gw2", "k", text)], no_files)
    assert imported.document["vip-groups"]["BOTH"]["priorities"] == {"gw1": 150, "gw2": 100}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "global_defs {\nnotification_email {\na@b\n}\n}",
            "error: k.conf:2:1: notification_email: no equal yet",
        ),
        ("global_defs {\nrouter_id x\n}", "warning: k.conf:2:1: router_id x: not needed (a node is known by"),
        ("global_defs {\nrooter_id x\n}", "has no 'rooter_id' in global_defs (did you mean \"router_id\"?)"),
        ("vrrp_script x {\nscript y\n}", "error: k.conf:1:1: vrrp_script x: no equal yet"),
        (
            "static_routes {\n192.0.2.0/24 gw 198.51.100.1 no_track\n}",
            "error: k.conf:2:1: 192.0.2.0/24 gw 198.51.100.1 no_track: no equal yet (have the machine do: ip route add",
        ),
        ("static_ipaddress {\n2001:db8::1/64 dev eth0 track_group G\n}", "ip -6 address add 2001:db8::1/64 dev eth0)"),
        ("static_rules {\nfrom 192.0.2.0/24 table 1\n}", "ip rule add from 192.0.2.0/24 table 1)"),
        ("virtual_server_group g {\n192.0.2.1 80\n}", "no virtual_server uses this group"),
        ("virtual_server group g {\n}", "there is no virtual_server_group g"),
        ("virtual_server 192.0.2.1 80 {\n}\nvirtual_server 192.0.2.1 80 {\n}", "stands twice, first at k.conf:1:1"),
        ("virtual_server 192.0.2.1-9 80 {\n}", "a range of addresses stands in a virtual_server_group only"),
        ("virtual_server_group g {\n192.0.2.0/8 1\n}", "not a range of addresses"),
        ("virtual_server_group g {\n10.0.0.0/8 1\n}", "more than 65536 addresses"),
        ("virtual_server 192.0.2.1 80 {\nreal_server 192.0.2.2 {\n}\n}", "no protocol given: keepalived takes UDP"),
        ("vrrp_instance V {\ninterface eth0\n}", "error: k.conf:1:1: vrrp_instance V: virtual_router_id is missing"),
        ("vrrp_instance V {\nvirtual_router_id 256\n}", "virtual_router_id 256: 256 is not within 1 to 255"),
        (
            "vrrp_instance V {\nvirtual_router_id 5 priority 7\n}",
            "'priority 7' is too much in this line (one directive",
        ),
        ("vrrp_sync_group G {\ngroup {\nA\n}\n}", "there is no vrrp_instance A, or it has no equal"),
        ("what ever", "keepalived.conf(5) has no 'what' in the file"),
        ("include other", "include other: cannot be read: no file other"),
        ("}", "this brace closes nothing"),
        (
            "virtual_server 192.0.2.1 25 {\nreal_server 192.0.2.2 25 {\nSMTP_CHECK {\nhost {\n}\nhost {\n}\n}\n}\n}",
            "error: k.conf:6:1: host: a second host (lbnode checks the server's own address)",
        ),
        (
            "virtual_server 192.0.2.1 25 {\nreal_server 192.0.2.2 25 {\nUDP_CHECK {\nmin_reply_length 1\n}\n}\n}",
            "error: k.conf:4:1: min_reply_length 1: no equal yet",
        ),
    ],
)
def test_what_has_no_equal_is_listed(text: str, problem: str) -> None:
    assert any(problem in line for line in told(text)), told(text)


def test_secrets_are_not_shown() -> None:
    text = "vrrp_instance V {\nauthentication {\nauth_type PASS\nauth_pass s3cret\n}\nauth_pass s3cret\n}"
    assert "auth_pass" in str(told(text)) and "s3cret" not in str(told(text))


def test_what_is_at_odds_is_left_out_and_told_at_its_line() -> None:
    """Two groups with one VRID on one link; a service whose group is gone stays."""
    one = "vrrp_instance {} {{\ninterface eth0\nvirtual_router_id 5\nvirtual_ipaddress {{\n192.0.2.{}\n}}\n}}\n"
    text = one.format("A", 1) + one.format("B", 2) + "virtual_server 192.0.2.2 80 {\nprotocol TCP\n}\n"
    imported = load(text)
    assert list(imported.document["vip-groups"]) == ["A"]
    assert imported.document["services"]["tcp:192.0.2.2:80"] == {"scheduler": "wlc"}
    assert any(
        str(problem) == "k.conf:8:1: vip-groups/B: vrid: duplicate VRID 5 on one link, which vip-groups/A (k.conf:1:1) "
        "has already (take it out of one of the two)"
        for problem in imported.problems
    ), told(text)
