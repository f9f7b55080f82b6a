"""Text to documents: every problem at its place, nothing raised on any input."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.config.document import SECTIONS, document_to_entries, entries_to_document
from lbnode.config.keys import parse_key
from lbnode.config.parse import parse_document
from lbnode.config.schema import SCHEMAS
from lbnode.config.value import parse_value
from lbnode.errors import ConfigError
from lbnode.model import Severity

SERVICE = "services/tcp:192.0.2.10:80"
SERVER = f"{SERVICE}/servers/198.51.100.21:80"


def faults(key: str, text: str) -> list[str]:
    parsed = parse_value(parse_key(key), text)
    assert (parsed.document is None) == any(fault.severity is Severity.ERROR for fault in parsed.faults)
    return [str(fault.at("-")) for fault in parsed.faults]


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        (SERVER, '{"weight": 2,}', "malformed JSON at line 1 column"),
        (SERVER, "weight: 2", 'malformed JSON at line 1 column 1: Expecting value (example: {"weight": 2})'),
        (SERVER, "[1]", "[1] is not an object"),
        (SERVER, '{"weight": NaN}', "NaN is not JSON"),
        (SERVER, '{"weight": 1, "weight": 2}', "'weight' stands twice"),
        (SERVER, '{"weigth": 2}', 'weigth: unknown field (did you mean "weight"?)'),
        (SERVER, '{"weight": 2147483648}', "weight: 2147483648 is out of range: at most 2147483647"),
        (SERVER, '{"weight": -1}', "weight: -1 is out of range: at least 0"),
        (SERVER, '{"weight": true}', "weight: true is not a whole number"),
        (SERVER, '{"forward": "derect"}', 'did you mean "direct"?'),
        (SERVER, '{"lower_threshold": 5, "upper_threshold": 2}', "lower_threshold 5 is above upper_threshold 2"),
        (f"{SERVICE}/servers/198.51.100.21:81", '{"forward": "direct"}', "cannot change the port: 81 here, 80"),
        (f"{SERVICE}/servers/198.51.100.21:81", '{"forward": "tunnel"}', "cannot change the port: 81 here, 80"),
        (f"{SERVICE}/servers/[2001:db8::1]:80", "{}", "is IPv6, the service is IPv4"),
        (SERVICE, '{"scheduler": "wlcc"}', 'did you mean "wlc"?'),
        (SERVICE, '{"scheduler": "wrr", "flags": ["sh-port"]}', "'sh-port' is not a flag of scheduler wrr"),
        (SERVICE, '{"one_packet": true}', "only for UDP"),
        (
            "services/udp:192.0.2.10:53",
            '{"syn_proxy": 1000}',
            "syn_proxy: only for TCP and firewall marks, not for udp",
        ),
        ("services/udp:192.0.2.10:53", '{"mss": 1360}', "mss: only for TCP and firewall marks, not for udp"),
        (SERVICE, '{"mss": 87}', "mss: 87 is out of range"),
        (SERVICE, '{"mss": 65496}', "mss: 65496 is out of range"),
        (SERVICE, '{"allow": []}', "allow: an empty list allows nobody"),
        (SERVICE, '{"allow": ["192.0.2.1/24"]}', "'192.0.2.1/24' has bits behind its length (write \"192.0.2.0/24\")"),
        (SERVICE, '{"deny": ["everybody"]}', "'everybody' is not a prefix"),
        (SERVICE, '{"deny": ["192.0.2.1", "192.0.2.1/32"]}', "'192.0.2.1/32' is named twice"),
        (SERVICE, '{"deny": ["2001:db8::/32"]}', "2001:db8::/32 is no prefix of the service's family, IPv4"),
        (SERVICE, '{"allow": ["192.0.2.0/24"], "deny": ["192.0.2.0/24"]}', "192.0.2.0/24 is in allow, too"),
        (SERVICE, '{"new_connections": {}}', "new_connections.rate"),
        (SERVICE, '{"new_connections": {"rate": 0}}', "new_connections.rate"),
        (SERVICE, '{"new_connections": {"rate": 5, "brust": 1}}', 'did you mean "burst"?'),
        (SERVICE, '{"new_connections": {"rate": 5, "prefix": 64}}', "64 is above 32 (IPv4)"),
        (SERVICE, '{"timeouts": {"tcp": 0}}', "timeouts.tcp: 0 is out of range: at least 1"),
        (SERVICE, '{"timeouts": {"tcpfin": 5}}', 'did you mean "tcp_fin"?'),
        (SERVICE, '{"timeouts": {"udp": 5}}', "timeouts.udp: not for tcp (those of tcp are: tcp, tcp_fin)"),
        (SERVICE.replace("tcp", "udp"), '{"timeouts": {"tcp_fin": 5}}', "timeouts.tcp_fin: not for udp"),
        (SERVICE, '{"timeouts": 60}', "timeouts"),
        (SERVICE, '{"syn_proxy": -1}', "syn_proxy: -1 is out of range: at least 0"),
        (SERVICE, '{"persistent_netmask": 24}', "persistent_netmask without persistent"),
        (SERVICE, '{"persistent": 5, "persistent_netmask": 33}', "33 is above 32"),
        (SERVICE, '{"persistent": 5, "persistent_netmask": true}', "True is not a prefix length"),
        (SERVICE, '{"persistent": 5, "persistent_netmask": "255.0.255"}', "'255.0.255' is not an IPv4 mask"),
        (
            "services/tcp:[2001:db8::1]:80",
            '{"persistent": 5, "persistent_netmask": "255.0.0.0"}',
            "'255.0.0.0' is no prefix length (IPv6)",
        ),
        (SERVICE, '{"persistent": 5, "persistence_engine": "spi"}', 'did you mean "sip"?'),
        (SERVICE, '{"check": {"type": "http", "intervall": 1}}', 'check.intervall: unknown field (did you mean "in'),
        (SERVICE, '{"check": {"type": "icmp"}}', "check.type: "),
        (
            SERVICE,
            '{"check": {"body_match": "(", "type": "http"}}',
            "check.body_match: '(' is not a regular expression",
        ),
        (SERVICE, '{"check": {"path": "/a b", "type": "http"}}', "has a space"),
        (SERVICE, '{"check": {"host": "a\\r\\nX: y", "type": "http"}}', "control character"),
        (SERVICE, '{"check": {"expected_statuses": ["299-200"], "type": "http"}}', "'299-200'"),
        (SERVICE, '{"check": {"path": "/x"}}', 'path: not for a check of type tcp (set "type" to http or https)'),
        (SERVICE, '{"check": {"type": "ping", "port": 7}}', "port: not for a check of type ping"),
        (SERVICE, '{"check": {"type": "udp", "payload": "abc"}}', "'abc' is not bytes in hexadecimal"),
        (SERVICE, '{"check": {"type": "udp", "reply": "0y"}}', "'0y' has other characters than hexadecimal"),
        (SERVICE, '{"check": {"type": "smtp", "helo": "a b"}}', "'a b' has a space"),
        (SERVICE, '{"check": {"type": "tcp", "helo": "a"}}', 'helo: not for a check of type tcp (set "type" to smtp)'),
        (SERVICE, '{"check": {"type": "script"}}', "script: missing (the name of a program in /etc/lbnode/checks)"),
        (SERVICE, '{"check": {"type": "script", "script": "../sh"}}', "'../sh' is not the name of a file"),
        (SERVICE, '{"check": {"type": "script", "script": "/bin/sh"}}', "'/bin/sh' is not the name of a file"),
        (SERVICE, '{"check": {"type": "script", "script": "x", "arguments": "y"}}', "'y' is not a list of words"),
        (SERVICE, '{"check": {"type": "dns", "dns_name": "a..b"}}', "'a..b' is not a domain name"),
        (SERVICE, '{"check": {"type": "dns", "dns_type": "X"}}', "check.dns_type: "),
        (SERVICE, '{"check": 7}', "check: 7"),
        ("services/tcp:192.0.2.10:0", "{}", "needs a persistent service"),
        ("vip-groups/front", '{"vrid": 0, "addresses": ["192.0.2.1/24"], "priorities": {"a": 1}}', "vrid: 0"),
        ("vip-groups/front", '{"addresses": ["192.0.2.1/24"], "priorities": {"a": 1}}', "vrid: missing"),
        ("vip-groups/front", '{"vrid": 1, "addresses": ["192.0.2.1"], "priorities": {"a": 1}}', "not a floating"),
        ("vip-groups/front", '{"vrid": 1, "addresses": ["192.0.2.1/33"], "priorities": {"a": 1}}', "longer than"),
        (
            "vip-groups/front",
            '{"vrid": 1, "addresses": ["192.0.2.1/24"], "priorities": {"a": 255}}',
            "priorities.a: 255",
        ),
        (
            "vip-groups/front",
            '{"vrid": 1, "addresses": ["192.0.2.1/24"], "priorities": {"a": 1}, "advert_interval": 0.015}',
            "multiple of 0.01",
        ),
        ("settings", '{"timeouts": {"tcpfin": 1}}', 'timeouts.tcpfin: unknown field (did you mean "tcp_fin"?)'),
        ("settings", '{"sysctl": {"net.core.somaxconn": "4096; reboot"}}', "is not a number"),
        ("settings", '{"sync_daemons": {"master": {"group": "192.0.2.1"}}}', "is not a multicast address"),
        ("settings", '{"dataplane": "ipvsadm"}', "dataplane: "),
        ("settings", '{"local_addresses": ["198.51.100.4"]}', "is not a map of nodes"),
        ("settings", '{"local_addresses": {"gw1": ["198.51.100.4/24"]}}', "does not appear to be an IPv4"),
        (
            "settings",
            '{"local_addresses": {"gw1": ["198.51.100.4"], "gw2": ["198.51.100.4"]}}',
            "198.51.100.4 of gw2 is an address of gw1 already",
        ),
        (SERVER, '{"toa": false}', "toa: not for forward masquerade"),
        (f"{SERVICE}/servers/[2001:db8:b::1]:80", '{"forward": "fullnat"}', "the service is IPv4"),
    ],
)
def test_wrong_values_name_the_field_and_the_reason(key: str, text: str, message: str) -> None:
    found = faults(key, text)
    assert any(message in fault for fault in found), found


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (SERVER, "{}"),
        (SERVER, '{"weight": 0, "forward": "direct", "drain": true, "upper_threshold": 9, "lower_threshold": 3}'),
        (f"{SERVICE}/servers/198.51.100.21:8080", '{"forward": "masquerade"}'),
        ("services/fwmark:7/servers/198.51.100.21:80", '{"forward": "direct"}'),
        (f"{SERVICE}/servers/198.51.100.21:8080", '{"forward": "fullnat", "toa": false}'),
        ("settings", '{"local_addresses": {"gw1": ["198.51.100.4", "2001:db8:b::4"], "gw2": ["198.51.100.5"]}}'),
        ("services/udp:192.0.2.10:53", '{"one_packet": true, "scheduler": "mh", "flags": ["mh-port"]}'),
        ("services/tcp:192.0.2.10:0", '{"persistent": 300, "persistent_netmask": 24}'),
        ("services/udp:192.0.2.10:5060", '{"persistent": 300, "persistence_engine": "sip"}'),
        (SERVICE, '{"persistent": 300, "persistent_netmask": "255.0.255.0"}'),
        (SERVICE, '{"check": "web", "vip_group": "front", "when_down": "remove", "when_all_down": "keep-last"}'),
        (SERVICE, '{"check": {"type": "https", "expected_statuses": [200, "300-399"], "tls_verify": false}}'),
        (
            "vip-groups/front",
            '{"vrid": 51, "addresses": ["198.51.100.1/24 dev eth1"], "priorities": {"gw1": 250}, "preempt": true}',
        ),
        ("settings", '{"dataplane": "ipvs", "sync_daemons": {"by_role": true, "master": {"interface": "eth1"}}}'),
        (SERVICE, '{"allow": ["0.0.0.0/0"], "deny": ["192.0.2.7", "198.51.100.0/24"], "new_connections": {"rate": 9}}'),
        (SERVICE, '{"timeouts": {"tcp": 3600, "tcp_fin": null}}'),
        ("settings", '{"drop": {"ip_options": true, "bad_checksums": true}}'),
        ("settings", '{"timeouts": {"tcp": 60}, "foreign_services": "remove", "sysctl": {"net.core.somaxconn": 10}}'),
    ],
)
def test_right_values_are_taken(key: str, text: str) -> None:
    assert faults(key, text) == []


def test_a_slow_check_is_a_warning_not_an_error() -> None:
    parsed = parse_value(parse_key("checks/web"), '{"interval": 1, "timeout": 2}')
    assert parsed.document is not None
    assert [fault.severity for fault in parsed.faults] == [Severity.WARNING]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("service/tcp:192.0.2.10:80", 'did you mean "services"?'),
        ("services/tcp:192.0.2.10:080", "tcp:192.0.2.10:80"),
        ("services/http:192.0.2.10:80", "does not begin with tcp:"),
        ("services/tcp:[2001:DB8::1]:80", "tcp:[2001:db8::1]:80"),
        ("services/tcp:192.0.2.1:80/servers/0.0.0.0:80", "not a unicast address"),
        (f"{SERVICE}/server/198.51.100.1:80", "servers/ADDRESS:PORT"),
        (f"{SERVICE}/servers/198.51.100.1", "ADDRESS:PORT"),
        ("vip-groups/a/b", "not a name"),
        ("", "no such key"),
    ],
)
def test_wrong_keys_say_what_is_right(key: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_key(key)
    assert hint in str(caught.value)


WRONG_YAML = """\
services:
  tcp:192.0.2.10:80:
    scheduler: wr
    persistent: 12:30
    when_down: no
    servers:
      192.0.2.21:80: {weigth: 1}
      192.0.2.22:81: {forward: direct, weight: 012}
      192.0.2.22:81: {}
vip-group: {}
"""


def test_every_problem_of_a_file_is_reported_at_its_line_and_column() -> None:
    problems = [str(problem) for problem in parse_document(WRONG_YAML, "lb.yaml").problems]
    expected = [
        ("lb.yaml:3:5: ", 'did you mean "wrr"?'),
        ("lb.yaml:4:17: ", "YAML takes 12:30 for a number"),
        ("lb.yaml:5:16: ", "YAML takes no for a boolean"),
        ("lb.yaml:7:23: ", 'did you mean "weight"?'),
        ("lb.yaml:8:48: ", "YAML takes 012 for a number"),
        ("lb.yaml:9:7: ", "stands twice, first in line 8"),
        ("lb.yaml:10:1: ", 'did you mean "vip-groups"?'),
    ]
    for where, what in expected:
        assert any(problem.startswith(where) and what in problem for problem in problems), (where, what, problems)


def test_json_documents_have_positions_too() -> None:
    text = '{"services": {\n  "tcp:192.0.2.10:80": {"scheduler": "wrrr"}}}'
    (problem,) = parse_document(text, "lb.json").problems
    assert problem.where == "lb.json:2:25"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "[" * 9000 + "]" * 9000,
        "a: *b",
        "&a [*a]",
        "a: !!python/name:os.system {}",
        "\x01",
        "a: b: c",
        "---\n{}\n---\n{}",
        "{" * 5000,
        "services: 7",
        "services: {tcp:192.0.2.1:80: 7}",
        "? {a: b}\n: c",
        "1: 2",
        "<<: {a: 1}",
    ],
)
def test_nonsense_becomes_a_problem(text: str) -> None:
    assert parse_document(text, "f").problems


def test_aliases_cannot_blow_up() -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "values" in str(parse_document("\n".join(lines), "bomb").problems[0])


@settings(max_examples=150, deadline=None)
@given(st.text() | st.text(alphabet="{}[]:,&*-?!|>%\"'#@ \n\tabn01.~", max_size=60))
def test_any_text_is_survived(text: str) -> None:
    result = parse_document(text, "f")
    assert result.problems or result.entries is not None
    for kind in ("services/tcp:192.0.2.1:80", "checks/x", "vip-groups/x", "settings", SERVER):
        parse_value(parse_key(kind), text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({name for schema in SCHEMAS.values() for name in schema.model_fields} | {"servers"})


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), st.sampled_from(SECTIONS))
def test_any_value_in_any_field_is_survived(fields: dict[str, Any], section: str) -> None:
    for key in (SERVICE, SERVER, "checks/x", "vip-groups/x", "settings"):
        parsed = parse_value(parse_key(key), json.dumps(fields))
        assert parsed.document is not None or parsed.faults
    parse_document(json.dumps({section: {"tcp:192.0.2.1:80": fields}}), "f")
    parse_document(json.dumps({section: fields}), "f")


SERVICE_IDS = st.sampled_from(["tcp:192.0.2.10:80", "udp:[2001:db8::10]:53", "fwmark:7", "fwmark:7:inet6"])
SERVER_IDS = st.sampled_from(["198.51.100.21:80", "198.51.100.22:8080", "[2001:db8::21]:53"])
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "services": st.dictionaries(
            SERVICE_IDS,
            st.fixed_dictionaries(
                {"scheduler": st.sampled_from(["rr", "mh"])},
                optional={
                    "persistent": st.integers(0, 99),
                    "servers": st.dictionaries(
                        SERVER_IDS, st.fixed_dictionaries({}, optional={"weight": st.integers(0, 9)}), min_size=1
                    ),
                },
            ),
            min_size=1,
        ),
        "checks": st.dictionaries(st.sampled_from(["a", "web-1"]), st.just({"type": "http"}), min_size=1),
        "settings": st.fixed_dictionaries({}, optional={"foreign_services": st.just("remove")}),
    },
)


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS)
def test_documents_and_entries_convert_without_loss(document: dict[str, Any]) -> None:
    entries = document_to_entries(document)
    assert entries_to_document(entries) == document
    assert document_to_entries(entries_to_document(entries)) == entries


def test_structure_errors_of_a_document_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        document_to_entries({"servces": {}, "checks": {"a b": {}}, "settings": 5, "services": {"tcp:x": {}}})
    for part in ("services", "'a b'", "settings", "tcp:x"):
        assert part in str(caught.value)
