"""The mirror of interfaces and addresses: whatever is told, and whenever it is listed, it ends as the kernel has it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from lbnode.election.interfaces import Interfaces, Told
from lbnode.election.placement import InterfaceAddress, Link

LINKS = [Link(index, f"eth{index}", bytes(6), running) for index in (2, 3) for running in (False, True)]
ADDRESSES = [
    InterfaceAddress(index, ip_address(text), length, ours)
    for index in (2, 3)
    for text, length in (("192.0.2.1", 24), ("192.0.2.9", 24), ("fe80::1", 64))
    for ours in (False, True)
]


def listed(*entries: Told) -> Interfaces:
    mirror = Interfaces()
    assert mirror.outdated
    mirror.begin_listing()
    mirror.end_listing(entries)
    assert not mirror.outdated and not mirror.listing
    return mirror


def told(*, there: bool = True) -> st.SearchStrategy[Told]:
    return st.builds(Told, st.sampled_from([*LINKS, *ADDRESSES]), st.just(value=there) if there else st.booleans())


def state(mirror: Interfaces) -> tuple[object, object]:
    return dict(mirror.links), list(mirror.addresses)


@given(st.lists(told()), st.lists(told(there=False)), st.data())
def test_changes_and_a_listing_at_any_moment_lead_to_the_same(
    first: Sequence[Told], then: Sequence[Told], data: st.DataObject
) -> None:
    """The kernel lists what is so after `seen` of the changes; those since the listing was begun are told, too."""
    truth = listed(*first)
    began = data.draw(st.integers(0, len(then)), "begun")
    seen = data.draw(st.integers(began, len(then)), "seen")
    ended = data.draw(st.integers(seen, len(then)), "ended")
    kernel = listed(*first)
    kernel.apply(then[:seen])
    found = [Told(item) for item in (*kernel.links.values(), *kernel.addresses)]
    mirror = Interfaces()
    mirror.begin_listing()
    mirror.apply(then[began:ended])
    mirror.end_listing(found)
    mirror.apply(then[ended:])
    truth.apply(then)
    assert mirror.links == truth.links
    assert set(mirror.addresses) == set(truth.addresses)


def test_only_what_is_different_is_news() -> None:
    mirror, other = listed(Told(LINKS[1]), Told(ADDRESSES[0])), Told(ADDRESSES[2])
    assert not mirror.apply([Told(LINKS[1]), Told(ADDRESSES[0]), Told(ADDRESSES[2], there=False)])
    assert mirror.apply([Told(LINKS[0])]) and not mirror.links[2].running
    assert mirror.apply([other]) and not mirror.apply([other])
    assert mirror.apply([Told(other.item, there=False)]) and mirror.addresses == [ADDRESSES[0]]


def test_what_goes_with_an_interface() -> None:
    mirror = listed(Told(LINKS[1]), Told(LINKS[3]), *map(Told, ADDRESSES))
    assert mirror.apply([Told(LINKS[1], there=False)])
    assert set(mirror.links) == {3} and {entry.index for entry in mirror.addresses} == {3}


def test_primary_addresses_come_first_and_one_that_becomes_primary_is_the_last_of_them() -> None:
    first, second, other = (
        InterfaceAddress(2, ip_address(text), 24, ours=False) for text in ("192.0.2.1", "192.0.2.2", "198.51.100.1")
    )
    mirror = listed(Told(LINKS[1]), Told(first), Told(second, secondary=True), Told(other))
    assert mirror.addresses == [first, other, second]
    assert mirror.apply([Told(first, there=False), Told(second)])
    assert mirror.addresses == [other, second]


def test_whatever_is_lost_asks_for_a_listing_also_during_one() -> None:
    mirror = listed(Told(LINKS[1]))
    mirror.lost()
    assert mirror.outdated and mirror.links
    mirror.begin_listing()
    mirror.lost()
    mirror.end_listing([])
    assert mirror.outdated
    mirror.begin_listing()
    mirror.end_listing(None)
    assert mirror.outdated, "it failed"
