"""The floating addresses on this node: put on interfaces, taken off, announced by gratuitous ARP and unsolicited NA."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from lbnode.election.interfaces import Interfaces, Told
from lbnode.election.macvlans import Macvlans
from lbnode.election.neighbour import announcement
from lbnode.election.netlink import Rtnetlink
from lbnode.election.placement import InterfaceAddress, Link, Place
from lbnode.election.worker import Worker
from lbnode.errors import DataPlaneError
from lbnode.model import Address

# A thousand addresses announced at once would overflow queues on the way; 64 frames each millisecond do not, and reach
# the last of a thousand within 16 ms.
BURST = 64
BURST_PAUSE = 1_000_000  # ns
# The kernel takes up to 0.2 ms to add an IPv6 address. Between two portions the advertisements have their turn.
CLAIMS = 16


class Vips:
    """What the node's interfaces have of them. Adding and announcing go in portions, see `pump`.

    To set up an interface, add addresses and take them off waits for the kernel's lock of links, whoever has it: these
    are the takeover and the release themselves. Everything else that needs it is left to the worker.
    """

    def __init__(self) -> None:
        self._netlink, self._slow = Rtnetlink(), Rtnetlink()
        self.worker = Worker()
        self.interfaces = Interfaces()
        self.macvlans = Macvlans(self._netlink, self._slow, self.worker)
        self._packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        self._packet.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)
        self._problems: dict[Address, str] = {}
        self._kept: tuple[Place, ...] = ()  # with interfaces of their own
        self._claiming: deque[Place] = deque()
        self._announcing: deque[Place] = deque()  # each once more
        self._burst_at = 0

    def close(self) -> None:
        self.worker.close()
        self._netlink.close()
        self._slow.close()
        self._packet.close()

    @property
    def links(self) -> Mapping[int, Link]:
        return self.interfaces.links

    @property
    def present(self) -> Sequence[InterfaceAddress]:
        return self.interfaces.addresses

    def scan(self) -> None:
        """List the interfaces and wait for it. DataPlaneError."""
        self.interfaces.begin_listing()
        found = None
        try:
            found = self._netlink.listing()
        finally:
            self._end_listing(found)

    def scan_later(self) -> None:
        """The same, without waiting: done when the worker is; `interfaces.outdated` then if it failed."""

        def listed() -> list[Told] | None:
            try:
                return self._slow.listing()
            except DataPlaneError:
                return None

        self.interfaces.begin_listing()
        self.worker.submit(listed, self._end_listing)

    def _end_listing(self, found: list[Told] | None) -> None:
        self.interfaces.end_listing(found)
        self.macvlans.scan(self.links.values())

    def apply(self, changes: Iterable[Told]) -> bool:
        """What the kernel tells of. True if it is news."""
        news = self.interfaces.apply(changes)
        if news:
            self.macvlans.scan(self.links.values())
        return news

    def problems_of(self, addresses: Collection[Address]) -> list[str]:
        """What could not be added or taken off, and what is wrong with their interfaces."""
        found = [problem for address, problem in self._problems.items() if address in addresses]
        found += [self.macvlans.problem_of(place) for place in self._kept if place.address in addresses]
        return list(dict.fromkeys(filter(None, found)))

    def claim(self, places: Collection[Place], now: int) -> bool:
        """Add the addresses that are missing, the first few at once. True if any was missing: also one that cannot be
        added yet."""
        above = {place.interface: place for place in places if not self.macvlans.is_up(place)}
        late = {name for name, place in above.items() if not self.macvlans.set_up(place)}
        there = {(entry.index, entry.address) for entry in self.present}
        there |= {(self.macvlans.index_of(place), place.address) for place in self._claiming}
        missing = [place for place in places if (self.macvlans.index_of(place), place.address) not in there]
        self._claiming.extend(place for place in missing if place.interface not in late)
        self.pump(now)
        return bool(missing)

    def withdraw(self, addresses: Collection[Address]) -> list[str]:
        """Take our marks of these addresses off every interface, all at once. Returns problems."""
        self._claiming = deque(place for place in self._claiming if place.address not in addresses)
        self._announcing = deque(place for place in self._announcing if place.address not in addresses)
        return self._delete([entry for entry in self.present if entry.ours and entry.address in addresses])

    def keep(self, places: Collection[Place], held: Collection[Place]) -> None:
        """Take off every address of ours that is not where one of those that are `held` belongs. Of interfaces keep
        those of all places, as a Backup needs them."""
        wanted = {(self.macvlans.index_of(place), place.address) for place in held}
        self._delete([e for e in self.present if e.ours and (e.index, e.address) not in wanted])
        self._kept = tuple(place for place in places if place.mac)
        self.macvlans.keep(places, held)

    def _delete(self, entries: Sequence[InterfaceAddress]) -> list[str]:
        problems = self._netlink.delete_addresses(entries)
        for entry, problem in zip(entries, problems, strict=True):
            self._note(entry.address, problem)
        gone = [entry for entry, problem in zip(entries, problems, strict=True) if not problem]
        self.interfaces.apply(Told(entry, there=False) for entry in gone)
        return [problem for problem in problems if problem]

    def _note(self, address: Address, problem: str) -> None:
        self._problems.pop(address, None)
        if problem:
            self._problems[address] = problem

    def announce(self, places: Collection[Place], count: int, now: int) -> None:
        """Announce each address `count` times, all of them one after the other.

        Announcements have no acknowledgement; losses are made good by the machine's next round.
        """
        # A tunnel or loopback has no neighbours.
        reachable = [place for place in places if len(place.link.mac) == 6 and any(place.link.mac)]
        addresses = {place.address for place in reachable}
        self._announcing = deque(place for place in self._announcing if place.address not in addresses)
        self._announcing.extend(reachable * count)
        self.pump(now)

    # --- portions ---------------------------------------------------------------------------------------------

    @property
    def claiming(self) -> bool:
        """Addresses are still to be added: what the kernel tells of them is no news."""
        return bool(self._claiming)

    @property
    def pump_at(self) -> int | None:
        """When to call `pump` next; None: there is nothing to do."""
        if self._claiming:
            return 0
        return self._burst_at if self._announcing else None

    def pump(self, now: int) -> None:
        """Do the next portion that is due: addresses first, so that none is announced before it is there."""
        if self._claiming:
            self._claim_some()
        elif self._announcing and now >= self._burst_at:
            self._burst_at = now + BURST_PAUSE
            self._send([self._announcing.popleft() for _ in range(min(BURST, len(self._announcing)))])

    def _claim_some(self) -> None:
        places = [self._claiming.popleft() for _ in range(min(CLAIMS, len(self._claiming)))]
        wanted = [
            InterfaceAddress(self.macvlans.index_of(place), place.address, place.prefix_len, ours=True)
            for place in places
        ]
        problems = self._netlink.add_addresses(wanted)
        for entry, place, problem in zip(wanted, places, problems, strict=True):
            self._note(place.address, f"{place.interface}: {problem}" if problem else "")
            self.interfaces.apply([Told(entry, there=not problem)])
        if self._claiming:
            self._send(places)  # the rest takes a while, these are usable now

    def send(self, frame: bytes, interface: str) -> None:
        """A whole Ethernet frame. OSError."""
        self._packet.sendto(frame, (interface, 0))

    def _send(self, places: Iterable[Place]) -> None:
        for place in places:
            try:
                self.send(announcement(place.mac or place.link.mac, place.address), place.interface)
            except OSError:  # the interface is going, has no neighbours, or its queue is full
                continue


def fence(addresses: Collection[Address]) -> list[str]:
    """Take marked addresses off this node without an election process: its supervisor's answer to its death."""
    vips = Vips()
    try:
        vips.scan()
        return vips.withdraw(addresses)
    finally:
        vips.close()
