"""The interfaces with the MAC addresses of virtual routers (see virtual_mac): made at a takeover, removed later."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lbnode.election.netlink import Rtnetlink
from lbnode.election.placement import Link, Place
from lbnode.election.virtual_mac import is_ours
from lbnode.errors import DataPlaneError

STACK = 256 << 10  # bytes of the thread that removes: all memory is locked, and so is its stack
PROC_SYS_NET = Path("/proc/sys/net")  # of the network namespace of the process that reads it


class Macvlans:
    """`scan` comes before all else. `problems`: by interface, what does not keep it from its work.

    The kernel takes 20 ms to remove one, at times 60 (measured on Linux 6.18). A lease may last 25 ms, so a thread
    waits for that. Who changes links or addresses meanwhile seldom has to wait for it, but then for up to 30 ms.
    """

    def __init__(self, netlink: Rtnetlink, remover: Rtnetlink) -> None:
        """`remover`: for the thread alone, in the same network namespace."""
        self._netlink, self._remover = netlink, remover
        self._there: dict[str, Link] = {}
        self._unwanted: set[int] = set()  # indexes of those that are still to be removed
        self._going = 0  # the index of the one that is being removed
        self._lock = threading.Lock()  # of both
        self._thread: threading.Thread | None = None
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
                if place.address.version == 6:
                    self._netlink.give_no_address(index)  # it would be the same on every member
                self.problems[name] = _speak_alone(place.link.name, name, place.address.version)
            index = self._there[name].index
            with self._lock:
                self._unwanted.discard(index)
                too_late = index == self._going
            if too_late:  # the next scan, when it has gone, leads here again
                del self._there[name]
                return f"interface {name} is still being removed"
            self._netlink.set_up(index)
        except (DataPlaneError, OSError) as error:
            return f"no interface for {place.mac.hex(':')} above {place.link.name}: {error}"
        return ""

    def keep_only(self, places: Iterable[Place]) -> None:
        """Have those removed, by `remove`, on which none of these addresses belongs."""
        wanted = {place.interface for place in places}
        self._unwanted.update([self._there.pop(name).index for name in self._there.keys() - wanted])

    @property
    def removing(self) -> bool:
        """The kernel is busy with it."""
        return self._thread is not None and self._thread.is_alive()

    def remove(self) -> None:
        """See to it that those that are not wanted go, without waiting for it."""
        if self._unwanted and not self.removing:
            before = threading.stack_size(STACK)
            try:
                self._thread = threading.Thread(target=self._remove_all, daemon=True)
                self._thread.start()
            except RuntimeError:  # no memory, too many processes: the next call tries again
                self._thread = None
            finally:
                threading.stack_size(before)

    def finish(self) -> None:
        """Wait until none is left that is not wanted."""
        if self._thread is not None:
            self._thread.join()
        self._remove_all()

    def close(self) -> None:
        self._remover.close()

    def _remove_all(self) -> None:
        while self._take_next():
            with suppress(DataPlaneError):  # the next scan finds it
                self._remover.delete_link(self._going)

    def _take_next(self) -> bool:
        with self._lock:
            self._going = self._unwanted.pop() if self._unwanted else 0
        return self._going != 0


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
