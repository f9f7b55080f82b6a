"""Does the gateway of the network answer? Asked by ARP and neighbour solicitation, as any host would.

`Gateways` keeps the answers of one group; `Prober` has the sockets of one interface.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

from lbnode.election.neighbour import advertised, answered, probe
from lbnode.election.placement import Link
from lbnode.model import Address

MIN_PERIOD = 100_000_000  # ns between two questions to one gateway
_ETH_P_ARP = 0x0806
_ICMP6_FILTER = 1  # linux/icmpv6.h
_NEIGHBOUR_ADVERTISEMENT = 136
_HOP_LIMIT = 255  # RFC 4861 section 7.1.2
_BATCH = 512


class Gateways:
    """Which gateways of a group have answered lately. Times in ns of one monotonic clock. `ask_at`: when to ask."""

    def __init__(self) -> None:
        self.ask_at = 0
        self._period = MIN_PERIOD
        self._asked_at = 0  # the last question
        self._since: dict[Address, int] = {}  # the first question
        self._heard: dict[Address, tuple[int, bytes]] = {}  # when, and from which MAC

    def configure(self, addresses: Sequence[Address], interval: int, now: int) -> None:
        """Ask them in each advertisement interval, but not too often."""
        self._period = max(MIN_PERIOD, interval)
        self._since = {address: self._since.get(address, now) for address in addresses}

    @property
    def addresses(self) -> Sequence[Address]:
        return tuple(self._since)

    def questions(self, now: int) -> list[tuple[Address, bytes]]:
        """(gateway, MAC to ask) of those to ask now: all of them, by broadcast if the last answer is missing."""
        if not self._since or now < self.ask_at:
            return []
        self.ask_at, self._asked_at = now + self._period, now
        fresh = now - self._period * 3 // 2
        known = {address: mac for address, (at, mac) in self._heard.items() if at > fresh}
        return [(address, known.get(address, b"")) for address in self._since]

    def heard(self, address: Address, mac: bytes, now: int) -> None:
        if address in self._since:
            self._heard[address] = now, mac

    @property
    def patience(self) -> int:
        """ns without an answer after which one that is asked in turn counts as not reachable."""
        return 3 * self._period

    def answer_of(self, address: Address, now: int, within: int) -> bool:
        """It has answered within the last `within` ns."""
        return address in self._heard and now - self._heard[address][0] <= within

    def answers(self, now: int, within: int) -> bool | None:
        """One of them at least does; None: there are none."""
        return any(self.answer_of(address, now, within) for address in self._since) if self._since else None

    def asked_long_enough(self, now: int) -> bool:
        """Each of them has had the time to answer."""
        return all(now - since > self.patience for since in self._since.values())

    def asked_in_vain(self, now: int, interval: int) -> bool:
        """Asked at about the last advertisement but one, and nobody has answered since then."""
        since = now - self._asked_at
        return 3 * interval <= 4 * since <= 8 * interval and not self.answers(now, since)

    def has_lost(self, address: Address, now: int) -> bool:
        """This one is asked in vain."""
        return address in self._since and self._silence(address, now) > self.patience

    def is_lost(self, now: int) -> bool:
        """None has answered for so long that the other nodes, which ask at other times, would know by now as well."""
        return bool(self._since) and all(2 * self._silence(a, now) > 9 * self._period for a in self._since)

    def _silence(self, address: Address, now: int) -> int:
        return now - max(self._since[address], self._heard.get(address, (0, b""))[0])


class Prober:
    """Sends questions and hears answers on one interface. Needs CAP_NET_RAW."""

    def __init__(self, link: Link) -> None:
        self.link = link
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._frames = socket.socket(socket.AF_PACKET, flags, 0)
        self._nd = socket.socket(socket.AF_INET6, flags, socket.IPPROTO_ICMPV6)
        try:
            self._frames.bind((link.name, _ETH_P_ARP))
            self._nd.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode() + b"\0")
            blocked = [0xFFFFFFFF] * 8  # a bit for each ICMPv6 type, 1 = not for us
            blocked[_NEIGHBOUR_ADVERTISEMENT >> 5] &= ~(1 << (_NEIGHBOUR_ADVERTISEMENT & 31))
            self._nd.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
            self._nd.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._frames.close()
        self._nd.close()

    @property
    def sockets(self) -> list[socket.socket]:
        """To be waited for."""
        return [self._frames, self._nd]

    def ask(self, source: Address, target: Address, mac: bytes) -> None:
        """Who has `target`? To `mac`, or to all when it is empty. A question that cannot be sent gets no answer."""
        frame = probe(self.link.mac, source, target)
        try:
            self._frames.sendto((mac or frame[:6]) + frame[6:], (self.link.name, 0))
        except OSError:
            return

    def answers(self) -> Iterator[tuple[Address, bytes]]:
        """(address, MAC) of those that have answered, up to a batch; the MAC is empty where it is not told."""
        for _ in range(_BATCH):
            try:
                told = answered(self._frames.recv(2048))
            except OSError:
                break
            if told is not None and isinstance(told[0], IPv4Address) and told[1] != self.link.mac:
                yield told
        for _ in range(_BATCH):
            try:
                message, ancillary, _, _ = self._nd.recvmsg(2048, 64)
            except OSError:
                return
            target = advertised(message)
            if target is not None and any(data[:4] == struct.pack("=i", _HOP_LIMIT) for _, _, data in ancillary):
                yield target, b""
