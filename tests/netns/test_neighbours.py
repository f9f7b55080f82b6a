"""Every change that the kernel's look-ups rest on is told, and nothing else."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from lbnode.dataplane.xdp import neighbours
from lbnode.dataplane.xdp.layout import Hop
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.lab.netns import Net
from lbnode.model import Address
from tests.netns.xdp_lab import thread_in_netns, until

pytestmark = pytest.mark.root
NEIGHBOUR = {"-4": "192.0.2.9", "-6": "2001:db8::9"}
MAC, OTHER_MAC = "02:00:00:00:00:09", "02:00:00:00:00:0a"
GATEWAY = {"-4": "192.0.2.8", "-6": "2001:db8::8"}
NETWORK = {"-4": "203.0.113.0/24", "-6": "2001:db8:c::/64"}


@pytest.fixture
def net() -> Iterator[Net]:
    """A namespace `gw` in which nothing happens by itself, with the interfaces eth0 and mark."""
    net = Net(f"lbt-nei{os.getpid()}")
    try:
        for name in ("gw", "far"):
            net.add(name)
            for key in ("accept_dad=0", "accept_ra=0", "mldv2_unsolicited_report_interval=0", "router_solicitations=0"):
                net.run(name, "sysctl", "-qw", f"net.ipv6.conf.default.{key}")
        net.veth("gw", "eth0", "192.0.2.1/24", "far", "eth0", None)
        net.veth("gw", "mark", None, "far", "mark", None)
        net.address("gw", "eth0", "2001:db8::1/64")
        yield net
    finally:
        net.close()


class Watch:
    def __init__(self, net: Net) -> None:
        self._net = net
        self._mtu = itertools.count(1400)
        self.changes = 0
        self.neighbours = Neighbours(lambda *_: None, lambda _: None, self._changed)
        self._of_mark = 0

    def _changed(self) -> None:
        self.changes += 1

    async def start(self) -> None:
        await self.neighbours.start()
        await self._heard()
        before = self.changes
        await self._heard()
        self._of_mark = self.changes - before

    async def _heard(self) -> None:
        """All that the kernel has said is taken: a change that comes last is seen."""
        mtu = next(self._mtu)
        self._net.run("gw", "ip", "link", "set", "mark", "mtu", str(mtu))
        await until(
            lambda: any(one.name == "mark" and one.mtu == mtu for one in self.neighbours.interfaces()), "it is heard"
        )

    async def told_of(self, *words: str) -> int:
        """How many changes an `ip` command makes."""
        await self._heard()
        before = self.changes
        self._net.run("gw", "ip", *words)
        await self._heard()
        return self.changes - before - self._of_mark


async def test_what_is_told(net: Net) -> None:
    with thread_in_netns(net.ns("gw")):
        watch = Watch(net)
        await watch.start()
        try:
            for family in ("-4", "-6"):
                neighbour = (NEIGHBOUR[family], "dev", "eth0")
                told = [
                    (family, "route", "add", NETWORK[family], "via", GATEWAY[family]),
                    (family, "route", "del", NETWORK[family]),
                    (family, "rule", "add", "from", NETWORK[family], "lookup", "100"),
                    (family, "rule", "del", "from", NETWORK[family], "lookup", "100"),
                    (family, "nexthop", "add", "id", "7", "via", GATEWAY[family], "dev", "eth0"),
                    (family, "nexthop", "replace", "id", "7", "via", NEIGHBOUR[family], "dev", "eth0"),
                    (family, "nexthop", "del", "id", "7"),
                    (family, "neigh", "add", *neighbour, "lladdr", MAC, "nud", "reachable"),
                    (family, "neigh", "change", *neighbour, "lladdr", OTHER_MAC, "nud", "reachable"),
                    (family, "neigh", "del", *neighbour),
                ]
                for words in told:
                    assert await watch.told_of(*words) >= 1, words
                await watch.told_of(family, "neigh", "add", *neighbour, "lladdr", MAC, "nud", "reachable")
                stale = (family, "neigh", "change", *neighbour, "lladdr", MAC, "nud", "stale")
                assert await watch.told_of(*stale) == 0, "an address that may be used as before"
            for words in (
                ("addr", "add", "198.51.100.1/24", "dev", "eth0"),
                ("addr", "del", "198.51.100.1/24", "dev", "eth0"),
                ("link", "set", "eth0", "address", "02:00:00:00:00:01"),
                ("link", "set", "eth0", "down"),
            ):
                assert await watch.told_of(*words) >= 1, words
        finally:
            await watch.neighbours.stop()


async def test_where_the_kernel_does_not_keep_them_they_are_used(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.16, which passes over the flag: an entry that grew old is asked for again, without traffic."""
    monkeypatch.setattr(neighbours, "_NTF_EXT_MANAGED", 0)
    monkeypatch.setattr(neighbours, "_USE_S", 0.05)
    hops: dict[Address, Hop | None] = {}
    address = ip_address(NEIGHBOUR["-4"])
    with thread_in_netns(net.ns("gw")):
        watching = Neighbours(hops.__setitem__, lambda _: None, lambda: None)
        await watching.start()
        try:
            watching.watch(address)
            await until(lambda: address in hops, "it is looked up")
            net.run("gw", "ip", "neigh", "replace", str(address), "dev", "eth0", "lladdr", MAC, "nud", "stale")
            await until(lambda: hops[address] is not None, "its MAC address is known")
            await until(lambda: "STALE" not in net.run("gw", "ip", "neigh", "show", str(address)), "it is asked for")
        finally:
            await watching.stop()
