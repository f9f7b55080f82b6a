"""The election process: `python -m lbnode.election.driver --fd N --node NAME`, started by the supervisor.

One thread, one select loop, no asyncio: what it does between hearing an advertisement and acting on a timer must be
short and in this order. select() takes microseconds, so it is the timer too. It imports no store, no web, no
pydantic; real-time priority, locked memory and a frozen heap keep an advertisement from being late.

Its parent is a JSON-lines socket (see messages). When that closes, or on SIGTERM, it leaves: groups with other members
are released (addresses off, then priority 0); a sole member's addresses stay, so that the pinned data plane goes on
forwarding and the next process adopts them.
"""

from __future__ import annotations

import argparse
import select
import signal
import socket
import sys
import time
from collections import Counter
from typing import Protocol

from lbnode.election import messages
from lbnode.election.machine import Announce, Changed, Claim, Event, Lease, Machine, Send, Withdraw
from lbnode.election.member import Member
from lbnode.election.netlink import open_monitor
from lbnode.election.packet import Reason, Rejected, vrid_of
from lbnode.election.parent import Parent
from lbnode.election.placement import Placement, place
from lbnode.election.realtime import become_realtime
from lbnode.election.sockets import VrrpSocket
from lbnode.election.vip import Vips
from lbnode.errors import DataPlaneError
from lbnode.model import VipGroup, VrrpState

SCAN_PAUSE = 50_000_000  # ns between two listings of interfaces, however many notifications come
RETRY_SCAN = 1_000_000_000  # ns until the next look when something is amiss that netlink will not tell about
REPORT_DROPS_EVERY = 10_000_000_000  # ns between two reports of dropped packets of one kind


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class LeaseTable(Protocol):
    """The kernel's side of the leases, which ends them when this process cannot."""

    def set(self, group: VipGroup, until: int) -> None:
        """Serve the group's addresses until `until` (ns of CLOCK_BOOTTIME; 0 = stop now). Called with each
        advertisement: a few microseconds, never blocking; OSError when the kernel refuses."""


def now_ns() -> int:
    """CLOCK_BOOTTIME: monotonic, and it goes on while the machine is suspended. bpf_ktime_get_boot_ns() is the same."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Driver:
    def __init__(self, parent: socket.socket, node: str, lease: LeaseTable | None = None) -> None:
        self._parent = Parent(parent)
        self._node = node
        self._lease = lease
        self._members: dict[str, Member] = {}
        self._sockets: dict[int, VrrpSocket] = {}  # by interface index
        self._vips = Vips()
        self._monitor = open_monitor()
        self._configured = False
        self._scan_at: int | None = None
        self._scanned_at = 0
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._drop_reported_at: dict[tuple[str, str], int] = {}
        self._unreported_drops: dict[tuple[str, str], str] = {}
        self._leave_reason = ""

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self, wake: socket.socket) -> None:
        """Serve until the parent goes or `wake` becomes readable (a signal came), then leave the election."""
        try:
            while not self._leave_reason:
                self._round(wake)
        finally:
            self.leave(self._leave_reason or "the election process failed")

    def _round(self, wake: socket.socket) -> None:
        readers: list[HasFileno] = [self._parent, self._monitor, wake, *self._sockets.values()]
        writers = [self._parent] if self._parent.unsent else []
        ready, _, _ = select.select(readers, writers, [], self._timeout())
        if wake in ready:
            self._leave_reason = "stopped by a signal"
            return
        if self._parent in ready:
            self._read_parent()
        if self._parent.gone:
            self._leave_reason = "lbnoded has died"
            return
        if self._monitor in ready:
            self._drain_monitor()
        if self._scan_at is not None and now_ns() >= self._scan_at:
            self._scan()
        self._hear()  # whatever woke us: what was heard counts before any timer
        now = now_ns()
        for member in self._members.values():
            if member.machine is not None:
                timer = member.machine.get_timer()
                if timer is not None and timer <= now:
                    member.machine.handle_timer(now)
                    self._perform(member)
        self._report()

    def _timeout(self) -> float | None:
        """Seconds until the next thing to do by the clock."""
        times = [member.machine.get_timer() for member in self._members.values() if member.machine is not None]
        due = min((at for at in (*times, self._scan_at) if at is not None), default=None)
        return None if due is None else max(0, due - now_ns()) / 1e9

    def _hear(self) -> None:
        for vrrp in self._sockets.values():
            for packet in vrrp.receive():
                vrid = vrid_of(packet)
                member = self._member_for(vrrp.link.index, vrid)
                if member is None:
                    continue  # another virtual router on this network, none of our business
                assert member.machine is not None
                try:
                    member.machine.receive_datagram(packet, now_ns())
                except Rejected as error:
                    self._count_drop(vrrp.link.name, error)
                    continue
                self._perform(member)

    def _member_for(self, index: int, vrid: int | None) -> Member | None:
        here = [
            member
            for member in self._members.values()
            if member.machine is not None and member.placement.link is not None and member.placement.link.index == index
        ]
        for member in here:
            if member.group.vrid == vrid:
                return member
        return here[0] if here and vrid is None else None  # too short to say for whom: any may count it

    def _perform(self, member: Member) -> None:
        assert member.machine is not None
        while (event := member.machine.next_event()) is not None:
            self._perform_event(member, event)

    def _perform_event(self, member: Member, event: Event) -> None:
        match event:
            case Send(datagram):
                self._send(member, datagram)
            case Lease(until):
                self._set_lease(member, until)
            case Claim():
                self._claim(member)
            case Withdraw():
                member.other_problems = tuple(self._vips.withdraw(member.addresses))
            case Announce(count):
                self._vips.announce(member.placement.places, count)
            case Changed(state, reason):
                member.since, member.reason = time.time(), reason
                if state is not VrrpState.ACTIVE:
                    member.send_problem = ""

    def _claim(self, member: Member) -> bool:
        """True if an address was missing and is there now."""
        added, problems = self._vips.claim(member.placement.places)
        member.other_problems = tuple(problems)
        return bool(added)

    def _send(self, member: Member, datagram: bytes) -> None:
        link, source = member.placement.link, member.placement.source
        vrrp = self._sockets.get(link.index) if link else None
        if vrrp is None or source is None:
            return
        try:
            vrrp.send(datagram, source)
        except OSError as error:
            member.send_problem = f"cannot send advertisements on {vrrp.link.name}: {error.strerror}"
        else:
            member.send_problem = ""

    def _set_lease(self, member: Member, until: int) -> None:
        """An advertisement that could not be sent extends nothing: the peers did not hear it either."""
        if self._lease is None or (until and member.send_problem and member.peers):
            return
        try:
            self._lease.set(member.group, until)
        except OSError as error:
            member.other_problems = (f"cannot set the lease of the addresses: {error.strerror}",)

    # --- interfaces and configuration -----------------------------------------------------------------------

    def _drain_monitor(self) -> None:
        try:
            while True:
                self._monitor.recv(1 << 16)
        except BlockingIOError:
            pass
        except OSError:  # overflow: all the more reason to look
            pass
        self._scan_at = min(self._scan_at or 1 << 62, self._scanned_at + SCAN_PAUSE)

    def _scan(self) -> None:
        """Look at the interfaces and make every group fit to them: start, stop, restore, remove what is left over."""
        self._scanned_at, self._scan_at = now_ns(), None
        try:
            self._vips.scan()
        except DataPlaneError as error:
            self.warn(f"cannot list interfaces, trying again: {error}")
            self._scan_at = self._scanned_at + RETRY_SCAN
            return
        for member in self._members.values():
            self._fit(member)
        if self._configured:
            self._vips.keep_only(
                {
                    (place.link.index, place.address)
                    for member in self._members.values()
                    if member.active
                    for place in member.placement.places
                }
            )
        needed = {member.placement.link.index for member in self._members.values() if member.placement.link}
        for index in self._sockets.keys() - needed:
            self._sockets.pop(index).close()

    def _fit(self, member: Member) -> None:
        was_running = member.placement.running
        placement = place(member.group, self._vips.links, self._vips.present, sole=not member.peers)
        clash = self._clash(member, placement)
        able = placement.link is not None and (placement.running or not member.peers) and not clash
        moved = (
            member.started
            and placement.link != member.placement.link
            and (
                placement.link is None
                or member.placement.link is None
                or placement.link.index != member.placement.link.index
            )
        )
        if member.machine is not None and member.started and (not able or moved):
            problem = "; ".join((*placement.problems, clash)) or "its interface changed"
            member.machine.stop(now_ns(), problem.strip("; "))
            self._perform(member)
        member.placement = placement
        member.other_problems = (clash,) if clash else ()
        if not able or not self._open_socket(member):
            return
        now = now_ns()
        if member.machine is None or not member.started:
            member.machine = Machine(member.router())
            member.machine.start(now)
        elif member.machine.router != member.router():
            member.machine.reconfigure(member.router(), now)
        if member.active and (self._claim(member) or (placement.running and not was_running)):
            member.machine.announce(now)
        self._perform(member)

    def _clash(self, member: Member, placement: Placement) -> str:
        for other in self._members.values():
            if other.name == member.name:
                break
            link = other.placement.link
            same_link = link is not None and placement.link is not None and link.index == placement.link.index
            if same_link and other.group.vrid == member.group.vrid:
                return f"VRID {member.group.vrid} is used by VIP group {other.name} on the same interface"
        return ""

    def _open_socket(self, member: Member) -> bool:
        link = member.placement.link
        assert link is not None
        if link.index not in self._sockets:
            try:
                self._sockets[link.index] = VrrpSocket(link)
            except OSError as error:
                member.other_problems = (f"cannot open the VRRP socket on {link.name}: {error.strerror}",)
                self._scan_at = self._scanned_at + RETRY_SCAN
                return False
        return True

    def _set_groups(self, groups: list[VipGroup]) -> None:
        self._configured = True
        wanted = {group.name: group for group in groups if self._node in group.priorities}
        for name in self._members.keys() - wanted.keys():
            self._stop(self._members.pop(name), "removed from the configuration")
        for name, group in wanted.items():
            member = self._members.get(name)
            if member is None:
                self._members[name] = Member(group, self._node)
                continue
            if member.group.vrid != group.vrid:
                self._stop(member, f"the VRID changed to {group.vrid}")
            member.reconfigure(group, self._node)
        self._scan_at = now_ns()

    def _stop(self, member: Member, reason: str) -> None:
        if member.machine is not None:
            member.machine.stop(now_ns(), reason)
            self._perform(member)

    def leave(self, reason: str) -> None:
        """Release the groups that have other members; what a sole member holds stays."""
        for member in self._members.values():
            if member.peers:
                self._stop(member, reason)
        self._report()

    # --- the parent -----------------------------------------------------------------------------------------

    def _read_parent(self) -> None:
        for message in self._parent.read():
            if "groups" in message:
                self._set_groups([messages.group_from(document) for document in message["groups"]])
            elif "handover" in message:
                member = self._members.get(message["handover"])
                if member is not None and member.machine is not None:
                    member.machine.handover(now_ns())
                    self._perform(member)

    def _report(self) -> None:
        """Tell the daemon each role that changed; all of them when it had missed some."""
        everything, self._parent.lost = self._parent.lost and not self._parent.unsent, False
        for member in self._members.values():
            role = member.role()
            if role != member.reported or everything:
                member.reported = role
                self._parent.tell(messages.role_message(role))
        if self._unreported_drops:
            self._report_drops()
        self._parent.flush()

    def _count_drop(self, interface: str, error: Rejected) -> None:
        if error.reason is not Reason.VRID:
            key = (interface, str(error.reason))
            self._dropped[key] += 1
            self._unreported_drops[key] = str(error)

    def _report_drops(self) -> None:
        """At most one report per interface and reason in REPORT_DROPS_EVERY, with the total so far."""
        now = now_ns()
        for key, message in list(self._unreported_drops.items()):
            if now - self._drop_reported_at.get(key, -REPORT_DROPS_EVERY) >= REPORT_DROPS_EVERY:
                self._drop_reported_at[key] = now
                del self._unreported_drops[key]
                interface, reason = key
                count = self._dropped[key]
                self._parent.tell(
                    {"dropped": {"interface": interface, "reason": reason, "count": count, "message": message}}
                )

    def warn(self, text: str) -> None:
        """Have the daemon put it into the journal."""
        self._parent.tell({"warning": text})


def main() -> int:
    parser = argparse.ArgumentParser(description="lbnode election process (started by lbnoded)")
    parser.add_argument("--fd", type=int, required=True, help="socket to the daemon")
    parser.add_argument("--node", required=True, help="name of this node")
    arguments = parser.parse_args()
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    for ignored in (signal.SIGINT, signal.SIGHUP):  # of the terminal: the daemon decides
        signal.signal(ignored, signal.SIG_IGN)
    driver = Driver(socket.socket(fileno=arguments.fd), arguments.node)
    if problem := become_realtime():
        driver.warn(problem)
    driver.run(wake)
    return 0


if __name__ == "__main__":
    sys.exit(main())
