"""Lists of prefixes as entries of a longest-prefix-match map: whole, read back, and never denying during a change."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.xdp.access import entries, lists, steps
from lbnode.dataplane.xdp.layout import AccessKind, PrefixKey, unpack_prefix_service
from lbnode.model import Access, Network

BASE = {4: ip_address("203.0.113.0"), 6: ip_address("2001:db8::")}
families = st.sampled_from([4, 6])


def networks(family: int) -> st.SearchStrategy[Network]:
    bits = BASE[family].max_prefixlen
    lengths = st.sampled_from([0, *range(bits - 3, bits + 1)])
    return st.builds(
        lambda last, length: ip_network((int(BASE[family]) + last, length), strict=False), st.integers(0, 7), lengths
    )


@st.composite
def accesses(draw: st.DrawFn, family: int) -> Access:
    allow = draw(st.frozensets(networks(family), max_size=4))
    return Access(allow, draw(st.frozensets(networks(family), max_size=4)) - allow)


@st.composite
def changes(draw: st.DrawFn) -> tuple[int, Access, Access]:
    family = draw(families)
    return family, draw(accesses(family)), draw(accesses(family))


def may(access: Access, client: IPv4Address | IPv6Address) -> bool:
    known = [(one.prefixlen, True) for one in access.allow if client in one]
    known += [(one.prefixlen, False) for one in access.deny if client in one]
    return max(known)[1] if known else not access.allow


def by_map(found: Mapping[bytes, AccessKind], client: IPv4Address | IPv6Address) -> bool:
    """What the program finds: the longest key whose bits are the client's, compared as the kernel does."""
    packed = PrefixKey(7, ip_network(client)).pack()[4:]
    best = max(
        (key for key in found if _same_bits(key[4:], packed, int.from_bytes(key[:4], "little"))),
        key=lambda key: int.from_bytes(key[:4], "little"),
        default=None,
    )
    return best is None or found[best] is AccessKind.ALLOW


def _same_bits(one: bytes, other: bytes, length: int) -> bool:
    shift = len(one) * 8 - length
    return int.from_bytes(one, "big") >> shift == int.from_bytes(other, "big") >> shift


@given(changes())
def test_the_entries_decide_as_the_lists_and_no_step_denies_whom_both_allow(change: tuple[int, Access, Access]) -> None:
    family, old, new = change
    clients = [BASE[family] + last for last in range(9)]
    found = {PrefixKey(7, key).pack(): kind for key, kind in entries(old, family).items()}
    assert [by_map(found, one) for one in clients] == [may(old, one) for one in clients]
    always = [one for one in clients if may(old, one) and may(new, one)]
    for key, kind in steps(entries(old, family), entries(new, family)):
        if kind is None:
            del found[PrefixKey(7, key).pack()]
        else:
            found[PrefixKey(7, key).pack()] = kind
        assert all(by_map(found, one) for one in always), (key, kind)
    assert found == {PrefixKey(7, key).pack(): kind for key, kind in entries(new, family).items()}


@given(st.data())
def test_lists_and_keys_read_back(data: st.DataObject) -> None:
    family = data.draw(families)
    access = data.draw(accesses(family))
    found = entries(access, family)
    assert lists(found) == access
    for key in found:
        packed = PrefixKey(7, key).pack()
        assert PrefixKey.unpack(packed, family) == PrefixKey(7, key) and unpack_prefix_service(packed) == 7
