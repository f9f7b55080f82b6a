"""Where packets to each real server go next: route and neighbour, followed by rtnetlink.

The data plane caches interface and MAC addresses per real server, which saves the kernel's route lookup per packet
(measured: 134 ns). Neighbours are made `managed` (NTF_EXT_MANAGED, Linux 5.16): the kernel then keeps them resolved
without traffic. An older one is told every 10 s that they are in use, while this process lives. An address that does
not resolve has no next hop; the data plane asks the kernel per packet then.
For replies it asks the kernel for each client, and has to be told of every change (bpf/reply_hop.h).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbnode.dataplane.xdp.interfaces import Interface, from_message
from lbnode.dataplane.xdp.layout import Hop
from lbnode.model import Address

_log = logging.getLogger(__name__)

_RTMGRP_LINK = 0x1
_RTMGRP_NEIGH = 0x4
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV4_ROUTE = 0x40
_RTMGRP_IPV6_IFADDR = 0x100
_RTMGRP_IPV6_ROUTE = 0x400
_RTMGRP_IPV4_RULE = 0x80
_RTMGRP_IPV6_RULE = 0x40000
_RTMGRP_NEXTHOP = 0x80000000
_GROUPS = (
    _RTMGRP_LINK
    | _RTMGRP_NEIGH
    | (_RTMGRP_IPV4_IFADDR | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV4_RULE)
    | (_RTMGRP_IPV6_IFADDR | _RTMGRP_IPV6_ROUTE | _RTMGRP_IPV6_RULE)
    | _RTMGRP_NEXTHOP
)
_NTF_USE = 1
_NTF_EXT_MANAGED = 1
_NUD_PERMANENT = 0x80
# REACHABLE STALE DELAY PROBE NOARP PERMANENT: the address in the entry may be used (include/net/neighbour.h NUD_VALID)
_NUD_VALID = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | _NUD_PERMANENT
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_SETTLE_S = 0.05  # route and link changes come in bursts; one look-up of all routes per burst
_RETRY_S = 1.0
_USE_S = 10.0  # an entry is believed for 15 s at least (arp(7): base_reachable_time)


@dataclass(frozen=True, slots=True)
class _Route:
    ifindex: int
    via: Address  # the gateway, or the address itself if on-link
    mtu: int
    source: Address | None
    encapsulates: bool  # the network stack alone can use it (ip-route(8): encap)


class Neighbours:
    """Follows links, routes and neighbours of the current network namespace.

    `on_next_hop(address, hop)` is called when the next hop or the source of a watched address becomes known, changes,
    or is found to be unresolved (None); a hop's `mtu` is that of the interface, or of the route if that is smaller;
    `on_links(interfaces)` with all links whenever one changed; `on_change()` at once when anything changed that the
    kernel's look-ups rest on, also towards addresses that nobody watches. All are plain callbacks on the loop.
    """

    def __init__(
        self,
        on_next_hop: Callable[[Address, Hop | None], None],
        on_links: Callable[[Iterable[Interface]], None],
        on_change: Callable[[], None],
    ) -> None:
        self._on_next_hop = on_next_hop
        self._on_links = on_links
        self._on_change = on_change
        self._users: dict[Address, int] = {}
        self._hops: dict[Address, Hop | None] = {}  # as last published
        self._sources: dict[Address, Address | None] = {}
        self._own: set[Address] = set()  # addresses of this node
        self._routes: dict[Address, _Route] = {}
        self._via: dict[tuple[int, Address], set[Address]] = {}  # (ifindex, neighbour) -> addresses behind it
        self._macs: dict[tuple[int, Address], bytes] = {}
        self._permanent: set[tuple[int, Address]] = set()  # entries an operator made: neither managed nor deleted
        self._managed: set[tuple[int, Address]] = set()  # entries the kernel says that it keeps resolved
        self._links: dict[int, Interface] = {}
        self._dirty: set[Address] = set()
        self._wake = asyncio.Event()
        self._all = True  # look up links and every route again
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Subscribe, read what is there, call `on_links` once, then follow."""
        ready = asyncio.Event()
        self._tasks = [
            asyncio.create_task(each) for each in (self._follow(ready), self._resolve_loop(), self._use_loop())
        ]
        await ready.wait()

    async def stop(self, *, release: bool = False) -> None:
        """Stop following; with `release` the managed neighbours are given back to the kernel's own rules."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if release:
            async with AsyncIPRoute() as query:
                for ifindex, via in self._via:
                    await self._unmanage(query, ifindex, via)

    def check(self) -> None:
        """Raise what ended a background task: a bug must not stay unseen."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def watch(self, address: Address) -> None:
        """Count one more user of an address."""
        self._users[address] = self._users.get(address, 0) + 1
        if self._users[address] == 1:
            self._dirty.add(address)
            self._wake.set()

    def unwatch(self, address: Address) -> None:
        count = self._users.get(address, 0) - 1
        if count > 0:
            self._users[address] = count
            return
        self._users.pop(address, None)
        self._hops.pop(address, None)
        self._sources.pop(address, None)
        self._dirty.add(address)
        self._wake.set()

    def get(self, address: Address) -> Hop | None:
        return self._hops.get(address)

    def source(self, address: Address) -> Address | None:
        """The kernel's preferred source address towards it, also while its neighbour is unresolved; itself if it is
        this node's own."""
        return self._sources.get(address)

    def interfaces(self) -> tuple[Interface, ...]:
        """All links that are there now."""
        return tuple(self._links.values())

    async def towards(self, address: Address) -> tuple[int, Address] | None:
        """(ifindex, neighbour) by which the kernel sends to any address now; None: it has no route but to itself."""
        async with AsyncIPRoute() as query:
            route = await self._route(query, address)
        return (route.ifindex, route.via) if route is not None else None

    # --- following the kernel --------------------------------------------------------------------------------

    async def _follow(self, ready: asyncio.Event) -> None:
        while True:
            try:
                async with AsyncIPRoute() as monitor:
                    await monitor.bind(groups=_GROUPS)
                    await self._read_all()
                    ready.set()
                    self._all = True
                    self._wake.set()
                    while True:
                        async for message in monitor.get():  # one datagram's worth
                            self._take(message)
            except (OSError, NetlinkError) as error:  # ENOBUFS: messages were lost; read everything again
                _log.warning("rtnetlink: %s; reading links, routes and neighbours again", error)
                await asyncio.sleep(_RETRY_S)

    async def _read_all(self) -> None:
        async with AsyncIPRoute() as query:
            self._links = {}
            async for message in await query.link("dump"):
                self._take_link(message)
            self._macs.clear()
            async for message in await query.neigh("dump"):
                self._take_neighbour(message)
        self._on_change()
        self._on_links(self._links.values())

    def _take(self, message: Any) -> None:
        event = message.get("event", "")
        if event in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            self._take_neighbour(message)
            return
        self._on_change()
        if event in ("RTM_NEWLINK", "RTM_DELLINK"):
            if not self._take_link(message):
                return
            self._on_links(self._links.values())
        self._all = True  # links, addresses, routes, rules, next hop objects
        self._wake.set()

    def _take_link(self, message: Any) -> bool:
        """True if something changed that matters here."""
        index = message["index"]
        if message.get("event") == "RTM_DELLINK":
            return self._links.pop(index, None) is not None
        new = from_message(message)
        if self._links.get(index) == new:
            return False
        self._links[index] = new
        return True

    def _take_neighbour(self, message: Any) -> None:
        if message.get("dst") is None:
            return
        key = (message["ifindex"], ip_address(message.get("dst")))
        if message["state"] & _NUD_PERMANENT and message.get("event") != "RTM_DELNEIGH":
            self._permanent.add(key)
        else:
            self._permanent.discard(key)
        if (message.get("flags_ext") or 0) & _NTF_EXT_MANAGED and message.get("event") != "RTM_DELNEIGH":
            self._managed.add(key)
        else:
            self._managed.discard(key)
        mac = bytes.fromhex((message.get("lladdr") or "").replace(":", ""))
        before = self._macs.get(key)
        if message.get("event") == "RTM_DELNEIGH" or not message["state"] & _NUD_VALID or len(mac) != 6:
            gone = self._macs.pop(key, None) is not None
            if gone and message.get("event") == "RTM_DELNEIGH":  # flushed by somebody: manage it again
                self._dirty |= self._via.get(key, set())
                self._wake.set()
        else:
            self._macs[key] = mac
        if self._macs.get(key) != before:
            self._on_change()
        for address in self._via.get(key, ()):
            self._publish(address)

    def _publish(self, address: Address) -> None:
        route = self._routes.get(address)
        hop: Hop | None = None
        if route is not None and not route.encapsulates:
            mac = self._macs.get((route.ifindex, route.via))
            link = self._links.get(route.ifindex)
            if mac is not None and link is not None and link.up and link.mac:
                mtu = min(route.mtu, link.mtu) if route.mtu else link.mtu
                hop = Hop(route.ifindex, link.mac, mac, mtu)
        source = route.source if route is not None else address if address in self._own else None
        if address in self._hops and (self._hops[address], self._sources[address]) == (hop, source):
            return
        self._hops[address], self._sources[address] = hop, source
        self._on_next_hop(address, hop)

    # --- resolving -------------------------------------------------------------------------------------------

    async def _resolve_loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._all:
                await asyncio.sleep(_SETTLE_S)
                self._all = False
                self._dirty |= self._users.keys()
            dirty, self._dirty = self._dirty, set()
            try:
                async with AsyncIPRoute() as query:
                    while dirty:
                        await self._resolve(query, dirty.pop())
                        await asyncio.sleep(0)
            except (OSError, NetlinkError) as error:
                _log.warning("rtnetlink: %s; trying again", error)
                self._dirty |= dirty
                self._wake.set()
                await asyncio.sleep(_RETRY_S)

    async def _resolve(self, query: Any, address: Address) -> None:
        old = self._routes.get(address)
        new = await self._route(query, address) if address in self._users else None
        if old is not None and old != new:
            behind = self._via[old.ifindex, old.via]
            behind.discard(address)
            if not behind:
                del self._via[old.ifindex, old.via]
                await self._unmanage(query, old.ifindex, old.via)
        if new is None:
            self._routes.pop(address, None)
        else:
            self._routes[address] = new
            self._via.setdefault((new.ifindex, new.via), set()).add(address)
            await self._manage(query, new)
        if address in self._users:
            self._publish(address)

    async def _route(self, query: Any, address: Address) -> _Route | None:
        try:
            replies = list(await query.route("get", dst=str(address)))
        except NetlinkError:  # no route
            replies = []
        if replies and replies[0]["type"] == _RTN_LOCAL:
            self._own.add(address)
        else:
            self._own.discard(address)
        if not replies or replies[0]["type"] != _RTN_UNICAST or replies[0].get("oif") is None:
            return None
        reply = replies[0]
        via = reply.get("gateway")
        if via is None and reply.get("via") is not None:  # an IPv4 route over an IPv6 neighbour (RFC 5549)
            via = reply.get("via")["addr"]
        metrics = reply.get("metrics")
        mtu = (metrics.get("mtu") if metrics is not None else 0) or 0
        source = reply.get("prefsrc")
        return _Route(
            reply.get("oif"),
            ip_address(via) if via else address,
            mtu,
            ip_address(source) if source else None,
            encapsulates=bool(reply.get("encap_type")),
        )

    async def _use_loop(self) -> None:
        while True:
            await asyncio.sleep(_USE_S)
            unmanaged = {(one.ifindex, one.via): one for one in self._routes.values()}
            for key in self._managed:
                unmanaged.pop(key, None)
            if not unmanaged:
                continue
            try:
                async with AsyncIPRoute() as query:
                    for route in unmanaged.values():
                        await self._manage(query, route)
            except (OSError, NetlinkError) as error:
                _log.warning("rtnetlink: %s; neighbours are resolved again in %.0f s", error, _USE_S)

    async def _manage(self, query: Any, route: _Route) -> None:
        link = self._links.get(route.ifindex)
        if link is None or not link.ether or not link.up or (route.ifindex, route.via) in self._permanent:
            return
        if route.encapsulates:
            return
        with contextlib.suppress(NetlinkError):  # the interface went away meanwhile
            await query.neigh(
                "replace",
                dst=str(route.via),
                ifindex=route.ifindex,
                state=0,
                flags=_NTF_USE,
                NDA_FLAGS_EXT=_NTF_EXT_MANAGED,
            )

    async def _unmanage(self, query: Any, ifindex: int, via: Address) -> None:
        if (ifindex, via) not in self._permanent:
            with contextlib.suppress(NetlinkError):  # already gone
                await query.neigh("del", dst=str(via), ifindex=ifindex)
