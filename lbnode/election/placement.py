"""Where the addresses of a VIP group go on this node, given its interfaces and addresses. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from lbnode.model import VipAddress, VipGroup


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `running`: administratively up and with carrier."""

    index: int
    name: str
    mac: bytes
    running: bool


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An IPv4 address on an interface. `ours`: it bears the mark of the election, so an election put it there."""

    index: int  # of the interface
    address: IPv4Address
    prefix_len: int
    ours: bool

    @property
    def network(self) -> IPv4Network:
        return IPv4Network((self.address, self.prefix_len), strict=False)


@dataclass(frozen=True, slots=True)
class Place:
    """One floating address and the interface it belongs on."""

    link: Link
    address: IPv4Address
    prefix_len: int


@dataclass(frozen=True, slots=True)
class Placement:
    """`link` is the interface VRRP runs on and `source` our address there; both None: we cannot take part.

    `running` is False when an interface that the group needs has no carrier: a peer should hold the group then.
    """

    link: Link | None
    source: IPv4Address | None
    places: tuple[Place, ...]
    running: bool
    problems: tuple[str, ...]

    @property
    def advertised(self) -> tuple[IPv4Address, ...]:
        """Addresses for the advertisement: those on the VRRP interface (never none: RFC 9568 wants one at least)."""
        on_link = tuple(place.address for place in self.places if place.link == self.link)
        return on_link or tuple(place.address for place in self.places[:1])


def place(
    group: VipGroup, links: Mapping[int, Link], present: Collection[InterfaceAddress], *, sole: bool
) -> Placement:
    """Find interface and prefix length for each address of the group, and the VRRP interface with our address on it.

    An address within the on-link prefix of its interface is added as /32: as /24 it would either be a second source of
    the subnet's route or vanish together with the interface's own address. Elsewhere the configured length holds.
    """
    by_name = {link.name: link for link in links.values()}
    floating = {vip.address for vip in group.addresses}
    own = [entry for entry in present if not entry.ours and entry.address not in floating and entry.index in links]
    places: list[Place] = []
    problems: list[str] = []
    for vip in group.addresses:
        if not isinstance(vip.address, IPv4Address):
            problems.append(f"{vip.address}: IPv6 addresses are not supported in VIP groups yet")
            continue
        link = by_name.get(vip.interface) if vip.interface else _on_link(vip.address, own, links)
        if link is None:
            problems.append(_no_place(vip))
            continue
        covered = any(entry.index == link.index and vip.address in entry.network for entry in own)
        places.append(Place(link, vip.address, 32 if covered else vip.prefix_len))
        if any(e.address == vip.address and e.index == link.index and not e.ours for e in present):
            problems.append(
                f"{vip.address} was put on {link.name} by someone else and answers in every state: "
                f"ip addr del {vip.address}/{vip.prefix_len} dev {link.name}"
            )
    vrrp = by_name.get(group.interface) if group.interface else (places[0].link if places else None)
    if vrrp is None or not places:
        wanted = f"no interface {group.interface}" if group.interface else "no interface for VRRP"
        return Placement(None, None, tuple(places), False, (*([] if vrrp else [wanted]), *problems))
    source = _source(vrrp, own, [place.address for place in places])
    if source is None and sole:
        source = places[0].address  # nobody listens
    if source is None:
        problems.append(f"interface {vrrp.name} has no IPv4 address of its own to send advertisements from")
        return Placement(None, None, tuple(places), False, tuple(problems))
    stopped = sorted({link.name for link in (vrrp, *(place.link for place in places)) if not link.running})
    problems += [f"interface {name} is down or has no carrier" for name in stopped]
    return Placement(vrrp, source, tuple(places), not stopped, tuple(problems))


def _on_link(address: IPv4Address, own: Iterable[InterfaceAddress], links: Mapping[int, Link]) -> Link | None:
    """The interface with the longest on-link prefix that holds the address."""
    holding = [entry for entry in own if address in entry.network and entry.prefix_len < 32]
    return links[max(holding, key=lambda entry: entry.prefix_len).index] if holding else None


def _source(link: Link, own: Iterable[InterfaceAddress], floating: Collection[IPv4Address]) -> IPv4Address | None:
    """Our address on the interface, preferably in a subnet of the group's addresses; the first is the primary one."""
    candidates = [entry for entry in own if entry.index == link.index]
    near = [entry for entry in candidates if any(address in entry.network for address in floating)]
    return next((entry.address for entry in (*near, *candidates)), None)


def _no_place(vip: VipAddress) -> str:
    if vip.interface:
        return f"{vip.address}: no interface {vip.interface}"
    return f"{vip.address}: no interface has an on-link prefix that holds it; name one in the group's addresses"
