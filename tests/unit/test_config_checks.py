"""A check's document becomes the spec that its probe reads, for each type."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from healthcheck.probes.dns import TYPES
from healthcheck.spec import CheckSpec, CheckType, DnsSpec, HttpSpec, ScriptSpec, SmtpSpec, UdpSpec
from lbnode.config.build import check_spec
from lbnode.config.check_document import CheckDocument

SPECS: dict[str, tuple[dict[str, Any], CheckSpec]] = {
    "tcp": ({"port": 8080, "interval": 5, "timeout": 3}, CheckSpec(interval_s=5, timeout_s=3, port=8080)),
    "http": (
        {"path": "/a", "host": "b", "expected_statuses": [200, "301-302"], "body_match": "ok"},
        CheckSpec(CheckType.HTTP, http=HttpSpec("GET", "/a", "b", frozenset({200, 301, 302}), "ok")),
    ),
    "https": (
        {"tls_verify": False, "tls_server_name": "c"},
        CheckSpec(CheckType.HTTPS, http=HttpSpec(tls_verify=False, tls_server_name="c")),
    ),
    "dns": (
        {"dns_name": "example.net", "dns_type": "A"},
        CheckSpec(CheckType.DNS, dns=DnsSpec("example.net", "A")),
    ),
    "ping": ({"rise": 1, "fall": 9}, CheckSpec(CheckType.PING, rise=1, fall=9)),
    "udp": ({"payload": "00ff", "reply": "0x"}, CheckSpec(CheckType.UDP, udp=UdpSpec("00ff", "0x"))),
    "smtp": ({"helo": "lb.example"}, CheckSpec(CheckType.SMTP, smtp=SmtpSpec("lb.example"))),
    "script": (
        {"script": "db", "arguments": ["-p", "1"]},
        CheckSpec(CheckType.SCRIPT, script=ScriptSpec("/etc/lbnode/checks/db", ("-p", "1"))),
    ),
}


@pytest.mark.parametrize("kind", list(CheckType))
def test_each_type(kind: CheckType) -> None:
    fields, spec = SPECS[kind]
    assert check_spec(CheckDocument.model_validate({"type": str(kind), **fields})) == spec


def test_the_documents_words_are_those_of_the_probes() -> None:
    assert set(get_args(CheckDocument.model_fields["type"].annotation)) == set(CheckType)
    assert set(get_args(CheckDocument.model_fields["dns_type"].annotation)) == set(TYPES)
