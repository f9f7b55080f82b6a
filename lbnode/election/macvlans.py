"""The interfaces with the MAC addresses of virtual routers (see virtual_mac): made at a takeover, removed later."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lbnode.election.netlink import Rtnetlink
from lbnode.election.placement import Link, Place
from lbnode.election.virtual_mac import is_ours
from lbnode.errors import DataPlaneError

PROC_SYS_NET = Path("/proc/sys/net")  # of the network namespace of the process that reads it


class Macvlans:
    """`scan` comes before all else. `problems`: by interface, what does not keep it from its work."""

    def __init__(self, netlink: Rtnetlink) -> None:
        self._netlink = netlink
        self._there: dict[str, Link] = {}
        self._unwanted: set[int] = set()  # indexes of those that are still to be removed
        self.problems: dict[str, str] = {}

    def scan(self, links: Iterable[Link]) -> None:
        self._there = {one.name: one for one in links if one.kind == "macvlan" and is_ours(one.name, one.mac)}

    def index_of(self, place: Place) -> int:
        """Of the interface that the address belongs on; 0 = it is not there."""
        if not place.mac:
            return place.link.index
        link = self._there.get(place.interface)
        return link.index if link is not None else 0

    def make_ready(self, place: Place) -> str:
        """Make the interface that the address belongs on, if it is not there, and set it up. Returns a problem: address
        in use, if another program, as keepalived, has this MAC address above the same interface."""
        name = place.interface
        try:
            if name not in self._there:
                index = self._netlink.add_macvlan(place.link.index, name, place.mac)
                self._there[name] = Link(index, name, place.mac, running=False, kind="macvlan")
                self.problems[name] = _speak_alone(place.link.name, name, place.address.version)
            self._unwanted.discard(self._there[name].index)
            self._netlink.set_up(self._there[name].index)
        except (DataPlaneError, OSError) as error:
            return f"no interface for {place.mac.hex(':')} above {place.link.name}: {error}"
        return ""

    def keep_only(self, places: Iterable[Place]) -> None:
        """Have those removed, by `remove_one`, on which none of these addresses belongs."""
        wanted = {place.interface for place in places}
        self._unwanted |= {self._there.pop(name).index for name in self._there.keys() - wanted}

    @property
    def removing(self) -> bool:
        return bool(self._unwanted)

    def remove_one(self) -> None:
        """The kernel takes 20 ms for each (measured on Linux 6.18): between two, advertisements have their turn."""
        if self._unwanted:
            with suppress(DataPlaneError):  # the next scan finds it
                self._netlink.delete_link(self._unwanted.pop())


def _speak_alone(below: str, name: str, version: int) -> str:
    """Let none but the interface with the address tell a neighbour a MAC address for it. Returns a problem."""
    if version == 4:
        settings = {
            f"ipv4/conf/{below}/arp_ignore": "1",
            f"ipv4/conf/{below}/arp_announce": "2",  # replies leave by it: it asks for neighbours in its own name
            f"ipv4/conf/{name}/arp_ignore": "1",
            f"ipv4/conf/{name}/rp_filter": "2",  # loose: requests come by this one
            f"ipv6/conf/{name}/disable_ipv6": "1",
        }
    else:
        settings = {
            f"ipv6/conf/{name}/addr_gen_mode": "1",  # none: every member would have the same link-local address
            f"ipv6/conf/{name}/accept_ra": "0",
            f"ipv6/conf/{name}/disable_ipv6": "0",
            f"ipv4/conf/{name}/arp_ignore": "8",  # not at all
        }
    for key, value in settings.items():
        try:
            (PROC_SYS_NET / key).write_text(value)
        except FileNotFoundError:  # a kernel without IPv6
            continue
        except OSError as error:
            return f"cannot set {key.replace('/', '.')} to {value}: {error.strerror}"
    return ""
