"""Lists of prefixes, as entries of map `prefixes`; and the order in which one list becomes another. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv6Network

from lbnode.dataplane.xdp.layout import AccessKind
from lbnode.model import Access, Network

Entries = Mapping[Network | None, AccessKind]  # None: all of an IPv4 service
EVERYBODY = {
    4: None,
    6: IPv6Network("::/0"),
}  # what covers all of a service; IPv4's 0.0.0.0/0 is longer in the mapped form


def entries(access: Access, family: int) -> Entries:
    """Of a service of this family. Without `allow`, whom no entry covers may connect."""
    found: dict[Network | None, AccessKind] = dict.fromkeys(access.allow, AccessKind.ALLOW)
    found |= dict.fromkeys(access.deny, AccessKind.DENY)
    if access.allow:
        found.setdefault(EVERYBODY[family], AccessKind.OTHERS)
    return found


def lists(found: Entries) -> Access:
    """What `entries` reverses."""
    kinds = {
        kind: frozenset(key for key, one in found.items() if one is kind and key is not None) for kind in AccessKind
    }
    return Access(kinds[AccessKind.ALLOW], kinds[AccessKind.DENY])


def steps(old: Entries, new: Entries) -> Iterator[tuple[Network | None, AccessKind | None]]:
    """Single changes (None: delete) from old to new, at no moment of which a client is denied whom both allow.

    First everything that allows more is put, then what denied is taken away; now whoever shall be allowed is, by the
    new entries alone, so that what allowed can go and what denies can come.
    """
    for key, kind in new.items():
        if kind is AccessKind.ALLOW and old.get(key) is not kind:
            yield key, kind
    for key, kind in old.items():
        if kind is not AccessKind.ALLOW and key not in new:
            yield key, None
    for key, kind in old.items():
        if kind is AccessKind.ALLOW and key not in new:
            yield key, None
    for key, kind in new.items():
        if kind is not AccessKind.ALLOW and old.get(key) is not kind:
            yield key, kind
