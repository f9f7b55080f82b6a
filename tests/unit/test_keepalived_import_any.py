"""keepalived.conf -> document: whatever comes in, the document is valid and every line is accounted for."""

from __future__ import annotations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.config.parse import parse_document
from lbnode.config.resolve import resolve
from lbnode.config.value import canonical
from lbnode.model import Severity
from lbnode.store.base import Entry
from tests.unit.keepalived_conf import load

VOCABULARY = """
virtual_server virtual_server_group real_server vrrp_instance vrrp_sync_group global_defs group fwmark url TCP_CHECK
HTTP_GET SSL_GET MISC_CHECK lb_algo lvs_method protocol persistence_timeout persistence_granularity delay_loop retry
connect_port connect_ip connect_timeout path status_code regex virtualhost weight uthreshold lthreshold quorum alpha
virtual_ipaddress virtual_ipaddress_excluded interface virtual_router_id priority advert_int nopreempt unicast_peer
unicast_src_ip version lvs_timeouts lvs_sync_daemon track_interface static_routes ip_family ops mh-port 192.0.2.1
192.0.2.2/24 192.0.2.3-5 2001:db8::1 2001:db8::2-f 0.0.0.0 224.0.0.1 80 0 7 65536 -1 0.5 tcp UDP rr sh mh DR NAT TUN
type gue port dev eth0 V_1 V_2 é /x 200-299 ( 255.255.255.0 255.0.255.0 inet6 $A ~SEQ(A,1,3)
"""
WORDS = st.sampled_from(VOCABULARY.split())
LINES = st.tuples(st.lists(WORDS, max_size=4), st.sampled_from(["\n", " {\n", "\n}\n", " { ", "\n$A=80\n"]))
TEXTS = st.lists(LINES, max_size=60).map(lambda lines: "".join(f"{' '.join(words)}{end}" for words, end in lines))


@settings(max_examples=120)
@given(TEXTS)
def test_the_document_is_valid_and_every_line_is_accounted_for(text: str) -> None:
    imported = load(text)
    assert not [problem for problem in imported.problems if "not looked at" in problem.message]
    assert all(problem.where.startswith("k.conf:") for problem in imported.problems)
    if imported.document:
        parsed = parse_document(yaml.safe_dump(dict(imported.document)), "document")
        assert parsed.problems == ()
        entries = {key: Entry(canonical(value), 1) for key, value in parsed.entries.items()}
        assert [p for p in resolve(entries).problems if p.severity is Severity.ERROR] == []


BLOCKS = st.recursive(
    st.tuples(WORDS, st.lists(WORDS, max_size=2)).map(lambda item: f"{item[0]} {' '.join(item[1])}\n"),
    lambda inner: st.tuples(WORDS, st.lists(WORDS, max_size=2), st.lists(inner, max_size=6)).map(
        lambda item: f"{item[0]} {' '.join(item[1])} {{\n{''.join(item[2])}}}\n"
    ),
    max_leaves=25,
)


@settings(max_examples=60)
@given(BLOCKS)
def test_nested_blocks_too(text: str) -> None:
    assert "not looked at" not in str(load(text).problems)
