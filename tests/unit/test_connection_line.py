"""A line is what the API's encoder makes of the connection."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from lbnode.connection_line import line_of
from lbnode.model import Connection, L4Protocol
from tests.listed import connection
from web.encode import encode

ENDS = st.tuples(st.ip_addresses(), st.integers(0, 65535))
CONNECTIONS = st.builds(
    Connection,
    st.none() | st.sampled_from(L4Protocol),
    ENDS,
    ENDS,
    ENDS,
    st.sampled_from(["NONE", "ESTABLISHED", "SYN_RECV"]),
    st.integers(0, 2**32).map(lambda ms: ms / 1000),
    st.sampled_from(["", "sip"]),
    st.text(),
    st.none() | ENDS,
)


@given(CONNECTIONS)
def test_a_line_holds_every_field(one: Connection) -> None:
    line = line_of(one)
    assert line.endswith("\n") and json.loads(line) == json.loads(encode(one))
    assert connection(line) == one


def test_what_identifies_a_call_may_be_any_text() -> None:
    end, call = (IPv4Address("192.0.2.1"), 5060), 'a"b\\c\n@client.example'
    one = Connection(None, end, end, (IPv6Address("2001:db8::1"), 0), "NONE", 1.0, "sip", call)
    assert line_of(one).count("\n") == 1 and json.loads(line_of(one))["pe_data"] == call
