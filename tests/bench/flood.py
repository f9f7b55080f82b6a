"""A flood of live frames on one CPU (BPF_F_TEST_XDP_LIVE_FRAMES): what leaves the gateway and arrives at the other end
of its cable, for a program that sends every frame back, lbnode at XDP, the kernel's forwarding and nftables' DNAT.

Rounds are interleaved and the best of each variant counts, as in ns_per_packet. UDP without checksums (RFC 768): the
connection tracking of nftables passes over segments whose checksum is wrong, and the wrapper that varies the flows
corrects none.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from dataclasses import dataclass
from functools import partial

from scapy.layers.inet import UDP

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.links import XDP_FLAGS_DRV_MODE, AttachType
from lbnode.dataplane.xdp.maps import Map
from lbnode.model import ForwardingMethod
from tests.bench.ns_per_packet import CLIENTS, PORTS, SERVER, TEMPLATE, load_wrapper
from tests.packets.bench import Bench, Machine
from tests.packets.traffic import ether, ip
from tests.packets.wire import VIP, Wire

ROUNDS = 7
PACKETS = 300_000
FLOWS = 1024
DNAT = f"""
table ip bench {{
  chain pre {{ type nat hook prerouting priority dstnat; ip daddr {VIP} udp dport 80 dnat to {SERVER}:8080; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    program: str  # "xdp_lb" or one of ns_per_packet.bpf.c
    target: str = VIP
    port: int = 80
    nftables: bool = False


def variants() -> list[Variant]:
    methods = [m for m in PORTS if m is not ForwardingMethod.FULLNAT]
    return [
        Variant("sent back as it is", "nothing"),
        *(Variant(f"lbnode, {method}", "xdp_lb", port=PORTS[method]) for method in methods),
        Variant("kernel forwarding", "kernel", target=SERVER),
        Variant("nftables DNAT", "kernel", nftables=True),
    ]


def attach(program: int, interface: str) -> int:
    return syscall.link_create(program, socket.if_nametoindex(interface), AttachType.XDP, XDP_FLAGS_DRV_MODE)


class Flood:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.object = load_wrapper()
        self.machine = Machine(entries=1 << 14)
        self.bench = Bench(self.machine, wire, "xdp")
        for method, port in PORTS.items():
            self.bench.server(self.bench.service(f"udp:{VIP}:{port}"), f"{SERVER}:{port}", method)
        program = self.object.programs["absorb"]
        self.links = [wire.net.call("far", partial(attach, program, end)) for end in ("front", "back")]

    def close(self) -> None:
        for link in self.links:
            os.close(link)
        self.machine.close()
        self.object.close()

    def run(self, variant: Variant) -> float:
        """Million packets per second that arrived."""
        packet = ip(CLIENTS, variant.target) / UDP(sport=1024, dport=variant.port, chksum=0) / bytes(22)
        frame = ether(packet, target=self.wire.mac("front"))
        programs = self.object.programs | self.machine.programs
        put(self.object, "setup", struct.pack("=IIII", len(frame), FLOWS - 1, 0, 0) + frame[:TEMPLATE])
        put(self.object, "target", struct.pack("=I", programs[variant.program]))
        put(self.object, "absorbed", bytes(8))
        context = struct.pack("=6I", 0, len(frame), 0, self.wire.index("front"), 0, 0)
        if variant.nftables:
            self.wire.net.run("gw", "nft", DNAT)
        try:
            with self.wire.inside():
                started = time.monotonic()
                syscall.prog_test_run(
                    programs["wrapper"],
                    frame,
                    repeat=PACKETS,
                    context=context,
                    flags=syscall.BPF_F_TEST_XDP_LIVE_FRAMES,
                )
                arrived, took = self._arrived(), time.monotonic() - started
        finally:
            if variant.nftables:
                self.wire.net.run("gw", "nft", "delete", "table", "ip", "bench")
        if arrived < PACKETS // 2:
            raise RuntimeError(f"{variant.name}: {arrived} of {PACKETS} arrived; counted {self.bench.events()}")
        return arrived / took / 1e6

    def _arrived(self) -> int:
        one = Map(self.object.maps["absorbed"])
        count = int.from_bytes(one.get_index(0), sys.byteorder)
        one.close()
        return count


def put(wrapper: LoadedObject, name: str, value: bytes) -> None:
    one = Map(wrapper.maps[name])
    one.put_index(0, value)
    one.close()


def main() -> None:
    wire = Wire(f"lbt-flood{os.getpid()}")
    try:
        flood = Flood(wire)
        try:
            best: dict[str, float] = {}
            for _ in range(ROUNDS):
                for variant in variants():
                    best[variant.name] = max(flood.run(variant), best.get(variant.name, 0.0))
        finally:
            flood.close()
    finally:
        wire.net.close()
    forwarding = best["kernel forwarding"]
    print(f"{'':24}{'Mpps':>8}{'x kernel forwarding':>22}")
    for name, rate in best.items():
        print(f"{name:24}{rate:>8.2f}{rate / forwarding:>21.1f}x")


if __name__ == "__main__":
    main()
