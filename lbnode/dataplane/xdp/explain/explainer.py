"""Answers `lbctl explain` on this data plane: where the packet comes in, the rehearsal, and what was around it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lbnode.dataplane.base import InterfaceStatus
from lbnode.dataplane.xdp import layout, settings
from lbnode.dataplane.xdp.attachments import Attachments
from lbnode.dataplane.xdp.counts import Gauge
from lbnode.dataplane.xdp.explain import probe, verdict
from lbnode.dataplane.xdp.explain.rehearsal import Rehearsal
from lbnode.dataplane.xdp.explain.table import Entry
from lbnode.dataplane.xdp.explain.traces import Traces
from lbnode.dataplane.xdp.interfaces import Interface
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.records import Tuple
from lbnode.dataplane.xdp.tables import Tables
from lbnode.errors import DataPlaneError
from lbnode.explanation import Explanation, NextHop, Question
from lbnode.model import parse_endpoint


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where the packet comes in."""

    interface: str
    hook: str  # "xdp" | "tcx" | "tc"
    ifindex: int  # that the program sees
    mac: bytes
    vlan: int | None = None  # the tag that the program sees


@dataclass(frozen=True, slots=True)
class Rehearsed:
    frame: bytes
    known: Entry | None  # the live entry that the table had for the packet
    traces: Traces
    now_ms: int


def arrival(
    name: str, status: Sequence[InterfaceStatus], interfaces: Iterable[Interface], towards_source: int | None
) -> Arrival:
    """By the named interface; without a name by the one that leads to the source, or the first that is served.

    KeyError: there is no such interface here. DataPlaneError: none carries the data plane.
    """
    served = {one.name: one.mode for one in status if one.mode != "-"}
    links = {one.index: one for one in interfaces}
    named = {one.name: one for one in links.values()}
    if name and name not in served:
        what = "carries no program of the data plane" if name in named else "does not exist here"
        raise KeyError(f"interface {name} {what}; served are: {', '.join(sorted(served)) or 'none'}")
    back = links.get(towards_source or 0)
    chosen = name or (back.name if back and back.name in served else next(iter(sorted(served.keys() & named)), ""))
    link = named.get(chosen)
    if link is None:
        raise DataPlaneError("no interface carries the data plane, so no packet comes to it: see `lbctl status`")
    hook = served[link.name]
    if hook == "xdp" and link.vlan is not None:  # its frames pass the program before their tag is taken off
        return Arrival(link.name, hook, link.vlan[0], link.mac, link.vlan[1])
    return Arrival(link.name, hook, link.index, link.mac or bytes(6))


def rehearse(path: Path, maps: Mapping[str, Map], question: Question, at: Arrival) -> Rehearsed:
    """Run the packet. Blocks for as long as the kernel verifies the program: about a second.

    A packet of a live entry is one in the middle of the connection, any other one opens a connection.
    """
    source, target = question.source, question.target
    packed = Tuple(source.address, source.port, target.address, target.port, question.protocol).pack()
    program = "xdp_lb" if at.hook == "xdp" else "tc_lb"
    with Rehearsal(path, maps, program) as rehearsal:
        known, now_ms = rehearsal.find(packed), rehearsal.now_ms
        if known is not None:
            known = replace(known, timeout_ms=_timeout_ms(maps, known))
            if verdict.expires_ms(known, now_ms) < 0:
                known = None
        frame = probe.frame(question, at.mac, known=known is not None, vlan=at.vlan)
        return Rehearsed(frame, known, rehearsal.run(frame, packed, at.ifindex, question.mark), now_ms)


def tell(
    maps: Mapping[str, Map],
    tables: Tables,
    question: Question,
    at: Arrival,
    done: Rehearsed,
    interfaces: Iterable[Interface],
) -> Explanation:
    """In words; next hops are without their addresses."""
    links = tuple(interfaces)
    indexes = {index for index in (done.traces.server, done.known.server if done.known else None) if index is not None}
    servers = {index: layout.Server.unpack(maps["servers"].get_index(index)) for index in indexes}
    # With the mark, whatever the hook makes of it: gauges that nobody looks at do no harm.
    service = verdict.match(tables.services, question, question.mark)
    listed = list(service.servers.values())[: verdict.MAX_CANDIDATES] if service is not None else []
    gauges = {one.index: Gauge.unpack(maps["gauges"].get_index(one.index)) for one in listed}
    scene = verdict.Scene(
        at.interface,
        at.hook,
        tables.services,
        {index: one for index, one in servers.items() if one is not None},
        gauges,
        done.now_ms,
        tables.leases.group_of(question.target.address),
        {one.mac: one.name for one in links if one.mac},
        {one.index: one.name for one in links},
    )
    return verdict.explain(question, done.frame, done.known, done.traces, scene)


def _timeout_ms(maps: Mapping[str, Map], entry: Entry) -> int:
    """conn_timeout of conn.h: the entry's own, its service's, or that of all."""
    if entry.timeout_ms:
        return entry.timeout_ms
    server = layout.Server.unpack(maps["servers"].get_index(entry.server))
    live = server is not None and server.generation == entry.server_generation
    if server is not None and live and server.service < maps["timeouts"].info.max_entries:
        own_ms = settings.timeout_ms(maps["timeouts"].get_index(server.service), entry.state)
        if own_ms:
            return own_ms
    return settings.timeout_ms(maps["config"].get_index(0), entry.state)


class Explainer:
    """One question at a time: each takes as much memory as the connection table."""

    def __init__(
        self, path: Path, maps: Mapping[str, Map], tables: Tables, neighbours: Neighbours, attachments: Attachments
    ) -> None:
        self._path = path
        self._maps = maps
        self._tables = tables
        self._neighbours = neighbours
        self._attachments = attachments
        self._turn = asyncio.Lock()
        self._work: asyncio.Future[Rehearsed] | None = None

    async def explain(self, question: Question) -> Explanation:
        async with self._turn:
            await self.close()  # what a caller that gave up has left behind
            back = await self._neighbours.towards(question.source.address)
            interfaces = self._neighbours.interfaces()
            at = arrival(question.interface, self._attachments.status(), interfaces, back[0] if back else None)
            self._work = asyncio.ensure_future(asyncio.to_thread(rehearse, self._path, self._maps, question, at))
            done = await asyncio.shield(self._work)
            told = tell(self._maps, self._tables, question, at, done, interfaces)
        return await self._with_address(told, question)

    async def _with_address(self, told: Explanation, question: Question) -> Explanation:
        if told.next_hop is None:
            return told
        target = question.target.address if told.verdict == "to-client" else parse_endpoint(told.server)[0]
        route = await self._neighbours.towards(target)
        if route is None:
            return told
        names = {one.index: one.name for one in self._neighbours.interfaces()}
        hop = NextHop(told.next_hop.interface or names.get(route[0], ""), str(route[1]), told.next_hop.mac)
        return replace(told, next_hop=hop)

    async def close(self) -> None:
        """Wait for the thread: it uses the maps."""
        if self._work is not None:
            await asyncio.wait([self._work])
            self._work = None
