"""The node's interfaces and addresses, as the kernel tells of each change (rtnetlink). Pure.

Who lists them waits for whoever changes links just then, for 60 ms and more. So they are listed once, and again only
when a change was lost; what came while a listing was made is applied to it once more, in its order: each message holds
the whole of what it is about, so the last one is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lbnode.election.placement import InterfaceAddress, Link
from lbnode.model import Address


@dataclass(frozen=True, slots=True)
class Told:
    """An interface or an address as it is now, or one that is not `there` any more. `secondary`: of its IPv4 subnet the
    interface has another address, from which it sends."""

    item: Link | InterfaceAddress
    there: bool = True
    secondary: bool = False


_Key = tuple[int, Address, int]  # interface, address, prefix length: Linux has an address once with each length


class Interfaces:
    """`links`: by index. `outdated`: a change was lost, or nothing is known yet."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self.outdated = True
        self._addresses: dict[_Key, Told] = {}
        self._sorted: list[InterfaceAddress] | None = None
        self._meanwhile: list[Told] | None = None  # since a listing was begun

    @property
    def addresses(self) -> list[InterfaceAddress]:
        """IPv4 first: of an interface the primary ones, oldest first, then the secondary ones. IPv6 by number."""
        if self._sorted is None:
            ordered = sorted(self._addresses.values(), key=_order)
            self._sorted = [told.item for told in ordered if isinstance(told.item, InterfaceAddress)]
        return self._sorted

    def apply(self, changes: Iterable[Told]) -> bool:
        """True if anything is different from before."""
        changes = list(changes)
        if self._meanwhile is not None:
            self._meanwhile += changes
        return sum(self._apply(told) for told in changes) > 0

    def lost(self) -> None:
        """A change was not told of."""
        self.outdated = True

    def begin_listing(self) -> None:
        """Whatever is lost from now on makes another one necessary."""
        self._meanwhile, self.outdated = [], False

    def end_listing(self, found: Iterable[Told] | None) -> None:
        """None: there is no listing, it failed."""
        meanwhile, self._meanwhile = self._meanwhile or [], None
        if found is None:
            self.outdated = True
            return
        self.links, self._addresses = {}, {}
        for told in (*found, *meanwhile):
            self._apply(told)
        self._sorted = None

    @property
    def listing(self) -> bool:
        """One was begun and has not ended."""
        return self._meanwhile is not None

    def _apply(self, told: Told) -> bool:
        item = told.item
        return self._apply_link(item, told.there) if isinstance(item, Link) else self._apply_address(item, told)

    def _apply_link(self, link: Link, there: bool) -> bool:
        before = self.links.pop(link.index, None)
        if there:
            self.links[link.index] = link
            return before != link
        for key in [key for key in self._addresses if key[0] == link.index]:
            del self._addresses[key]
        self._sorted = None
        return before is not None

    def _apply_address(self, entry: InterfaceAddress, told: Told) -> bool:
        key = entry.index, entry.address, entry.prefix_len
        before = self._addresses.get(key)
        if told == before or (before is None and not told.there):
            return False
        self._addresses.pop(key, None)  # one that becomes primary is the last of them
        if told.there:
            self._addresses[key] = told
        self._sorted = None
        return True


def _order(told: Told) -> tuple[int, int, bool, int]:
    entry = told.item
    assert isinstance(entry, InterfaceAddress)
    version = entry.address.version
    return version, entry.index, told.secondary, int(entry.address) if version == 6 else 0
