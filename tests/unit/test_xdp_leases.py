"""Which group has which lease: one for each, the same as long as nothing of the group changes, also after a restart."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.leases import Leases
from lbnode.dataplane.xdp.maps import Map
from lbnode.model import Address


class FakeMap:
    """A map as a dictionary."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.content.items())

    def put(self, key: bytes, value: bytes) -> None:
        self.content[key] = value

    def delete(self, key: bytes) -> bool:
        return self.content.pop(key, None) is not None

    def put_index(self, index: int, value: bytes) -> None:
        self.content[struct.pack("=I", index)] = value


# Each address is in the group of that number, 0 = in none.
Assignment = Mapping[int, int]
assignments = st.dictionaries(st.integers(1, 6), st.integers(0, 4))


def groups_of(assignment: Assignment) -> dict[str, set[Address]]:
    groups: dict[str, set[Address]] = {}
    for address, group in assignment.items():
        if group:
            groups.setdefault(f"g{group}", set()).add(IPv4Address(address))
    return groups


@given(st.lists(assignments, max_size=6), st.booleans())
def test_leases_follow_the_groups(history: list[Assignment], restart: bool) -> None:
    maps = {"leases": FakeMap(), "leased": FakeMap()}
    leases = Leases(cast(Mapping[str, Map], maps))
    before: dict[str, set[Address]] = {}
    for assignment in history:
        known = dict(leases.groups)
        if restart:
            leases = Leases(cast(Mapping[str, Map], maps))
        groups = groups_of(assignment)
        changed = leases.set_groups(groups)
        assert leases.groups.keys() == groups.keys()
        assert len({*leases.groups.values()}) == len(groups) and 0 not in leases.groups.values()
        assert {layout.unpack_address(key): struct.unpack("=I", value)[0] for key, value in maps["leased"].items()} == {
            address: leases.groups[name] for name, addresses in groups.items() for address in addresses
        }
        for name, addresses in groups.items():
            if addresses == before.get(name):  # whatever became of the others
                assert leases.groups[name] == known[name]
                assert not changed & addresses
        assert leases.set_groups(groups) == set()
        before = groups
