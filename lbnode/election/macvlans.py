"""The interfaces with the MAC addresses of virtual routers (see virtual_mac).

Every member has them, so that a takeover only sets them up: to make one takes the kernel 50 to 90 ms, to set one down
or remove it 20 to 60. A Backup's is down: it must not accept frames to that MAC address (RFC 9568 section 6.4.2).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from lbnode.election.netlink import Rtnetlink
from lbnode.election.placement import Link, Place
from lbnode.election.virtual_mac import is_ours
from lbnode.election.worker import Worker
from lbnode.errors import DataPlaneError

PROC_SYS_NET = Path("/proc/sys/net")  # of the network namespace of the thread that reads it


class Macvlans:
    """`scan` comes before all else. `failed`: a job did, and is to be tried again.

    Each interface has one job at a time. `keep` finds out what is to be done, and is called again after each.
    """

    def __init__(self, netlink: Rtnetlink, slow: Rtnetlink, worker: Worker) -> None:
        """`slow`: for the worker alone, in the same network namespace."""
        self._netlink, self._slow, self._worker = netlink, slow, worker
        self._there: dict[str, Link] = {}
        self._lock = threading.Lock()  # of the two below
        self._jobs: dict[str, object] = {}  # by interface
        self._going = ""  # the interface that is being worked on
        self._refusals: dict[str, str] = {}  # by interface: what keeps it from its work
        self._defects: dict[str, str] = {}  # what does not
        self.failed = False

    def scan(self, links: Iterable[Link]) -> None:
        self._there = {one.name: one for one in links if one.kind == "macvlan" and is_ours(one.name, one.mac)}

    def index_of(self, place: Place) -> int:
        """Of the interface that the address belongs on; 0 = it is not there."""
        if not place.mac:
            return place.link.index
        link = self._there.get(place.interface)
        return link.index if link is not None else 0

    def is_up(self, place: Place) -> bool:
        """Whether its address can be there, as far as that is for us to say."""
        link = self._there.get(place.interface)
        return not place.mac or (link is not None and link.up)

    def problem_of(self, place: Place) -> str:
        """Of its interface; "" = none."""
        return self._refusals.get(place.interface) or self._defects.get(place.interface, "")

    def set_up(self, place: Place) -> bool:
        """Set up the interface that the address belongs on. False: not now, since it is being worked on, or there is a
        problem. "Address in use": another program, as keepalived, has this MAC address above the same interface."""
        name = place.interface
        with self._lock:
            if name == self._going or name not in self._there:
                return False
            self._jobs.pop(name, None)  # called off
        try:
            self._netlink.set_up(self._there[name].index)
        except (DataPlaneError, OSError) as error:
            self._refusals[name] = f"no interface for {place.mac.hex(':')} above {place.link.name}: {error}"
            return False
        self._refusals.pop(name, None)
        self._there[name] = replace(self._there[name], up=True)
        return True

    def keep(self, places: Iterable[Place], held: Iterable[Place]) -> None:
        """Have one for each of the places, down where they are not held, and no other, without waiting for it."""
        wanted = {place.interface: place for place in places if place.mac}
        served = {place.interface for place in held}
        for problems in (self._refusals, self._defects):
            for name in problems.keys() - wanted.keys():
                del problems[name]
        for name, link in self._there.items():
            if name not in wanted:
                self._ask(name, partial(self._slow.delete_link, link.index))
            elif link.up and name not in served:
                self._ask(name, partial(self._slow.set_down, link.index))
        for name in wanted.keys() - self._there.keys():
            self._ask(name, partial(self._make, wanted[name]))

    def _ask(self, name: str, do: Callable[[], None]) -> None:
        """Have the worker do it, unless it is called off before its turn."""

        def job() -> tuple[bool, str]:
            with self._lock:
                if self._jobs.get(name) is not job:
                    return False, ""
                self._going = name
            try:
                do()
            except (DataPlaneError, OSError) as error:
                return True, f"interface {name}: {error}"
            return True, ""

        def then(result: tuple[bool, str]) -> None:
            done, problem = result
            if not done:
                return
            with self._lock:
                self._going = ""
                del self._jobs[name]
            self.failed = problem != ""
            self._refusals.pop(name, None)
            if problem:
                self._refusals[name] = problem

        with self._lock:
            if name in self._jobs:
                return
            self._jobs[name] = job
        self._worker.submit(job, then)

    def _make(self, place: Place) -> None:
        """Down."""
        name, version = place.interface, place.address.version
        index = self._slow.add_macvlan(place.link.index, name, place.mac)
        if version == 6:
            self._slow.give_no_address(index)  # it would be the same on every member
        if problem := _speak_alone(place.link.name, name, version):
            self._defects[name] = problem


def _speak_alone(below: str, name: str, version: int) -> str:
    """Let none but the interface with the address tell a neighbour a MAC address for it. Returns a problem."""
    if version == 4:
        settings = {
            f"ipv4/conf/{below}/arp_ignore": "1",
            f"ipv4/conf/{below}/arp_announce": "2",  # replies leave by it: it asks for neighbours in its own name
            f"ipv4/conf/{name}/arp_ignore": "1",
            f"ipv4/conf/{name}/rp_filter": "2",  # loose: requests come by this one
            f"ipv6/conf/{name}/disable_ipv6": "1",  # with MLD it would show switches the MAC address when it goes
        }
    else:
        settings = {
            f"ipv6/conf/{name}/accept_ra": "0",
            f"ipv6/conf/{name}/disable_ipv6": "0",
            f"ipv4/conf/{name}/arp_ignore": "8",  # not at all
        }
    for key, value in settings.items():
        try:
            # Who writes disable_ipv6 while somebody changes links tries again and again (the kernel's restart_syscall),
            # and at real-time priority keeps others from their work: nothing is written that is there already.
            if (PROC_SYS_NET / key).read_text().strip() != value:
                (PROC_SYS_NET / key).write_text(value)
        except FileNotFoundError:  # a kernel without IPv6
            continue
        except OSError as error:
            return f"cannot set {key.replace('/', '.')} to {value}: {error.strerror}"
    return ""
