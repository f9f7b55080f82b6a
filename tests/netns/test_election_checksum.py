"""A peer that sums IPv4 advertisements as RFC 9568 says, without the pseudo-header: hardware routers do.

Neither keepalived 2.2.7 nor FRR 8.4 can be made to send that form, so the peer is a script.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbnode.election.packet import Advert, ChecksumForm, checksum, encode
from lbnode.lab.netns import Net
from tests.netns.election_lab import GROUP, VIP, Lab, until

pytestmark = [pytest.mark.root]
PEER = IPv4Address("192.0.2.100")  # the client's namespace


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Net(f"lbt-ck{os.getpid()}") as net:
        yield Lab(net)


def vrrp_listener() -> socket.socket:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
    membership = socket.inet_aton("224.0.0.18") + PEER.packed
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    raw.settimeout(5)
    return raw


def without_pseudo_header(packet: bytes) -> bool:
    return checksum(packet[20:]) == 0


def with_pseudo_header(packet: bytes) -> bool:
    return checksum(packet[12:20] + struct.pack("!BBH", 0, 112, len(packet) - 20) + packet[20:]) == 0


def test_we_follow_the_plain_form_and_answer_in_it(lab: Lab) -> None:
    a = lab.daemon("a", replace(GROUP, priorities={"a": 100, "b": 200}))
    until(lambda: lab.holds("a"), "we become active")
    with lab.net.call("client", vrrp_listener) as listener:
        assert with_pseudo_header(listener.recv(2048))  # nobody was heard yet: as keepalived and FRR
        superior = Advert(51, 200, 10, (IPv4Address(VIP),), PEER, ChecksumForm.PLAIN)

        def follow() -> bool:
            lab.send_raw([encode(superior)])
            return a.state == "backup" and bool(a.roles[-1]["active_address"] == str(PEER))

        until(follow, "we follow the peer")
        assert a.problem == ""
        until(lambda: lab.holds("a"), "we take over when it is silent")
        until(lambda: without_pseudo_header(listener.recv(2048)), "and speak as it did")
    assert not [event for event in a.events if "dropped" in event]
