"""keepalived.conf -> document: virtual servers, their real servers and checkers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.keepalived_conf import load, service, told


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
