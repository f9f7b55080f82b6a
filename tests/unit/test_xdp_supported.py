"""What the XDP/tcx data plane refuses of full NAT, and in which words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbnode.dataplane.base import PutServer
from lbnode.dataplane.xdp import supported
from lbnode.errors import Unsupported
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId

DNS = ServiceId.of("udp", "192.0.2.10", 53)
LOCAL = (ip_address("198.51.100.4"),)
FULL = ProgrammedServer(ServerId.parse("198.51.100.21:5353"), 1, ForwardingMethod.FULLNAT, local_addresses=LOCAL)


def test_a_port_of_its_own_is_taken() -> None:
    supported.check(PutServer(DNS, FULL))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"local_addresses": ()}, "name one in `local_addresses` of the service's VIP group"),
        ({"local_addresses": (ip_address("2001:db8::4"),)}, "not all of IPv4"),
        ({"local_addresses": LOCAL * 17}, "at most 16 local addresses"),
        ({"id": ServerId.parse("[2001:db8::21]:53")}, "cannot lead from IPv4 to another family"),
    ],
)
def test_what_cannot_be(changes: dict[str, object], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        supported.check(PutServer(DNS, replace(FULL, **changes)))  # type: ignore[arg-type]


def test_one_packet_scheduling_keeps_no_entry_to_translate_back_by() -> None:
    with pytest.raises(Unsupported, match="one-packet scheduling keeps none"):
        supported.check_entries(ProgrammedService(DNS, "rr", one_packet=True), [FULL])
