"""The floating addresses on this node: put on interfaces, taken off, announced by gratuitous ARP."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address

from lbnode.election.netlink import Rtnetlink
from lbnode.election.packet import gratuitous_arp
from lbnode.election.placement import InterfaceAddress, Link, Place
from lbnode.errors import DataPlaneError


class Vips:
    """Mirrors the kernel's links and addresses (`scan`) so that claim and withdraw cost one message per address."""

    def __init__(self) -> None:
        self._netlink = Rtnetlink()
        self._arp = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
        self.links: dict[int, Link] = {}
        self.present: list[InterfaceAddress] = []

    def close(self) -> None:
        self._netlink.close()
        self._arp.close()

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

    def withdraw(self, addresses: Collection[IPv4Address]) -> list[str]:
        """Take our marks of these addresses off every interface. Returns problems."""
        return self._delete([entry for entry in self.present if entry.ours and entry.address in addresses])

    def keep_only(self, wanted: Collection[tuple[int, IPv4Address]]) -> list[str]:
        """Take off every address of ours that is not among the wanted (interface index, address)."""
        return self._delete([e for e in self.present if e.ours and (e.index, e.address) not in wanted])

    def _delete(self, entries: Iterable[InterfaceAddress]) -> list[str]:
        problems = []
        for entry in entries:
            try:
                self._netlink.delete_address(entry.index, entry.address)
            except DataPlaneError as error:
                problems.append(str(error))
                continue
            self.present.remove(entry)
        return problems

    def announce(self, places: Iterable[Place], count: int) -> None:
        """Send `count` gratuitous ARPs for each address. Losses are made good by the next round."""
        for place in places:
            if len(place.link.mac) != 6 or not any(place.link.mac):  # tunnel, loopback: no ARP there
                continue
            frame = gratuitous_arp(place.link.mac, place.address)
            for _ in range(count):
                try:
                    self._arp.sendto(frame, (place.link.name, 0))
                except OSError:
                    break


def fence(addresses: Collection[IPv4Address]) -> list[str]:
    """Take marked addresses off this node without an election process: its supervisor's answer to its death."""
    vips = Vips()
    try:
        vips.scan()
        return vips.withdraw(addresses)
    finally:
        vips.close()
