"""What is selected among records by bytes is what the filter selects among the connections made of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.dataplane.xdp import listing
from lbnode.dataplane.xdp.layout import State
from lbnode.dataplane.xdp.records import RECORD_SIZE, Record, Tuple
from lbnode.errors import ConfigError
from lbnode.model import ForwardingMethod, L4Protocol, ServerId, ServiceId
from tests.listed import connection

CLIENTS = [ip_address(one) for one in ("203.0.113.5", "203.0.113.200", "198.51.100.7", "2001:db8::5", "2001:db9::5")]
VIPS = {4: ip_address("192.0.2.10"), 6: ip_address("2001:db8::10")}
SERVERS = {4: ip_address("198.51.100.11"), 6: ip_address("2001:db8:b::11")}
LOCALS = {4: "198.51.100.4", 6: "2001:db8:b::4"}
STATES = [state for state in State if state is not State.NONE]


@st.composite
def some_record(draw: st.DrawFn) -> Record:
    client, port = draw(st.sampled_from(CLIENTS)), draw(st.sampled_from([80, 443]))
    protocol, state = draw(st.sampled_from([L4Protocol.TCP, L4Protocol.UDP])), draw(st.sampled_from(STATES))
    vip, server = VIPS[client.version], SERVERS[client.version]
    template, mark = state is State.TEMPLATE, draw(st.sampled_from([0, 0, 7]))
    inward = Tuple(client, 0 if template else 40000, vip, port, protocol, template)
    if template and mark:
        at = ip_address(mark) if client.version == 4 else ip_address(mark << 96)
        inward = Tuple(client, 0, at, 0, None, True)
    outward = Tuple(server, draw(st.sampled_from([80, 8080])), client, 0, inward.protocol, template)
    return Record(inward, outward, 1000, state, draw(st.sampled_from([0, 2])), ForwardingMethod.MASQUERADE, mark)


FILTERS = st.builds(
    ConnectionFilter,
    st.sampled_from([None, *map(ServiceId.parse, ("tcp:192.0.2.10:80", "udp:192.0.2.10:0", "tcp:[2001:db8::10]:443"))]),
    st.sampled_from([None, ServerId.parse("198.51.100.11:80"), ServerId.parse("[2001:db8:b::11]:8080")]),
    st.sampled_from([None, *map(ip_network, ("203.0.113.0/25", "0.0.0.0/0", "2001:db8::/32", "198.51.100.7/32"))]),
    st.sampled_from(["", "ESTABLISHED", "UDP", "NONE", "ASSURED", "NOSUCH"]),
)


@given(st.lists(some_record(), max_size=12), FILTERS)
def test_bytes_select_what_the_filter_selects(records: list[Record], wanted: ConnectionFilter) -> None:
    if wanted.service is not None:
        records = [one for one in records if not one.mark]
    data = b"".join(one.pack() for one in records)
    found = [connection(listing.line(data, at)) for at in listing.Selection(wanted).offsets(data)]
    every = [connection(listing.line(data, at)) for at in range(0, len(data), RECORD_SIZE)]
    assert found == [one for one in every if wanted.matches(one)]
    assert [*listing.Selection(EVERY).offsets(data)] == [*range(0, len(data), RECORD_SIZE)]


@given(st.lists(some_record(), max_size=12), st.sampled_from(["fwmark:7", "fwmark:7:inet6"]))
def test_connections_of_a_firewall_mark(records: list[Record], service: str) -> None:
    """Records tell the mark of each; connections that are listed only that of templates."""
    data = b"".join(one.pack() for one in records)
    wanted = ConnectionFilter.parse(service)
    family = 6 if "inet6" in service else 4
    marked = [n for n, one in enumerate(records) if one.mark == 7 and one.inward.source.version == family]
    assert [at // RECORD_SIZE for at in listing.Selection(wanted).offsets(data)] == marked
    templates = [n for n in marked if records[n].state is State.TEMPLATE]
    every = [connection(listing.line(data, at)) for at in range(0, len(data), RECORD_SIZE)]
    assert [n for n, one in enumerate(every) if wanted.matches(one)] == templates


@pytest.mark.parametrize("family", [4, 6])
def test_only_connections_of_full_nat_have_a_local_end(family: int) -> None:
    client, local = next(one for one in CLIENTS if one.version == family), ip_address(LOCALS[family])
    inward = Tuple(client, 40000, VIPS[family], 80, L4Protocol.TCP)
    outward = Tuple(SERVERS[family], 8080, local, 1500, L4Protocol.TCP)
    full = Record(inward, outward, 1000, State.ESTABLISHED, 0, ForwardingMethod.FULLNAT)
    template = replace(full, inward=replace(inward, template=True), state=State.TEMPLATE)
    listed = [connection(listing.line(one.pack(), 0)) for one in (full, template)]
    listed.append(connection(listing.line(replace(full, forward=ForwardingMethod.MASQUERADE).pack(), 0)))
    assert [one.local for one in listed] == [(local, 1500), None, None]
    assert {one.server for one in listed} == {(SERVERS[family], 8080)}


def test_a_filter_that_is_none_says_so() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.0/33"):
        ConnectionFilter.parse(client="192.0.2.0/33")
