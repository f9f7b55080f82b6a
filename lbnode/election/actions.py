"""Does what a group's machine says: sends, claims, withdraws, announces, and extends the lease."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

from lbnode.election.dual import DualPath
from lbnode.election.events import Announce, Changed, Claim, Event, Lease, Send, Withdraw
from lbnode.election.gateway import Prober
from lbnode.election.lease import Leases
from lbnode.election.member import Member
from lbnode.election.messages import Setup
from lbnode.election.packet import Advert
from lbnode.election.placement import Link
from lbnode.election.sockets import VrrpSocket
from lbnode.election.vip import Vips
from lbnode.election.virtual_mac import frame
from lbnode.model import VrrpState


def now_ns() -> int:
    """CLOCK_BOOTTIME: monotonic, and it goes on while the machine is suspended. bpf_ktime_get_boot_ns() is the same."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Actions:
    def __init__(self, leases: Leases) -> None:
        self.vips = Vips()
        self.sockets: dict[tuple[int, int], VrrpSocket] = {}  # by interface index and IP version
        self.dual = DualPath(Setup(), "")
        self.probers: dict[int, Prober] = {}  # by interface index
        self._leases = leases

    def more_sockets(self) -> list[socket.socket]:
        """To be waited for, beside those of VRRP."""
        return [*self.dual.sockets, *(one for prober in self.probers.values() for one in prober.sockets)]

    def perform(self, member: Member) -> None:
        assert member.machine is not None
        while (event := member.machine.next_event()) is not None:
            self._perform_event(member, event)

    def _perform_event(self, member: Member, event: Event) -> None:
        match event:
            case Send(advert=advert):
                self._send(member, advert)
            case Lease(until):
                self._set_lease(member, until)
            case Claim():
                self.vips.claim(member.placement.places, now_ns())
            case Withdraw():
                self.vips.withdraw(member.addresses)
            case Announce(count):
                self.vips.announce(member.placement.places, count, now_ns())
            case Changed(state, reason):
                member.since, member.reason = time.time(), reason
                if state is not VrrpState.ACTIVE:
                    member.send_problem = ""

    def _send(self, member: Member, advert: Advert) -> None:
        """In every family and to every peer; one that cannot be reached does not keep it from the others."""
        link = member.placement.link
        assert link is not None
        problem, sent = "", False
        if member.active and member.looks_for_rivals:
            self._ask_who_else(member, link)
        for outgoing in member.endpoint.datagrams(advert, time.time_ns()):
            vrrp = self.sockets.get((link.index, outgoing.source.version))
            if vrrp is None:
                continue
            try:
                if member.group.virtual_mac and outgoing.destination.is_multicast:
                    self.vips.send(frame(outgoing, member.group.vrid), link.name)
                else:
                    vrrp.send(outgoing)
                sent = True
            except OSError as error:
                problem = f"cannot send advertisements to {outgoing.destination} on {link.name}: {error.strerror}"
        if member.conversations:
            sent = self.beat(member, member.endpoint.copy) or sent
        member.send_problem, member.was_sent = problem, sent
        if member.machine is not None and member.machine.due:
            member.lateness.note(max(0, now_ns() - member.machine.due))
            member.machine.due = 0

    def _ask_who_else(self, member: Member, link: Link) -> None:
        """Who has the group's first address of each family? Before the advertisement: whoever yields to that does not
        answer any more."""
        prober = self.probers.get(link.index)
        for source, addresses in member.placement.speakers.items():
            if prober is not None and addresses:
                prober.ask(source, addresses[0], b"")

    def beat(self, member: Member, message: bytes = b"") -> bool:
        """A heartbeat now, and the next one an interval later. True if it carries `message` and could be sent."""
        now = now_ns()
        member.beat_at = now + member.interval
        return self.dual.send(member, message, now) and bool(message)

    def _set_lease(self, member: Member, until: int) -> None:
        """An advertisement that could not be sent extends nothing: the peers did not hear it either."""
        if not (until and member.peers and not member.was_sent):
            self._leases.set(member.group, until)

    def ask_gateways(self, member: Member, now: int) -> None:
        """Those that are due, on the interface and from the address that VRRP uses."""
        link = member.placement.link
        prober = self.probers.get(link.index) if link else None
        for address, mac in member.gateways.questions(now):  # also while there is no prober: their time has passed
            source = next((s for s in member.placement.sources if s.version == address.version), None)
            if prober is not None and source is not None:
                prober.ask(source, address, mac)

    # --- sockets ----------------------------------------------------------------------------------------------

    def open_sockets(self, member: Member) -> bool:
        """False if they cannot be had; the member's problem says why."""
        link = member.placement.link
        assert link is not None
        for version in {source.version for source in member.placement.sources}:
            if (link.index, version) not in self.sockets:
                try:
                    self.sockets[link.index, version] = VrrpSocket(link, version)
                except OSError as error:
                    problem = f"cannot open the VRRP socket for IPv{version} on {link.name}: {error.strerror}"
                    member.other_problems = (problem,)
                    return False
        if member.needs_prober and link.index not in self.probers:
            try:
                self.probers[link.index] = Prober(link)
            except OSError as error:
                member.other_problems = (f"cannot open sockets for ARP and ND on {link.name}: {error.strerror}",)
                return False
        return True

    def close_sockets(self, members: Iterable[Member]) -> None:
        """All that these members do not need."""
        placed = [(m, m.placement.link.index) for m in members if m.placement.link is not None]
        for key in self.sockets.keys() - {(at, source.version) for m, at in placed for source in m.placement.sources}:
            self.sockets.pop(key).close()
        for index in self.probers.keys() - {at for member, at in placed if member.needs_prober}:
            self.probers.pop(index).close()
