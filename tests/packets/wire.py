"""The network that the programs run in: a namespace with two interfaces, and who is behind them.

The kernel's route look-up that replies use needs routes and neighbours:

    client 203.0.113.0/24 -- 192.0.2.254 -- [front 192.0.2.1]  gateway  [back 198.51.100.1] -- servers 198.51.100.11...
    client 2001:db8:c::/64 -- 2001:db8::fe -- [2001:db8::1]    gateway  [2001:db8:b::1]     -- servers 2001:db8:b::11...
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from lbnode.dataplane.xdp.layout import Hop
from lbnode.lab.netns import CLONE_NEWNET, Net
from lbnode.model import Address

VIP = "192.0.2.10"
CLIENT = "203.0.113.5"
VIP6 = "2001:db8::10"
CLIENT6 = "2001:db8:c::5"
SERVER6 = "2001:db8:b::11"
GATEWAY = "192.0.2.1"  # the balancer's own address at the front
LOCAL, LOCAL6 = "198.51.100.4", "2001:db8:b::4"  # what full NAT uses, unless a test names others
CLIENT_ROUTER_MAC = "02:00:00:00:0f:fe"
SERVER_MAC = "02:00:00:00:0b:01"
MTU = 1500

_libc = ctypes.CDLL(None, use_errno=True)


class Wire:
    """The namespace that the programs run in."""

    def __init__(self, prefix: str) -> None:
        self.net = Net(prefix)
        try:
            self.namespace = self.net.add("gw", forward=True)
            self.net.add("far")
            for name, address, address6 in (
                ("front", f"{GATEWAY}/24", "2001:db8::1/64"),
                ("back", "198.51.100.1/24", "2001:db8:b::1/64"),
            ):
                self.net.veth("gw", name, address, "far", name, None)
                self.net.address("gw", name, address6)
            run = self.net.run
            run("gw", "ip", "neigh", "add", "192.0.2.254", "lladdr", CLIENT_ROUTER_MAC, "dev", "front")
            run("gw", "ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.254")
            run("gw", "ip", "route", "add", "172.16.0.0/24", "via", "192.0.2.254")
            run("gw", "ip", "neigh", "add", "2001:db8::fe", "lladdr", CLIENT_ROUTER_MAC, "dev", "front")
            run("gw", "ip", "route", "add", "2001:db8:c::/64", "via", "2001:db8::fe")
            # .11 to .30 can be reached without a cached next hop too; further ones are on-link but resolve never
            for last in range(11, 31):
                for address in (f"198.51.100.{last}", f"2001:db8:b::{last}"):
                    run("gw", "ip", "neigh", "add", address, "lladdr", SERVER_MAC, "dev", "back")
            self.interfaces = {name: self._interface(name) for name in ("front", "back")}
        except BaseException:
            self.net.close()
            raise

    def _interface(self, name: str) -> tuple[int, str]:
        words = self.net.run("gw", "ip", "-o", "link", "show", "dev", name).split()
        return int(words[0].rstrip(":")), words[words.index("link/ether") + 1]

    def index(self, interface: str) -> int:
        return self.interfaces[interface][0]

    def mac(self, interface: str) -> str:
        return self.interfaces[interface][1]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """BPF_PROG_TEST_RUN looks interfaces up in the caller's network namespace."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{self.namespace}", "rb") as there:
            self._enter(there.fileno())
            try:
                yield
            finally:
                self._enter(home.fileno())

    @staticmethod
    def _enter(fd: int) -> None:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


class Hops:
    """Stands where the rtnetlink follower stands in the product: next hops by hand."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.unresolved: set[Address] = set()
        self.own: set[Address] = set()
        self.mtu = MTU

    def watch(self, address: Address) -> None: ...

    def unwatch(self, address: Address) -> None: ...

    def source(self, address: Address) -> Address | None:
        if address in self.own:
            return address
        if address in self.unresolved:
            return None
        return ip_address("2001:db8:b::1" if address.version == 6 else "198.51.100.1")

    def get(self, address: Address) -> Hop | None:
        if address in self.unresolved | self.own:
            return None
        source = bytes.fromhex(self._wire.mac("back").replace(":", ""))
        target = bytes.fromhex(SERVER_MAC.replace(":", ""))
        return Hop(self._wire.index("back"), source, target, self.mtu)
