"""The document of a VIP group: what it takes, what it refuses and in which words, what comes out."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from pydantic import ValidationError

from lbnode.config import build
from lbnode.config.vip_group_document import VipGroupDocument
from lbnode.election.messages import group_from, groups_message
from lbnode.model import Track, VipGroup

PLAIN: dict[str, Any] = {"vrid": 51, "addresses": ["192.0.2.10/24"], "priorities": {"gw1": 250, "gw2": 150}}


def group(**fields: Any) -> VipGroup:
    return build.vip_group("front", VipGroupDocument.model_validate({**PLAIN, **fields}), 7)


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        VipGroupDocument.model_validate({**PLAIN, **fields})
    return str(caught.value)


def test_both_families_may_be_in_one_group() -> None:
    made = group(addresses=["192.0.2.10/24", "fe80::10/64 dev front", "2001:db8::10/64"])
    assert [vip.address.version for vip in made.addresses] == [4, 6, 6]


def test_local_addresses_are_some_of_the_groups() -> None:
    made = group(addresses=["192.0.2.10/24", "198.51.100.1/24", "2001:db8::1/64"], local_addresses=["198.51.100.1"])
    assert made.local_addresses == (ip_address("198.51.100.1"),)


def test_everything_arrives_in_the_election_process() -> None:
    made = group(
        preempt=True,
        preempt_delay=30,
        startup_delay=1.5,
        checksum="rfc9568",
        unicast_peers=["192.0.2.2", "fe80::2"],
        authentication="permissive",
        virtual_mac=True,
        policy="consistency",
        track=[
            {"gateway": "192.0.2.254"},
            {"interface": "eth1", "weight": 50},
            {"dataplane": True},
            {"sync": True, "weight": 10},
            {"service": "tcp:192.0.2.10:80", "share": 0.3},
            {"script": "uplink", "interval": 2},
            {"file": "/run/serve"},
        ],
    )
    assert made.unicast_peers == (ip_address("192.0.2.2"), ip_address("fe80::2"))
    assert made.track[4] == Track("service", "tcp:192.0.2.10:80", None, 0.3)
    assert (made.track[5].interval_s, made.preempt_delay_s, made.startup_delay_s) == (2.0, 30, 1.5)
    (document,) = groups_message([made])["groups"]
    arrived = group_from(document)
    assert [str(track) for track in arrived.track] == [str(track) for track in made.track]
    for name in ("unicast_peers", "authentication", "virtual_mac", "policy", "checksum", "version", "preempt_delay_s"):
        assert getattr(arrived, name) == getattr(made, name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"local_addresses": ["192.0.2.11"]}, "192.0.2.11 is none of the group's addresses"),
        ({"local_addresses": ["192.0.2.10/24"]}, "'192.0.2.10/24' does not appear to be"),
        ({"local_addresses": "192.0.2.10"}, "is not a list of addresses"),
        ({"local_addresses": ["192.0.2.10", "192.0.2.10"]}, "the same address twice"),
        ({"version": 2}, "version 2 with an interval of less than a second"),
        ({"version": 2, "advert_interval": 1.0, "addresses": ["2001:db8::1/64"]}, "version 2 with IPv6 addresses"),
        ({"unicast_peers": ["gw2"]}, "'gw2' does not appear to be an IPv4 or IPv6 address"),
        ({"track": [{"gateway": "router"}]}, "gateway: 'router' does not appear to be"),
        ({"track": [{"file": "/a", "script": "b"}]}, "2 things to track in one entry"),
        ({"track": [{"weight": 5}]}, "0 things to track in one entry"),
        ({"track": [{"file": "serve"}]}, "'serve' does not begin with /"),
        ({"track": [{"script": "/bin/sh"}]}, "'/bin/sh' is not the name of a file"),
        ({"priorities": {"gw1": 255}}, "less than or equal to 254"),
        ({"virtual_mac": "yes"}, "virtual_mac"),
        ({"advert_interval": 0.005}, "greater than or equal to 0.01"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(**fields)
