"""Where floating addresses go, and what is wrong when they cannot."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from lbnode.election.messages import encode_line, group_from, groups_message, role_from, role_message
from lbnode.election.placement import InterfaceAddress, Link, Placement, place
from lbnode.model import Role, VipAddress, VipGroup, VrrpState

LO = Link(1, "lo", bytes(6), running=True)
FRONT = Link(2, "front", bytes.fromhex("020000000001"), running=True)
BACK = Link(3, "back", bytes.fromhex("020000000002"), running=True)
LINKS = {link.index: link for link in (LO, FRONT, BACK)}
PRESENT = [
    InterfaceAddress(2, IPv4Address("192.0.2.2"), 24, ours=False),
    InterfaceAddress(3, IPv4Address("198.51.100.2"), 24, ours=False),
]


def vip(text: str, length: int = 24, interface: str | None = None) -> VipAddress:
    return VipAddress(ip_address(text), length, interface)


GROUP = VipGroup("front", 51, (vip("192.0.2.10"), vip("198.51.100.1")), {"gw1": 250, "gw2": 150})


def where(group: VipGroup = GROUP, present: list[InterfaceAddress] = PRESENT, *, sole: bool = False) -> Placement:
    return place(group, LINKS, present, sole=sole)


def test_addresses_go_where_their_subnet_is_and_are_added_as_host_addresses() -> None:
    placement = where()
    assert [(p.link.name, str(p.address), p.prefix_len) for p in placement.places] == [
        ("front", "192.0.2.10", 32),
        ("back", "198.51.100.1", 32),
    ]
    assert (placement.link, placement.sources, placement.problems) == (FRONT, (IPv4Address("192.0.2.2"),), ())


def test_only_addresses_of_the_vrrp_interface_are_advertised() -> None:
    assert where().advertised == (IPv4Address("192.0.2.10"),)


def test_an_advertisement_is_never_empty() -> None:
    assert where(replace(GROUP, addresses=(vip("198.51.100.1"),), interface="front")).advertised


def test_the_longest_prefix_wins() -> None:
    narrow = InterfaceAddress(3, IPv4Address("192.0.2.9"), 29, ours=False)
    assert where(present=[*PRESENT, narrow]).places[0].link == BACK


def test_a_named_interface_without_the_subnet_keeps_the_configured_prefix() -> None:
    placement = where(replace(GROUP, addresses=(vip("203.0.113.10", 28, "front"),)))
    assert (placement.places[0].link, placement.places[0].prefix_len, placement.problems) == (FRONT, 28, ())


def test_a_floating_address_is_never_the_source_nor_proof_of_a_subnet() -> None:
    claimed = [InterfaceAddress(2, IPv4Address("192.0.2.10"), 24, ours=True)]
    assert "no interface has an on-link prefix" in where(present=claimed).problems[-1]
    named = replace(GROUP, addresses=(vip("192.0.2.10", 24, "front"),))
    placement = where(named, claimed)
    assert placement.link is None
    assert "front has no IPv4 address of its own" in placement.problems[0]


def test_a_sole_member_needs_no_address_beside_the_floating_one() -> None:
    alone = replace(GROUP, addresses=(vip("192.0.2.10", 24, "front"),), priorities={"gw1": 100})
    assert where(alone, [], sole=True).sources == (IPv4Address("192.0.2.10"),)


def test_a_missing_interface_is_named() -> None:
    placement = where(replace(GROUP, interface="frnt"))
    assert (placement.link, placement.problems) == (None, ("no interface frnt",))


def test_an_address_without_a_place_is_reported_and_the_others_stay() -> None:
    placement = where(replace(GROUP, addresses=(*GROUP.addresses, vip("203.0.113.1"), vip("2001:db8::1", 64))))
    assert len(placement.places) == 2 and placement.running
    assert ["203.0.113.1" in placement.problems[0], "2001:db8::1" in placement.problems[1]] == [True, True]


def test_a_link_without_carrier_stops_the_group_also_when_it_is_not_the_vrrp_link() -> None:
    down = {**LINKS, 3: replace(BACK, running=False)}
    placement = place(GROUP, down, PRESENT, sole=False)
    assert not placement.running
    assert placement.problems == ("interface back is down or has no carrier",)


def test_an_address_that_someone_else_configured_is_reported_with_the_command_to_remove_it() -> None:
    foreign = InterfaceAddress(2, IPv4Address("192.0.2.10"), 24, ours=False)
    assert "ip addr del 192.0.2.10/24 dev front" in where(present=[*PRESENT, foreign]).problems[0]


def test_groups_and_roles_survive_the_way_between_the_processes() -> None:
    group = replace(GROUP, addresses=(vip("192.0.2.10", 24, "front"),), preempt=True, interface="front", revision=0)
    (document,) = groups_message([group])["groups"]
    assert group_from(document) == group
    role = Role("front", VrrpState.BACKUP, 150, 1.5, "test", IPv4Address("192.0.2.3"), "none", 7, "gw2", ("gw3",))
    assert role_from(role_message(role)["role"]) == role
    assert encode_line(role_message(role)).endswith(b"}\n")


LINK_LOCAL = InterfaceAddress(2, ip_address("fe80::2"), 64, ours=False)
GLOBAL6 = InterfaceAddress(2, ip_address("2001:db8::2"), 64, ours=False)
BOTH = replace(GROUP, addresses=(vip("2001:db8::10", 64), vip("192.0.2.10"), vip("fe80::10", 64)))


def test_a_group_of_both_families_speaks_in_both_ipv4_first_and_link_local_first() -> None:
    placement = where(BOTH, [GLOBAL6, LINK_LOCAL, *PRESENT])
    assert placement.problems == () and placement.link == FRONT
    assert {str(source): [*map(str, told)] for source, told in placement.speakers.items()} == {
        "192.0.2.2": ["192.0.2.10"],
        "fe80::2": ["fe80::10", "2001:db8::10"],
    }
    assert placement.sources[0].version == 4
    assert {p.prefix_len for p in placement.places} == {32, 128}


def test_without_a_link_local_address_ipv6_is_claimed_but_not_elected() -> None:
    placement = where(BOTH, [GLOBAL6, *PRESENT])
    assert [source.version for source in placement.sources] == [4]
    assert placement.problems == ("interface front has no IPv6 link-local address to send advertisements from",)


def test_a_link_local_vip_follows_the_interface_of_the_group() -> None:
    placement = where(replace(BOTH, addresses=(vip("fe80::10", 64),), interface="back"), [LINK_LOCAL, *PRESENT])
    assert placement.places[0].link == BACK


def test_virtual_macs() -> None:
    """RFC 9568 section 7.3, for each family, on an interface above the one that has the network's route."""
    group = replace(BOTH, addresses=(*BOTH.addresses, vip("203.0.113.10", 24, "back")), virtual_mac=True)
    placement = where(group, [LINK_LOCAL, GLOBAL6, *PRESENT])
    assert {(p.address.version, p.mac.hex(), p.interface) for p in placement.places if p.link == FRONT} == {
        (4, "00005e000133", "vrrp4-51-2"),
        (6, "00005e000233", "vrrp6-51-2"),
    }
    lengths = {p.address.is_link_local: p.prefix_len for p in placement.places if p.address.version == 6}
    assert lengths == {True: 64, False: 128}
    assert [(p.mac, p.interface) for p in placement.places if p.prefix_len == 24] == [(b"", "back")]
    assert "203.0.113.10 has no virtual MAC address: give back an address of its own" in placement.problems[0]
    assert placement.sources == where(replace(group, virtual_mac=False), [LINK_LOCAL, GLOBAL6, *PRESENT]).sources


def test_an_address_that_another_router_advertises_from_is_not_claimed() -> None:
    placement = place(GROUP, LINKS, PRESENT, sole=False, taken={ip_address("192.0.2.10")})
    assert [str(p.address) for p in placement.places] == ["198.51.100.1"]
    assert placement.problems == ("192.0.2.10 is another router's own address, it advertises from it: not claimed",)


def test_a_node_whose_own_address_floats_by_mistake_is_heard_from_it() -> None:
    own = [InterfaceAddress(2, IPv4Address("192.0.2.10"), 24, ours=False)]
    assert where(replace(GROUP, addresses=GROUP.addresses[:1]), own).sources == (IPv4Address("192.0.2.10"),)
