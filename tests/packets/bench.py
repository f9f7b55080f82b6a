"""The compiled data plane on a bench: services by the product's own Tables, packets by BPF_PROG_TEST_RUN, time by hand.

The programs run inside the network namespace of wire.py; traffic.py has packets for them. Every packet that a program
sends is checked before a test sees it: each checksum in it is summed up anew (checksums.py), tunnels and quoted packets
included.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from scapy.layers.inet import TCP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from lbnode.dataplane.xdp import counts, layout, settings, syscall
from lbnode.dataplane.xdp.counts import NOTHING_REFUSED, Gauge
from lbnode.dataplane.xdp.exchange import Exchange
from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.plane import OBJECT
from lbnode.dataplane.xdp.records import MergeResult, Record, merge_results, unpack_records
from lbnode.dataplane.xdp.tables import Tables
from lbnode.model import (
    IPIP,
    Admission,
    Counters,
    ForwardingMethod,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    Timeouts,
    Tunnel,
)
from tests.packets.checksums import wrong_checksums
from tests.packets.traffic import answer, ether, tcp
from tests.packets.wire import LOCAL, LOCAL6, VIP, Hops, Wire

ENTRIES = 1024  # of the connection table
CHANGED = 4096
COOKIE_KEY = 0x0F0E0D0C0B0A09080706050403020100

MASQUERADE, DIRECT, TUNNEL = ForwardingMethod.MASQUERADE, ForwardingMethod.DIRECT, ForwardingMethod.TUNNEL
FULLNAT = ForwardingMethod.FULLNAT

VERDICTS = {
    "xdp": {1: "drop", 2: "pass", 3: "send", 4: "send"},  # XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT
    "tc": {2: "drop", 0xFFFFFFFF: "pass", 7: "send"},  # TCX_DROP, TCX_NEXT, TCX_REDIRECT
}
HANDOVER = struct.pack("=I", 0x6C626E64)
HANDOVER_SIZE = 28


@dataclass(frozen=True, slots=True)
class Out:
    """What became of a packet. `frame` is the whole frame behind the program, without metadata in front of it."""

    verdict: str  # "send" | "pass" | "drop"
    frame: bytes
    handover: bool  # metadata for tc_behind_xdp stands in front of the frame
    reflected: bool  # XDP_TX

    @property
    def eth(self) -> Packet:
        return Ether(self.frame)

    @property
    def ip(self) -> Any:
        """The outermost IP packet."""
        frame = self.eth
        return frame[Dot1Q].payload if Dot1Q in frame else frame.payload


class Machine:
    """A loaded object; `wipe` makes its maps as new, which is quicker than loading it again."""

    def __init__(
        self,
        path: Path = OBJECT,
        *,
        entries: int = ENTRIES,
        captured: int = 4096,
        constants: Mapping[str, bytes] | None = None,
    ) -> None:
        """entries: of the connection table. captured: bytes of the ring of `lbctl capture`."""
        sizes = {
            "conns": entries // layout.BUCKET_WAYS,
            "replies": entries // layout.BUCKET_WAYS * layout.REPLY_BUCKETS,
            "slots": 1 << 16,
            "changed": CHANGED,
            "captured": captured,
            "services": 256,
        }
        self.object = LoadedObject(path, pins=lambda name: None, max_entries=sizes, constants=constants)
        self.maps = {name: Map(fd) for name, fd in self.object.maps.items() if "." not in name}
        self.programs = self.object.programs
        self.exchange = Exchange(self.maps["records"], self.programs)

    def close(self) -> None:
        for one in self.maps.values():
            one.close()
        self.object.close()

    def wipe(self) -> None:
        self.exchange.changed(1 << 20)
        for name in ("services", "vips", "vlans", "fragments", "leased", "affinity", "prefixes", "sources"):
            for key in [key for key, _ in self.maps[name].items()]:
                self.maps[name].delete(key)
        for name in ("conns", "replies", "events", "clock", "leases", "egress"):
            array = self.maps[name]
            array.put_range(0, bytes(array.value_size * array.info.max_entries))
        for name in (
            "servers",
            "groups",
            "gauges",
            "half_open",
            "cursors",
            "timeouts",
            "server_stats",
            "service_stats",
            "admissions",
        ):
            array = self.maps[name]
            array.put_range(0, bytes(array.value_size * 256))  # tests have fewer servers than this
        self.maps["meta"].put_index(0, layout.pack_meta())
        self.forget_hops()

    def forget_hops(self) -> None:
        """As user space does when the kernel's routes change."""
        routes = self.maps["routes"]
        routes.put_index(0, layout.pack_routes(layout.unpack_routes(routes.get_index(0)) + 1))


class Bench:
    """One node. `entry`: "xdp" or "tc", the program that packets go through."""

    def __init__(self, machine: Machine, wire: Wire, entry: str, *, seed: int = 7) -> None:
        machine.wipe()
        self.entry = entry
        self.wire = wire
        self.machine = machine
        self.maps = machine.maps
        self.hops = Hops(wire)
        self.config = settings.Config(Timeouts(), seed, cookie_key=COOKIE_KEY)
        self._write_config()
        self._clock = 0.0
        self.tables = Tables(self.maps, self._seconds, cast(Neighbours, self.hops))
        self.now_ms = 1_000_000
        self.advance(0)

    def _seconds(self) -> float:
        self._clock += 1.0  # retired slots are free again at once: nothing runs beside the test
        return self._clock

    def _write_config(self) -> None:
        self.maps["config"].put_index(0, self.config.pack())

    # --- configuration ---

    def configure(self, **changes: Any) -> None:
        """Of settings.Config: timeouts, seed, sync, icmp_rate."""
        self.config = replace(self.config, **changes)
        self._write_config()

    def service(self, text: str = f"tcp:{VIP}:80", scheduler: str = "rr", *flags: str, **fields: Any) -> ServiceId:
        """`fields`: of ProgrammedService."""
        service_id = ServiceId.parse(text)
        self.tables.put_service(ProgrammedService(service_id, scheduler, frozenset(flags), **fields))
        self.configure(shortest=self.tables.own_timeouts.shortest)
        return service_id

    def server(
        self,
        service_id: ServiceId,
        address: str = "198.51.100.11:80",
        forward: ForwardingMethod = MASQUERADE,
        weight: int = 1,
        upper: int = 0,
        lower: int = 0,
        *,
        hop: bool = True,
        tunnel: Tunnel = IPIP,
        local: Sequence[str] = (),
        toa: bool = False,
    ) -> ServerId:
        """Add a server, or change it. Without `hop` the kernel's routes are asked per packet. `local`: addresses for
        full NAT."""
        server_id = ServerId.parse(address)
        if not hop:
            self.hops.unresolved.add(server_id.address)
        if forward is FULLNAT and not local:
            local = (LOCAL6,) if server_id.address.version == 6 else (LOCAL,)
        addresses = tuple(map(ip_address, local))
        wanted = ProgrammedServer(server_id, weight, forward, upper, lower, tunnel, addresses, toa)
        self.tables.put_server(service_id, wanted)
        return server_id

    def remove(self, service_id: ServiceId, server_id: ServerId | None = None) -> None:
        if server_id is None:
            self.tables.delete_service(service_id)
        else:
            self.tables.delete_server(service_id, server_id)

    # --- packets ---

    def send(
        self, packet: Packet | bytes, interface: str = "front", *, check: str = "all", mark: int = 0, segment: int = 0
    ) -> Out:
        """Run a packet through the program. Bytes are a whole frame. `check`: "all" | "ip" (not L4) | "none".
        `segment`: the socket buffer's gso_size."""
        index, mac = self.wire.interfaces[interface]
        frame = packet if isinstance(packet, bytes) else ether(packet, target=mac)
        with self.wire.inside():
            if self.entry == "xdp":
                context = struct.pack("=6I", 0, len(frame), 0, index, 0, 0)
                run = syscall.prog_test_run(self.machine.programs["xdp_lb"], frame, context=context)
            else:
                # struct __sk_buff: mark, ifindex, gso_size
                context = struct.pack("=11I132xI", 0, 0, mark, *(0,) * 7, index, segment)
                run = syscall.prog_test_run(self.machine.programs["tc_lb"], frame, context=context)
        verdict = VERDICTS[self.entry].get(run.retval)
        assert verdict is not None, f"{self.entry} returned {run.retval}"
        handover = self.entry == "xdp" and verdict == "pass" and run.data.startswith(HANDOVER)
        result = run.data[HANDOVER_SIZE:] if handover else run.data
        if verdict == "pass" and not handover and result == frame:
            check = "none"  # untouched: the network stack's business
        if check != "none" and verdict != "drop":
            problems = wrong_checksums(result[18 if result[12:14] == b"\x81\x00" else 14 :], deep=check == "all")
            assert not problems, f"{problems} in {Ether(result)!r}"
        return Out(verdict, result, handover, self.entry == "xdp" and run.retval == 3)

    def connect(self, port: int = 40000, **fields: Any) -> Out:
        """A SYN; it must get to a server."""
        out = self.send(tcp(port, "S", **fields))
        assert out.verdict == "send"
        return out

    def establish(self, port: int = 40000, **fields: Any) -> Packet:
        """The three packets of an opening; returns the last as the server got it."""
        syn = self.connect(port, **fields)
        if syn.ip.dst != fields.get("vip", VIP) and isinstance(syn.ip.payload, TCP):  # masqueraded
            assert self.send(answer(syn.ip), "back").verdict == "send"
        out = self.send(tcp(port, "A", **fields))
        assert out.verdict == "send"
        return cast(Packet, out.ip)

    # --- time and state ---

    def advance(self, seconds: float) -> int:
        """Let time pass and the sweeper make one whole pass; returns how many connections it removed."""
        self.now_ms = self.now_ms + round(seconds * 1000) & 0xFFFFFFFF
        code, result = syscall.prog_run(self.machine.programs["sweep"], struct.pack("=II", self.now_ms, 0))
        assert code == 0
        return int(struct.unpack("=II", result)[1])

    def event(self, event: Event) -> int:
        return counts.unpack_event(self.maps["events"].get_index(event))

    def events(self) -> dict[Event, int]:
        """All but the fill, those that are not 0."""
        counts = {event: self.event(event) for event in Event if event is not Event.ENTRIES}
        return {event: count for event, count in counts.items() if count}

    def moves(self) -> int:
        """Connections that were moved to their other buckets."""
        return counts.unpack_moves(self.maps["clock"].get_index(0))

    def drops(self) -> int:
        return sum(count for event, count in self.events().items() if event >= layout.FIRST_DROP)

    def packed_records(self) -> list[bytes]:
        """Whole ones, some thousand in each."""
        return _collect(self.machine.exchange.walk(sync_only=False))

    def records(self) -> list[Record]:
        """The connection table; its size is compared with the fill counter."""
        found = [record for data in self.packed_records() for record in unpack_records(data)]
        assert self.event(Event.ENTRIES) == len(found)
        return found

    def record(self) -> Record:
        """The only connection."""
        (one,) = self.records()
        return one

    def export(self) -> bytes:
        """What a joining peer gets."""
        return b"".join(_collect(self.machine.exchange.walk(sync_only=True)))

    def merge(self, records: bytes) -> list[MergeResult]:
        asyncio.run(self.machine.exchange.merge(records))
        after = self.machine.exchange._view[: len(records)]
        return [MergeResult(one) for one in merge_results(after)]

    def counters(self, service_id: ServiceId, server_id: ServerId | None = None) -> Counters:
        service = self.tables.services[service_id]
        if server_id is None:
            return counts.unpack_counters(self.maps["service_stats"].get_index(service.entry.index))
        index = service.servers[server_id].index
        return counts.unpack_counters(self.maps["server_stats"].get_index(index), self.gauge(service_id, server_id))

    def admission(self, service_id: ServiceId) -> Admission:
        index = self.tables.services[service_id].entry.index
        return counts.unpack_admission(self.maps["admissions"].get_index(index))

    def refused(self) -> dict[str, int]:
        """By all services together."""
        counted = [self.admission(one).refused for one in self.tables.services]
        return {reason: sum(one[reason] for one in counted) for reason in NOTHING_REFUSED.refused}

    def gauge(self, service_id: ServiceId, server_id: ServerId) -> Gauge:
        index = self.tables.services[service_id].servers[server_id].index
        return Gauge.unpack(self.maps["gauges"].get_index(index))

    def gauges(self) -> tuple[int, int]:
        """Active and inactive connections of all servers; compared with the table."""
        found = [self.gauge(key, server) for key, service in self.tables.services.items() for server in service.servers]
        return sum(one.active for one in found), sum(one.inactive for one in found)


def _collect(chunks: Any) -> list[bytes]:
    async def run() -> list[bytes]:
        return [chunk async for chunk in chunks]

    return asyncio.run(run())
