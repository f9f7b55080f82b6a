"""The floating addresses on this node: put on interfaces, taken off, announced by gratuitous ARP and unsolicited NA."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Collection, Iterable

from lbnode.election.neighbour import announcement
from lbnode.election.netlink import Rtnetlink
from lbnode.election.placement import InterfaceAddress, Link, Place
from lbnode.errors import DataPlaneError
from lbnode.model import Address

# A thousand addresses announced at once would overflow queues on the way; 64 frames each millisecond do not, and reach
# the last of a thousand within 16 ms.
BURST = 64
BURST_PAUSE = 1_000_000  # ns


class Vips:
    """Mirrors the kernel's links and addresses (`scan`) so that claim and withdraw cost one message per address."""

    def __init__(self) -> None:
        self._netlink = Rtnetlink()
        self._packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        self.links: dict[int, Link] = {}
        self.present: list[InterfaceAddress] = []
        self._waiting: deque[Place] = deque()  # to be announced, each once more
        self._burst_at = 0

    def close(self) -> None:
        self._netlink.close()
        self._packet.close()

    def scan(self) -> None:
        self.links = self._netlink.links()
        self.present = self._netlink.addresses()

    def claim(self, places: Iterable[Place]) -> tuple[list[Place], list[str]]:
        """Add the addresses that are missing. Returns (added, problems)."""
        there = {(entry.index, entry.address) for entry in self.present}
        added, problems = [], []
        for place in places:
            if (place.link.index, place.address) in there:
                continue
            try:
                self._netlink.add_address(place.link.index, place.address, place.prefix_len)
            except DataPlaneError as error:
                problems.append(f"{place.link.name}: {error}")
                continue
            self.present.append(InterfaceAddress(place.link.index, place.address, place.prefix_len, ours=True))
            added.append(place)
        return added, problems

    def withdraw(self, addresses: Collection[Address]) -> list[str]:
        """Take our marks of these addresses off every interface. Returns problems."""
        self._waiting = deque(place for place in self._waiting if place.address not in addresses)
        return self._delete([entry for entry in self.present if entry.ours and entry.address in addresses])

    def keep_only(self, wanted: Collection[tuple[int, Address]]) -> list[str]:
        """Take off every address of ours that is not among the wanted (interface index, address)."""
        return self._delete([e for e in self.present if e.ours and (e.index, e.address) not in wanted])

    def _delete(self, entries: Collection[InterfaceAddress]) -> list[str]:
        problems, gone = [], set()
        for entry in entries:
            try:
                self._netlink.delete_address(entry.index, entry.address, entry.prefix_len)
            except DataPlaneError as error:
                problems.append(str(error))
                continue
            gone.add(entry)
        self.present = [entry for entry in self.present if entry not in gone]
        return problems

    # --- announcements: they have no acknowledgement, losses are made good by the next round ---

    def announce(self, places: Collection[Place], count: int, now: int) -> None:
        """Announce each address `count` times: one round of all of them after the other, paced."""
        # A tunnel or loopback has no neighbours.
        reachable = [place for place in places if len(place.link.mac) == 6 and any(place.link.mac)]
        addresses = {place.address for place in reachable}
        self._waiting = deque(place for place in self._waiting if place.address not in addresses)
        self._waiting.extend(reachable * count)
        self.pump(now)

    @property
    def pump_at(self) -> int | None:
        """When to call `pump` next; None: nothing waits."""
        return self._burst_at if self._waiting else None

    def pump(self, now: int) -> None:
        """Send the next burst when it is due."""
        if not self._waiting or now < self._burst_at:
            return
        self._burst_at = now + BURST_PAUSE
        for _ in range(min(BURST, len(self._waiting))):
            place = self._waiting.popleft()
            try:
                self._packet.sendto(announcement(place.link.mac, place.address), (place.link.name, 0))
            except OSError:  # the interface is going, or its queue is full
                continue


def fence(addresses: Collection[Address]) -> list[str]:
    """Take marked addresses off this node without an election process: its supervisor's answer to its death."""
    vips = Vips()
    try:
        vips.scan()
        return vips.withdraw(addresses)
    finally:
        vips.close()
