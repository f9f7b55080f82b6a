"""What a packet costs in the XDP program, by BPF_PROG_TEST_RUN, as a multiple of a program that only parses and sends.

Every variant runs in turn, many rounds; the fastest round of each counts, because whatever else the machine does only
slows down. The cost of the wrapper that renews the packet is taken off. The tables of a million flows take 2.4 GB.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from pathlib import Path

from scapy.layers.inet import TCP

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.election.events import FOREVER
from lbnode.model import ForwardingMethod
from tests.packets.bench import Bench, Machine
from tests.packets.traffic import ether, ip
from tests.packets.wire import SERVER6, VIP, VIP6, Wire

SOURCE = Path(__file__).with_name("ns_per_packet.bpf.c")
CLIENTS = "203.0.113.0"  # its last byte is free for a part of the flow's number
MANY_CLIENTS = {4: "198.18.0.0", 6: "2001:db8:c::"}  # the last two bytes are free; IPv4: RFC 2544's, for benchmarks
LOCALS = {4: "198.51.0.0", 6: "2001:db8:b::"}  # full NAT: its local addresses but for the last two bytes
SERVER = "198.51.100.11"
ENDS = {4: (CLIENTS, VIP, SERVER), 6: ("2001:db8:c::", VIP6, SERVER6)}
TEMPLATE = 64
ROUNDS = 10
PACKETS = 100_000
FLOWS = (1, 1024, 65536)
REPLIES_TO = (256, 1024, 4096, 65536)  # clients, one connection each
MILLION = 1 << 20
NEW_FLOWS = 1 << 22  # as many as the wrapper can tell apart
# entries: a table that is full, one with room for all flows but a million, one for a million in three modes
SMALL, LARGE, HUGE = 1 << 15, 1 << 20, 1 << 23
PORTS: Mapping[ForwardingMethod, int] = {
    ForwardingMethod.DIRECT: 80,
    ForwardingMethod.TUNNEL: 81,
    ForwardingMethod.MASQUERADE: 82,
    ForwardingMethod.FULLNAT: 83,
}


class Spread(IntEnum):
    """ns_per_packet.bpf.c: enum spread."""

    PORTS = 0
    ADDRESSES = 1
    TABLE = 2


def server_port(port: int) -> int:
    """By a service's port: masquerade translates it, too."""
    return 100 + port if port == PORTS[ForwardingMethod.MASQUERADE] else port


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    program: str  # "xdp_lb" or one of ns_per_packet.bpf.c
    flows: int
    port: int = 80
    flags: str = "A"
    reply: bool = False
    family: int = 4
    options: Sequence[tuple[str, object]] = ()  # TCP's, as scapy names them
    spread: Spread = Spread.PORTS

    def frame(self, wire: Wire) -> bytes:
        clients, vip, server = ENDS[self.family]
        if self.spread is Spread.ADDRESSES:
            clients = MANY_CLIENTS[self.family]
        if self.reply:
            target = LOCALS[self.family] if self.spread is Spread.TABLE else clients
            packet = ip(server, target) / TCP(sport=server_port(self.port), dport=0, flags=self.flags)
        else:
            options = list(self.options)
            packet = ip(clients, vip) / TCP(sport=1024, dport=self.port, flags=self.flags, options=options)
        return ether(packet / bytes(10), target=wire.mac("back" if self.reply else "front"))


STAMPS = (("NOP", None), ("NOP", None), ("Timestamp", (1, 2)))
SACK = (("NOP", None), ("NOP", None), ("SAck", (1, 2)))
MSS, CLAMPED = (("MSS", 1460),), 84  # the port of a service with an `mss` below that
_FULL, _NAT = PORTS[ForwardingMethod.FULLNAT], PORTS[ForwardingMethod.MASQUERADE]
# What the table has no columns for, named as in the lines below it.
OTHERS = (
    Variant("fullnat, 1024 flows, with timestamps", "xdp_lb", FLOWS[1], _FULL, options=STAMPS),
    Variant("fullnat, 1024 flows, with timestamps and SACK", "xdp_lb", FLOWS[1], _FULL, options=(*STAMPS, *SACK)),
    Variant("masquerade, new flow, its SYN has an MSS", "xdp_lb", NEW_FLOWS, _NAT, "S", options=MSS),
    Variant("masquerade, new flow, its MSS is made smaller", "xdp_lb", NEW_FLOWS, CLAMPED, "S", options=MSS),
)


def flows_of(method: ForwardingMethod) -> tuple[int, ...]:
    """Fewer for full NAT: its few local addresses have no more ports."""
    return FLOWS[:2] if method is ForwardingMethod.FULLNAT else (*FLOWS, MILLION)


def row_of(method: ForwardingMethod, family: int) -> str:
    return f"IPv{family} {method}"


def to_clients(name: str, clients: int, flags: str, family: int, *, reply: bool) -> Variant:
    """Masqueraded connections, one of each client."""
    return Variant(name, "xdp_lb", clients, _NAT, flags, reply, family, spread=Spread.ADDRESSES)


def variants() -> list[Variant]:
    """Named by the row and the column of the table that is printed."""
    result = [Variant("wrapper", "nothing", 1024), Variant("floor", "floor_program", 1024)]
    for family in ENDS:
        for method, port in PORTS.items():
            row = row_of(method, family)
            result += [Variant(f"{row}/{n}", "xdp_lb", n, port, family=family) for n in flows_of(method)]
            result.append(Variant(f"{row}/new", "xdp_lb", NEW_FLOWS, port, "S", family=family))
            if method is ForwardingMethod.MASQUERADE:
                many = FLOWS[1]
                result.append(Variant(f"{row}/reply", "xdp_lb", many, port, reply=True, family=family))
                result += [to_clients(f"{row}/to {n}", n, "A", family, reply=True) for n in REPLIES_TO]
            elif method is ForwardingMethod.FULLNAT:
                spread = Spread.TABLE
                result.append(
                    Variant(f"{row}/reply", "xdp_lb", FLOWS[1], port, reply=True, family=family, spread=spread)
                )
    return [*result, *OTHERS]


def load_wrapper() -> LoadedObject:
    """ns_per_packet.bpf.c; every caller has maps of its own."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "ns_per_packet.bpf.o"
        include = f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH') or 'x86_64-linux-gnu'}"
        options = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", include]
        subprocess.run(["clang", *options, "-c", str(SOURCE), "-o", str(target)], check=True)
        return LoadedObject(target, pins=lambda _: None)


class Harness:
    def __init__(self, wire: Wire) -> None:
        self.object = load_wrapper()
        self.wire = wire
        self.full, self.large = self._bench(SMALL), self._bench(LARGE)
        self.huge = {family: self._bench(HUGE) for family in ENDS}
        self.next_flow = 0
        for method, port in reversed(PORTS.items()):
            for family in (6, 4):  # the few first: where the table is full, entries lie in their second places
                for flows in flows_of(method)[1:]:
                    self._open(flows, port, family)
                self.run(Variant("fill", "xdp_lb", NEW_FLOWS, port, "S", family=family), 2 * SMALL)
            if method is ForwardingMethod.FULLNAT:
                self.ends = self._local_ends()
        wire.net.run("gw", "ip", "route", "add", f"{MANY_CLIENTS[4]}/16", "via", "192.0.2.254")
        clients = max(REPLIES_TO)
        for family in ENDS:
            for flags in ("S", "A"):
                self.run(to_clients("open", clients, flags, family, reply=False), clients)

    def _local_ends(self) -> dict[int, bytes]:
        """Map `ends` by family: the local addresses and ports of full NAT's connections."""
        ends: dict[int, list[int]] = {family: [] for family in ENDS}
        for record in self.large.records():
            local = record.outward.target
            ends[local.version].append((int(local) & 0xFFFF) << 16 | record.outward.target_port)
        return {family: struct.pack(f"={FLOWS[1]}I", *found[: FLOWS[1]]) for family, found in ends.items()}

    def _open(self, flows: int, port: int, family: int) -> None:
        """So many connections; few of them half open at a time, as those give way to others."""
        at_once = min(flows, 8192)
        for _ in range(flows // at_once):
            first = self.next_flow
            for flags in ("S", "A"):
                self.next_flow = first
                self.run(Variant("open", "xdp_lb", flows, port, flags, family=family), at_once)

    def _bench(self, entries: int) -> Bench:
        bench = Bench(Machine(entries=entries), self.wire, "xdp")
        for method, port in PORTS.items():
            pool = range(4, 8) if method is ForwardingMethod.FULLNAT else ()
            local, local6 = [f"198.51.100.{last}" for last in pool], [f"2001:db8:b::{last}" for last in pool]
            bench.server(bench.service(f"tcp:{VIP}:{port}"), f"{SERVER}:{server_port(port)}", method, local=local)
            bench.server(
                bench.service(f"tcp:[{VIP6}]:{port}"), f"[{SERVER6}]:{server_port(port)}", method, local=local6
            )
        clamped = bench.service(f"tcp:{VIP}:{CLAMPED}", mss=1400)
        bench.server(clamped, f"{SERVER}:{CLAMPED}", ForwardingMethod.MASQUERADE)
        lease = bench.tables.set_leases({"front": {ip_address(VIP), ip_address(VIP6)}})["front"]
        bench.maps["leases"].put_index(lease, struct.pack("=Q", FOREVER))
        return bench

    def close(self) -> None:
        for bench in (self.full, self.large, *self.huge.values()):
            bench.machine.close()
        self.object.close()

    def run(self, variant: Variant, packets: int) -> int:
        """Mean ns per packet; the kernel tells whole ones."""
        bench = {NEW_FLOWS: self.full, MILLION: self.huge[variant.family]}.get(variant.flows, self.large)
        first = 0
        if packets < variant.flows:  # the next ones: a round does not come to all
            first, self.next_flow = self.next_flow, (self.next_flow + packets) % NEW_FLOWS
        if variant.reply:
            bench.machine.forget_hops()  # the clock stands still here: what other variants remembered would stay
        if variant.spread is Spread.TABLE:
            ends = Map(self.object.maps["ends"])
            ends.put_range(0, self.ends[variant.family])
            ends.close()
        return mean_ns(self.object, bench, variant, first, packets)


def mean_ns(wrapper: LoadedObject, bench: Bench, variant: Variant, first: int, packets: int) -> int:
    """ns per packet of so many packets, flow after flow from number `first` on; the kernel tells whole ones."""
    programs = wrapper.programs | bench.machine.programs
    frame = variant.frame(bench.wire)
    setup = struct.pack("=IIHHI", len(frame), variant.flows - 1, variant.reply, variant.spread, first)
    for name, value in (("setup", setup + frame[:TEMPLATE]), ("target", struct.pack("=I", programs[variant.program]))):
        one = Map(wrapper.maps[name])
        one.put_index(0, value)
        one.close()
    interface = bench.wire.index("back" if variant.reply else "front")
    context = struct.pack("=6I", 0, len(frame), 0, interface, 0, 0)
    with bench.wire.inside():
        result = syscall.prog_test_run(programs["wrapper"], frame, repeat=packets, context=context)
    if result.retval not in (3, 4):  # XDP_TX, XDP_REDIRECT
        raise RuntimeError(f"{variant.name}: verdict {result.retval}; counted {bench.events()}")
    return result.duration_ns


def main() -> None:
    best: dict[str, int] = {}
    wire = Wire(f"lbt-ns{os.getpid()}")
    try:
        harness = Harness(wire)
        try:
            for _ in range(ROUNDS):
                for variant in variants():
                    duration = harness.run(variant, PACKETS)
                    best[variant.name] = min(duration, best.get(variant.name, duration))
        finally:
            harness.close()
    finally:
        wire.net.close()
    print(table(best))


def table(best: Mapping[str, int]) -> str:
    """ns per packet by variant's name, as a table without the wrapper's share: forwarding methods by flows."""
    wrapper, floor = best["wrapper"], best["floor"] - best["wrapper"]
    columns = {str(n): f"{n} flows" for n in (*FLOWS, MILLION)} | {"new": "new flow", "reply": "reply"}
    lines = [f"{'ns/packet (x floor)':<18}" + "".join(f"{title:>16}" for title in columns.values())]
    for family in ENDS:
        for method in PORTS:
            row = row_of(method, family)
            cells = []
            for column in columns:
                took = best.get(f"{row}/{column}", wrapper) - wrapper
                cells.append(f"{took} ({took / max(1, floor):.1f})" if took else "-")
            lines.append(f"{row:<18}" + "".join(f"{cell:>16}" for cell in cells))
    lines += ["", *(f"IPv4 {one.name}: {best[one.name] - wrapper}" for one in OTHERS if one.name in best)]
    for family in ENDS:
        row = row_of(ForwardingMethod.MASQUERADE, family)
        took = [f"{n}: {best[f'{row}/to {n}'] - wrapper}" for n in REPLIES_TO if f"{row}/to {n}" in best]
        lines.append(f"{row}, replies, one to each of so many clients in turn: {', '.join(took)}")
    lines.append(f"\nThe floor, which parses and sends: {floor} ns. The wrapper's {wrapper} ns are taken off; +-1 ns.")
    lines.append(f"New flows come to a full table; replies are those of {FLOWS[1]} flows.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
