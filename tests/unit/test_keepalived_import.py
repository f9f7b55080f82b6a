"""keepalived.conf -> document: each directive is translated or listed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from lbnode.config.imported import Imported
from lbnode.config.keepalived.importer import Source, import_keepalived
from lbnode.model import Severity

# Every directive here has an effect: see test_each_line_counts.
GATEWAY = """\
global_defs {
    vrrp_version 3
    lvs_timeouts tcp 600 tcpfin 60 udp 200
    lvs_sync_daemon eth1 inst WEB id 7 maxlen 1400 port 8849 ttl 2 group 224.0.0.82
    lvs_flush
}
vrrp_instance WEB {
    interface eth0
    virtual_router_id 51
    priority 150
    advert_int 0.5
    nopreempt
    virtual_ipaddress {
        192.0.2.10/24
        192.0.2.11/24 dev eth2
    }
    virtual_ipaddress_excluded {
        192.0.2.12/24
    }
}
vrrp_instance INSIDE {
    interface eth1
    virtual_router_id 51
    priority 150
    advert_int 0.5
    nopreempt
    virtual_ipaddress {
        198.51.100.1/24
    }
}
vrrp_sync_group BOTH {
    group {
        WEB
        INSIDE
    }
}
virtual_server_group DNS {
    192.0.2.20-21 53
    fwmark 7
}
virtual_server 192.0.2.10 80 {
    protocol TCP
    lb_algo sh
    sh-port
    flag-1
    lb_kind DR
    persistence_timeout 120
    persistence_granularity 255.255.255.0
    delay_loop 5
    retry 2
    delay_before_retry 5
    inhibit_on_failure
    virtualhost www.example.net
    real_server 198.51.100.21 80 {
        weight 3
        uthreshold 100
        lthreshold 50
        lvs_method TUN type gue port 6080 csum
        HTTP_GET {
            connect_port 8080
            connect_timeout 3
            url {
                path /health
                status_code 200 204-206
                regex "^ok$"
                regex_options caseless multiline
            }
        }
    }
    real_server 198.51.100.23 80 {
        HTTP_GET {
            connect_port 8080
            connect_timeout 3
            url {
                path /health
                status_code 200 204-206
                regex "^ok$"
                regex_options caseless multiline
            }
        }
    }
}
virtual_server group DNS {
    protocol UDP
    lvs_sched wrr
    lvs_method NAT
    ops
    real_server 198.51.100.22 5353 {
        TCP_CHECK {
            connect_port 53
        }
    }
}
"""
DEFAULTS = {"    lvs_method NAT"}  # lines of GATEWAY that say what is the default


def load(text: str, node: str = "gw1") -> Imported:
    return import_keepalived([Source(node, "k.conf", text)], no_files)


def no_files(pattern: str, _file: str) -> list[tuple[str, str]]:
    raise FileNotFoundError(f"no file {pattern}")


def told(text: str) -> list[str]:
    return [f"{problem.severity}: {problem}" for problem in load(text).problems]


def service(body: str, head: str = "192.0.2.10 80") -> Any:
    text = f"virtual_server {head} {{\nprotocol TCP\n{body}\n}}\n"
    return next(iter(load(text).document["services"].values()))


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


def test_addresses_of_a_group() -> None:
    text = """vrrp_instance V {
        interface eth0
        virtual_router_id 5
        virtual_ipaddress {
            192.0.2.1/24 label eth0:1
            192.0.2.1/24
        }
        virtual_ipaddress_excluded {
            2001:db8::1
        }
    }"""
    group = load(text).document["vip-groups"]["V"]
    assert group["addresses"] == ["192.0.2.1/24 dev eth0", "2001:db8::1/128 dev eth0"]
    lines = "\n".join(told(text))
    assert "k.conf:5:13: 192.0.2.1/24 label eth0:1: without label" in lines
    assert "error: k.conf:6:13: 192.0.2.1/24: this address stands twice" in lines
    assert "they do not hear each other" in lines and "version" not in group


def test_use_vmac() -> None:
    text = "vrrp_instance V {\nvirtual_router_id 5\nuse_vmac%s\nvirtual_ipaddress {\n192.0.2.1\n}\n}\n"
    for arguments, virtual_mac in (("", True), (" vrrp.5", True), (" vrrp.5 02:00:00:00:00:05", None)):
        imported = load(text % arguments)
        assert imported.document["vip-groups"]["V"].get("virtual_mac") is virtual_mac
    assert any("use_vmac vrrp.5: without vrrp.5" in line for line in told(text % " vrrp.5"))
    assert any("another MAC address than RFC 9568's" in line for line in told(text % " vrrp.5 02:00:00:00:00:05"))
    assert any("vmac_xmit_base: no equal yet" in line for line in told(text % "\nvmac_xmit_base"))


def test_version_2_is_keepaliveds_default() -> None:
    text = "vrrp_instance V {\nvirtual_router_id 5\nadvert_int 1.4\nvirtual_ipaddress {\n192.0.2.1\n}\n}\n"
    group = load(text).document["vip-groups"]["V"]
    assert (group["version"], group["advert_interval"]) == (2, 1)
    group = load(f"global_defs {{\nvrrp_version 3\n}}\n{text}").document["vip-groups"]["V"]
    assert ("version" in group, group["advert_interval"]) == (False, 1.4)


def test_unicast_peers_of_both_gateways_come_together() -> None:
    text = """vrrp_instance V {
        virtual_router_id 5
        @gw1 unicast_src_ip 192.0.2.2
        @gw2 unicast_src_ip 192.0.2.3
        unicast_peer {
            @^gw1 192.0.2.2
            @^gw2 192.0.2.3 min_ttl 255
        }
        virtual_ipaddress {
            192.0.2.1/24 dev eth0
        }
    }"""
    imported = import_keepalived([Source("gw1", "k", text), Source("gw2", "k", text)], no_files)
    assert imported.document["vip-groups"]["V"]["unicast_peers"] == ["192.0.2.2", "192.0.2.3"]
    assert any("without min_ttl 255" in problem.message for problem in imported.problems)


def test_direct_routing_keeps_the_port_and_checks_the_other() -> None:
    real = "real_server 198.51.100.{} 8080 {{\nTCP_CHECK {{\n}}\n}}\n"
    body = f"lb_kind DR\n{real.format(2)}{real.format(3)}"
    found = service(body)
    assert found["servers"] == {"198.51.100.2:80": {"forward": "direct"}, "198.51.100.3:80": {"forward": "direct"}}
    assert found["check"]["port"] == 8080


def test_one_check_for_a_service() -> None:
    body = """
real_server 198.51.100.1 80 {
TCP_CHECK {
}
HTTP_GET {
}
}
real_server 198.51.100.2 80 {
HTTP_GET {
}
}
real_server 198.51.100.3 80 {
HTTP_GET {
delay_loop 7
}
}
real_server 198.51.100.4 80 {
}"""
    assert service(body)["check"] == {
        "type": "http", "interval": 60, "timeout": 5, "rise": 1, "fall": 2, "path": "/",
        "expected_statuses": ["200-299"],
    }  # fmt: skip
    lines = told(f"virtual_server 192.0.2.10 80 {{\nprotocol TCP{body}\n}}")
    assert any(line.startswith("error: k.conf:4:1: TCP_CHECK: a second check of one server") for line in lines)
    assert any(line.startswith("error: k.conf:14:1: HTTP_GET: differs from the check") for line in lines)
    assert any(line.startswith("error: k.conf:18:1: real_server 198.51.100.4 80: has no such check") for line in lines)


def test_groups_share_their_check() -> None:
    real = "real_server 198.51.100.1 80 {{\nTCP_CHECK {{\n}}\n}}\n"
    one = f'virtual_server group "g!" {{{{\nprotocol {{}}\ndelay_loop {{}}\n{real}}}}}\n'
    group = 'virtual_server_group "g!" {\n192.0.2.1-2 80\n}\n'
    document = load(group + one.format("TCP", 5) + one.format("UDP", 5) + one.format("SCTP", 6)).document
    assert {name: check["interval"] for name, check in document["checks"].items()} == {"g-": 5, "g--2": 6}
    assert [service["check"] for service in document["services"].values()] == ["g--2", "g--2", "g-", "g-", "g-", "g-"]


@pytest.mark.parametrize(
    ("checker", "check"),
    [
        ("TCP_CHECK {\n}", {"type": "tcp", "fall": 2}),
        (
            "SSL_GET {\nenable_sni\n}",
            {"type": "https", "path": "/", "expected_statuses": ["200-299"], "tls_verify": False},
        ),
        (
            "DNS_CHECK {\nname example.net\ntype a\n}",
            {"type": "dns", "dns_name": "example.net", "dns_type": "A", "fall": 4},
        ),
        ("DNS_CHECK {\nretry 0\nconnect_port 5353\n}", {"type": "dns", "port": 5353, "fall": 1}),
        (
            "MISC_CHECK {\nmisc_path \"/usr/local/bin/db.sh -c 'a b' x\"\nmisc_timeout 9\n}",
            {"type": "script", "script": "db.sh", "arguments": ["-c", "a b", "x"], "timeout": 9, "fall": 1},
        ),
        (
            "MISC_CHECK {\nmisc_path ok 'a b'\n}",
            {"type": "script", "script": "ok", "arguments": ["a b"], "timeout": 60, "fall": 1},
        ),
        ("UDP_CHECK {\n}", {"type": "udp"}),
        (
            "UDP_CHECK {\npayload Ab12f 3 456\nrequire_reply 0x x\nconnect_timeout 3\n}",
            {"type": "udp", "payload": "ab120f034506", "reply": "0x0x", "timeout": 3},
        ),
        ("UDP_CHECK {\nrequire_reply\n}", {"type": "udp", "reply": ""}),
        ("SMTP_CHECK {\nhelo_name lb.example\n}", {"type": "smtp", "helo": "lb.example"}),
        ("SMTP_CHECK {\nhost {\nconnect_ip 198.51.100.1\nconnect_port 587\n}\n}", {"type": "smtp", "port": 587}),
        ("PING_CHECK {\nretry 4\n}", {"type": "ping", "fall": 5}),
    ],
)
def test_checkers(checker: str, check: dict[str, Any]) -> None:
    common = {"interval": 60, "timeout": 5, "rise": 1, "fall": 2}
    assert service(f"real_server 198.51.100.1 80 {{\n{checker}\n}}")["check"] == {**common, **check}


def test_persistence() -> None:
    assert service("persistence_timeout\npersistence_granularity 255.0.255.0\npersistence_engine sip") == {
        "scheduler": "wlc",
        "persistent": 360,
        "persistent_netmask": "255.0.255.0",
        "persistence_engine": "sip",
    }
    found = service("persistence_timeout 9\npersistence_granularity 64", "2001:db8::1 80")
    assert found["persistent_netmask"] == 64


def test_marks_take_the_family_of_their_servers() -> None:
    real = "real_server 2001:db8::2 80 {\n}"
    assert list(load(f"virtual_server fwmark 5 {{\n{real}\n}}").document["services"]) == ["fwmark:5:inet6"]
    assert list(load("virtual_server fwmark 5 {\nip_family inet6\n}").document["services"]) == ["fwmark:5:inet6"]
    assert list(load("virtual_server fwmark 5 {\n}").document["services"]) == ["fwmark:5"]


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
