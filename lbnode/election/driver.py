"""The election process: `python -m lbnode.election.driver --fd N --node NAME`, started by the supervisor.

One select loop, no asyncio: what it does between hearing an advertisement and acting on a timer must be short and in
this order; a thread waits where the kernel is slow (see worker). select() takes microseconds, so it is the timer too.
It imports no store, no web, no pydantic; real-time priority, locked memory and a frozen heap keep an advertisement from
being late.

Its parent is a JSON-lines socket (see messages). When told so, or on SIGTERM, it leaves: groups with other members are
released (addresses off, then priority 0); a sole member's addresses stay, so that the pinned data plane goes on
forwarding and the next process adopts them. When the socket closes without a word, lbnoded has died: the process goes
on for a while (see patience), so that a restarted daemon's process takes over from it (see succession) without an
election.
"""

from __future__ import annotations

import argparse
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from lbnode.election import messages
from lbnode.election.actions import Actions, now_ns
from lbnode.election.ears import Ears
from lbnode.election.groups import Groups
from lbnode.election.lease import Leases
from lbnode.election.member import Member
from lbnode.election.netlink import open_monitor, told_by
from lbnode.election.parent import Parent
from lbnode.election.patience import Patience
from lbnode.election.realtime import become_realtime
from lbnode.election.succession import Succession
from lbnode.errors import DataPlaneError
from lbnode.model import VrrpState

FIGURES_EVERY = 5_000_000_000  # ns
MONITOR_BATCH = 256  # datagrams that are read before advertisements have their turn


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Driver:
    def __init__(self, parent: socket.socket, node: str, leases: Leases, socket_path: str) -> None:
        self._parent = Parent(parent)
        self._socket_path = socket_path
        self._node = node
        self._members: dict[str, Member] = {}
        self._leases = leases
        self._actions = Actions(leases)
        self._vips = self._actions.vips
        self._ears = Ears(node, self._members, self._actions)
        self._groups = Groups(node, self._members, self._actions, self._ears.taken, self.warn)
        self._monitor = open_monitor()  # before the listing: what changes during that is told
        with suppress(DataPlaneError):  # else the worker tries again
            self._vips.scan()
        self._figures_at = 0
        self._leave_reason = ""
        self._succession = Succession()
        self._patience: Patience | None = None  # since lbnoded has died
        self._abdicated = False

    # --- the loop ---------------------------------------------------------------------------------------------

    def run(self, wake: socket.socket) -> None:
        """Serve until told to leave, `wake` becomes readable (a signal came), or another process takes over."""
        self._parent.tell({"ready": True})
        try:
            while not self._leave_reason and not self._abdicated:
                self._round(wake)
        finally:
            if not self._abdicated:
                self.leave(self._leave_reason or "the election process failed")

    def _round(self, wake: socket.socket) -> None:
        parent = [] if self._parent.gone else [self._parent]
        readers: list[HasFileno] = [*parent, self._monitor, self._vips.worker, wake, *self._actions.sockets.values()]
        readers += self._actions.more_sockets()
        readers += self._succession.sockets if self._parent.gone else []
        writers = [self._parent] if parent and self._parent.unsent else []
        ready, _, _ = select.select(readers, writers, [], self._timeout())
        if wake in ready:
            self._leave_reason = "stopped by a signal"
            return
        if self._parent in ready:
            self._read_parent()
        if self._parent.gone and not self._wait_for_heir():
            return
        if worked := self._vips.worker.collect():
            self._groups.scan_after_work()
        if worked or self._monitor in ready:  # what it did is told by now
            self._drain_monitor()
        if self._groups.is_due():
            self._groups.scan()
        if self._ears.hear():  # whatever woke us: what was heard counts before any timer
            self._groups.scan_at = now_ns()
        now = now_ns()
        self._vips.pump(now)
        for member in self._members.values():
            self._serve_timers(member, now)
        self._report()

    def _serve_timers(self, member: Member, now: int) -> None:
        machine = member.machine
        if machine is None or not member.started:
            return
        if (ahead := machine.ask_at) is not None and ahead <= now and member.asked_for != ahead:
            member.asked_for, member.gateways.ask_at = ahead, 0
            if member.ownership.wants_to_ask(ahead, now, refused=bool(machine.refused)):
                within = member.interval * 3 / 4 / 1e9  # before the timer fires
                self._parent.tell({"ask": {"group": member.name, "within": within}})
        if member.group.track and member.weigh(self._vips.links.values(), now):
            self._groups.scan_at = now
        if member.regains_contact(now):
            machine.announce(now)
            self._actions.perform(member)
        own = member.ownership
        if member.active and 0 < machine.epoch < own.epoch != member.claimed_after and member.outdated_owner(now):
            member.claimed_after = own.epoch
            self._parent.tell({"claim": member.name})
        timer = machine.get_timer()
        if timer is not None and timer <= now:
            if member.active and (reason := member.gives_up(now)):
                machine.fence(now, reason)
            else:
                machine.handle_timer(now, "" if member.active else member.refuses_takeover(now))
            self._actions.perform(member)
        if member.question and member.vouches(now):
            self._parent.tell({"alive": {"group": member.name, "question": member.question}})
            member.question = ""
        if member.conversations and member.beat_at <= now:
            self._actions.beat(member)
        self._actions.ask_gateways(member, now)

    def _wait_for_heir(self) -> bool:
        """lbnoded has died. False: do not go on, another process takes over or nobody came for too long."""
        if self._succession.asked():
            self._succession.answer({member.name: member.held() for member in self._members.values() if member.active})
            self._abdicated = True
            return False
        now = now_ns()
        self._patience = self._patience or Patience(now)
        if self._succession.heard:
            self._patience.heard(now)
        if not self._groups.configured:
            self._leave_reason = "lbnoded has died"
        elif now >= self._patience.ends:
            self._leave_reason = self._patience.why(now)
        return not self._leave_reason

    def _timeout(self) -> float | None:
        """Seconds until the next thing to do by the clock."""
        times = [member.machine.get_timer() for member in self._members.values() if member.machine is not None]
        started = [member for member in self._members.values() if member.started]
        times += [m.machine.ask_at for m in started if m.machine is not None and m.machine.ask_at != m.asked_for]
        times += [member.beat_at for member in started if member.conversations]
        times += [member.gateways.ask_at for member in started if member.gateways.addresses]
        others = (self._groups.scan_at, self._vips.pump_at, self._patience.ends if self._patience else None)
        due = min((at for at in (*times, *others) if at is not None), default=None)
        return None if due is None else max(0, due - now_ns()) / 1e9

    def _drain_monitor(self) -> None:
        news = False
        for _ in range(MONITOR_BATCH):
            try:
                news = self._vips.apply(told_by(self._monitor.recv(1 << 16))) or news
            except BlockingIOError:
                break
            except OSError:  # overflow
                self._vips.interfaces.lost()
        if news or self._vips.interfaces.outdated:
            self._groups.scan_soon()

    def leave(self, reason: str) -> None:
        self._groups.leave(reason)
        self._report()

    # --- the parent -----------------------------------------------------------------------------------------

    def _read_parent(self) -> None:
        for message in self._parent.read():
            if "setup" in message:
                self._groups.setup = messages.setup_from(message["setup"])
            elif self._told_by_store(message):
                continue
            elif "leave" in message:
                self._leave_reason = "lbnoded stops"
            elif "groups" in message:
                self._leases.configure(message["leases"])
                self._groups.maintenance = message.get("maintenance", False)
                self._groups.held.update(message.get("held", {}))
                self._be_found()
                self._groups.configure([messages.group_from(document) for document in message["groups"]])
            elif "handover" in message:
                self._hand_over(message["handover"], message.get("to", ""))
            elif "failing" in message:
                for name, member in self._members.items():
                    member.failing = message["failing"].get(name, {})
                self._groups.scan_at = now_ns()

    def _hand_over(self, group: str, to: str) -> None:
        member = self._members.get(group)
        if member is not None and member.machine is not None:
            if to and member.active:
                self._actions.dual.send(member, b"", now_ns(), to)
            member.machine.handover(now_ns())
            self._actions.perform(member)

    def _told_by_store(self, message: dict[str, Any]) -> bool:
        """False if the message is about something else."""
        match message:
            case {"store": bool(answers)}:
                self._groups.store = answers
                for member in self._members.values():
                    member.ownership.store = answers
            case {"owner": {"group": group, "node": node, "epoch": epoch}} if group in self._members:
                member = self._members[group]
                member.ownership.name(node, epoch, now_ns())
                if member.active and member.machine is not None and node == self._node:
                    member.machine.epoch = epoch
            case {"answer": {"group": group, "node": node, "alive": alive}} if group in self._members:
                self._members[group].ownership.answer(node, alive, now_ns())
            case {"question": {"group": group, "question": question}} if group in self._members:
                member = self._members[group]
                if member.active:
                    member.question, member.questioned_at, member.gateways.ask_at = question, now_ns(), 0
            case _:
                return not message.keys().isdisjoint({"store", "owner", "answer", "question"})
        return True

    def _be_found(self) -> None:
        """By the next daemon, from when on there is something to take over."""
        try:
            self._succession.listen(self._socket_path)
        except OSError as error:
            self.warn(f"cannot listen at {self._socket_path}: {error.strerror}; a restart of lbnoded will move VIPs")

    def _report(self) -> None:
        """Tell the daemon each role that changed; all of them when it had missed some."""
        everything, self._parent.lost = self._parent.lost and not self._parent.unsent, False
        for member in self._members.values():
            role = member.role(self._vips.problems_of(member.addresses), now_ns())
            if role != member.reported or everything:
                moved = getattr(member.reported, "state", None) is not role.state
                took_over = moved and role.state is VrrpState.ACTIVE
                if moved:  # interfaces may be kept for another purpose now
                    self._groups.scan_soon()
                member.reported = role
                self._parent.tell(messages.role_message(role))
                if took_over and member.ownership.store is not None:
                    self._parent.tell({"claim": member.name})
        if now_ns() >= self._figures_at:
            self._figures_at = now_ns() + FIGURES_EVERY
            figures = [asdict(member.lateness.figures(member.name)) for member in self._members.values()]
            self._parent.tell({"figures": figures})
        for report in self._ears.drops.reports(now_ns()):
            self._parent.tell(report)
        self._parent.flush()

    def tell_realtime(self, problem: str) -> None:
        """What of it could not be had; "" = nothing."""
        self._parent.tell({"realtime": problem})

    def warn(self, text: str) -> None:
        """Have the daemon put it into the journal."""
        self._parent.tell({"warning": text})


def main() -> int:
    parser = argparse.ArgumentParser(description="lbnode election process (started by lbnoded)")
    parser.add_argument("--fd", type=int, required=True, help="socket to the daemon")
    parser.add_argument("--node", required=True, help="name of this node")
    parser.add_argument("--socket", required=True, help="where the next daemon finds this process")
    parser.add_argument("--lease-map", type=int, help="descriptor of the data plane's leases, if it has any")
    arguments = parser.parse_args()
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    for ignored in (signal.SIGINT, signal.SIGHUP):  # of the terminal: the daemon decides
        signal.signal(ignored, signal.SIG_IGN)
    parent = socket.socket(fileno=arguments.fd)
    driver = Driver(parent, arguments.node, Leases(arguments.lease_map), arguments.socket)
    driver.tell_realtime(become_realtime())
    driver.run(wake)
    return 0


if __name__ == "__main__":
    sys.exit(main())
