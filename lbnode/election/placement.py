"""Where the addresses of a VIP group go on this node, given its interfaces and addresses. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network

from lbnode.election.packet import MAX_LISTED
from lbnode.election.virtual_mac import mac_of, name_of
from lbnode.model import Address, VipAddress, VipGroup


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `running`: administratively up and with carrier; `up`: the former at least. `kind`:
    "macvlan", "veth", ...; empty for hardware."""

    index: int
    name: str
    mac: bytes
    running: bool
    kind: str = ""
    up: bool = True


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address on an interface. `ours`: it bears the mark of the election, so an election put it there."""

    index: int  # of the interface
    address: Address
    prefix_len: int
    ours: bool

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network((self.address, self.prefix_len), strict=False)


@dataclass(frozen=True, slots=True)
class Place:
    """One floating address and the interface it belongs on. `mac`: that of the virtual router, if the address belongs
    on an interface of its own above `link` (see virtual_mac), else empty."""

    link: Link
    address: Address
    prefix_len: int
    mac: bytes = b""

    @property
    def interface(self) -> str:
        """Its name."""
        return name_of(self.mac, self.link.index) if self.mac else self.link.name


@dataclass(frozen=True, slots=True)
class Placement:
    """`link` is the interface VRRP runs on; None: we cannot take part. `speakers`: for each family in which the group
    is elected, IPv4 first, our address there and what we advertise from it; empty without a link.

    `running` is False when an interface that the group needs has no carrier: a peer should hold the group then.
    """

    link: Link | None
    speakers: Mapping[Address, tuple[Address, ...]]
    places: tuple[Place, ...]
    running: bool
    problems: tuple[str, ...]

    @property
    def sources(self) -> tuple[Address, ...]:
        return tuple(self.speakers)

    @property
    def advertised(self) -> tuple[Address, ...]:
        return tuple(address for addresses in self.speakers.values() for address in addresses)


NOWHERE = Placement(None, {}, (), False, ())


def place(
    group: VipGroup,
    links: Mapping[int, Link],
    present: Collection[InterfaceAddress],
    *,
    sole: bool,
    taken: Collection[Address] = (),
) -> Placement:
    """Find interface and prefix length for each address of the group, and the VRRP interface with our address on it.

    An address within the on-link prefix of its interface is added as /32 or /128: as /24 it would either be a second
    source of the subnet's route or vanish together with the interface's own address. Elsewhere the configured length
    holds. An IPv6 link-local address is on-link everywhere, so it follows the group's interface.

    `taken`: addresses from which other routers advertise; they are theirs and are not claimed. So that they can be
    heard, an address that floats by mistake, since it is a node's own, is the node's source if it has no better one.
    """
    by_name = {link.name: link for link in links.values()}
    floating = {vip.address for vip in group.addresses}
    static = [entry for entry in present if not entry.ours and entry.index in links]
    own = [_Own(entry, entry.network) for entry in sorted(static, key=lambda entry: entry.address in floating)]
    occupied = {(entry.index, entry.address) for entry in static}
    found: dict[VipAddress, Link | None] = {}
    for vip in sorted(group.addresses, key=lambda vip: vip.address.is_link_local and vip.interface is None):
        if vip.interface or (vip.address.is_link_local and group.interface):
            found[vip] = by_name.get(vip.interface or group.interface or "")
        elif vip.address.is_link_local and vip.address.version == 6:
            found[vip] = next((link for link in found.values() if link), None)
        else:
            found[vip] = _on_link(vip.address, own, links)
    places: list[Place] = []
    problems: list[str] = []
    for vip in group.addresses:
        link = found[vip]
        if vip.address in taken:
            problems.append(f"{vip.address} is another router's own address, it advertises from it: not claimed")
            continue
        if link is None:
            problems.append(_no_place(vip))
            continue
        covered = any(one.entry.index == link.index and vip.address in one.network for one in own)
        place = Place(link, vip.address, vip.address.max_prefixlen if covered else vip.prefix_len)
        places.append(_with_virtual_mac(place, vip, group.vrid) if group.virtual_mac else place)
        if (link.index, vip.address) in occupied:
            problems.append(
                f"{vip.address} was put on {link.name} by someone else and answers in every state: "
                f"ip addr del {vip.address}/{vip.prefix_len} dev {link.name}"
            )
    problems += _without_virtual_mac(places) if group.virtual_mac else []
    vrrp = by_name.get(group.interface) if group.interface else (places[0].link if places else None)
    if vrrp is None or not places:
        wanted = f"no interface {group.interface}" if group.interface else "no interface for VRRP"
        return Placement(None, {}, tuple(places), False, (*([] if vrrp else [wanted]), *problems))
    speakers: dict[Address, tuple[Address, ...]] = {}
    for addresses in _by_family([place.address for place in places if place.link == vrrp] or [places[0].address]):
        source = _source(vrrp, own, addresses)
        if source is None and sole:
            source = addresses[0]  # nobody listens
        if source is None:
            kind = "IPv4 address of its own" if addresses[0].version == 4 else "IPv6 link-local address"
            problems.append(f"interface {vrrp.name} has no {kind} to send advertisements from")
        else:
            speakers[source] = tuple(addresses[: MAX_LISTED[source.version]])
    if not speakers:
        return Placement(None, {}, tuple(places), False, tuple(problems))
    stopped = sorted({link.name for link in (vrrp, *(place.link for place in places)) if not link.running})
    problems += [f"interface {name} is down or has no carrier" for name in stopped]
    return Placement(vrrp, speakers, tuple(places), not stopped, tuple(problems))


def _with_virtual_mac(place: Place, vip: VipAddress, vrid: int) -> Place:
    """The route to its network stays with the interface below. But link-local addresses need one on each interface."""
    if not any(place.link.mac):  # as `lo`
        return place
    if vip.address.is_link_local and vip.address.version == 6:
        place = replace(place, prefix_len=64)
    elif place.prefix_len < vip.address.max_prefixlen:
        return place
    return replace(place, mac=mac_of(vrid, vip.address.version))


def _without_virtual_mac(places: Iterable[Place]) -> list[str]:
    return [
        f"{place.address} has no virtual MAC address: give {place.link.name} an address of its own in that network"
        for place in places
        if any(place.link.mac) and not place.mac
    ]


def _by_family(addresses: list[Address]) -> list[list[Address]]:
    """IPv4 before IPv6; of the latter the link-local ones first (RFC 9568 section 5.2.9)."""
    ordered = sorted(addresses, key=lambda address: not address.is_link_local)
    families = [[a for a in (addresses if version == 4 else ordered) if a.version == version] for version in (4, 6)]
    return [family for family in families if family]


@dataclass(frozen=True, slots=True)
class _Own:
    entry: InterfaceAddress
    network: IPv4Network | IPv6Network  # of the entry, made once


def _on_link(address: Address, own: Iterable[_Own], links: Mapping[int, Link]) -> Link | None:
    """The interface with the longest on-link prefix that holds the address."""
    holding = [o.entry for o in own if o.entry.prefix_len < address.max_prefixlen and address in o.network]
    return links[max(holding, key=lambda entry: entry.prefix_len).index] if holding else None


def _source(link: Link, own: Iterable[_Own], floating: Collection[Address]) -> Address | None:
    """Our address on the interface. IPv4: preferably in a subnet of the group's addresses; the first is the primary
    one. IPv6: the link-local one (RFC 9568 section 5.1.2.1)."""
    version = next(iter(floating)).version
    candidates = [one for one in own if one.entry.index == link.index and one.entry.address.version == version]
    if version == 6:
        return next((one.entry.address for one in candidates if one.entry.address.is_link_local), None)
    near = [one for one in candidates if any(address in one.network for address in floating)]
    return next((one.entry.address for one in (*near, *candidates)), None)


def _no_place(vip: VipAddress) -> str:
    if vip.interface:
        return f"{vip.address}: no interface {vip.interface}"
    return f"{vip.address}: no interface has an on-link prefix that holds it; name one in the group's addresses"
