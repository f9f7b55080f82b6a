"""Ids have one canonical text, and say what it is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.model import L4Protocol, ServerId, ServiceId

SERVICE_IDS = st.builds(
    ServiceId.of, st.sampled_from([str(p) for p in L4Protocol]), st.ip_addresses().map(str), st.integers(0, 65535)
) | st.builds(ServiceId, st.none(), st.none(), st.just(0), st.integers(1, 2**32 - 1), st.booleans())


@given(SERVICE_IDS)
def test_service_ids_round_trip(service_id: ServiceId) -> None:
    parsed = ServiceId.parse(str(service_id))
    assert parsed == service_id
    assert parsed.family == service_id.family


@given(st.ip_addresses(), st.integers(0, 65535))
def test_server_ids_round_trip(address: object, port: int) -> None:
    server_id = ServerId(address, port)  # type: ignore[arg-type]
    assert ServerId.parse(str(server_id)) == server_id


@given(st.lists(SERVICE_IDS, max_size=8))
def test_service_ids_can_be_sorted(service_ids: list[ServiceId]) -> None:
    keys = [service_id.sort_key() for service_id in service_ids]
    assert len(set(keys)) == len(set(service_ids))
    sorted(keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tcp:192.0.2.1", "ADDRESS:PORT"),
        ("tcp:192.0.2.1:65536", "above 65535"),
        ("tcp:192.0.2.1:080", "write 'tcp:192.0.2.1:80'"),
        ("tcp:2001:db8::1:80", "ADDRESS:PORT"),
        ("tcp:[192.0.2.1]:80", "brackets"),
        ("icmp:192.0.2.1:0", "does not begin with"),
        ("fwmark:0", "from 1 to"),
        ("fwmark:7:inet4", "fwmark:N:inet6"),
        ("udp:[2001:DB8::1]:53", "write 'udp:[2001:db8::1]:53'"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        ServiceId.parse(text)
    assert message in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_an_id_or_a_value_error(text: str) -> None:
    for parse in (ServiceId.parse, ServerId.parse):
        with contextlib.suppress(ValueError):
            assert str(parse(text)) == text
