"""What one packet costs in the balancer's XDP program, beside the least that any balancer could do with it.

BPF_PROG_TEST_RUN repeats the program on one CPU without any network; the cost of the harness is subtracted. Rounds are
interleaved and the least of each counts, so that a busy machine slows all alike: the ratio is the result, not the
nanoseconds. Left out are drivers, DMA and the cache misses of real traffic.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.model import ForwardingMethod
from tests.packets.bench import DIRECT, MASQUERADE, TUNNEL, VIP, Bench, Machine, Wire, segment

ROUNDS = 9
REPEAT = 100_000
FRAME = 64
BUCKETS = 1 << 14  # 65536 connections
FLOWS = {"1 flow": 1, "1k flows": 1024}
NEW = "new flows, table full"
METHODS: dict[str, tuple[int, ForwardingMethod]] = {
    "direct": (80, DIRECT),
    "tunnel": (81, TUNNEL),
    "masquerade": (82, MASQUERADE),
}
XDP_SENT = (3, 4)  # XDP_TX, XDP_REDIRECT


@dataclass(frozen=True)
class Case:
    program: str
    port: int = 80
    flags: str = "A"
    flows: int = 1  # a power of two


class Harness:
    def __init__(self, bench: Bench, folder: Path) -> None:
        target = folder / "floor.bpf.o"
        multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
        source = Path(__file__).with_name("floor.bpf.c")
        command = ["clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", f"-I/usr/include/{multiarch}"]
        subprocess.run([*command, "-c", source, "-o", target], check=True)
        self.object = LoadedObject(target, pins=lambda name: None)
        self.state = Map(self.object.maps["harness"])
        self.bench = bench
        programs = self.object.programs | {"balancer": bench.machine.programs["xdp_lb"]}
        self.places = {name: place for place, name in enumerate(("nothing", "parse_and_send", "balancer"))}
        for name, place in self.places.items():
            syscall.map_update(
                self.object.maps["programs"], struct.pack("=I", place), struct.pack("=I", programs[name])
            )
        self.next = 0

    def run(self, case: Case, repeat: int = REPEAT) -> int:
        """Nanoseconds per packet, the harness included."""
        frame = segment(("10.0.0.0", 0), (VIP, case.port), case.flags, self.bench.wire.mac("front"))
        # identification 0xffff with source 10.0.0.0, as `restore` expects; the header's checksum follows
        header = frame[14:18] + b"\xff\xff" + frame[20:34]
        checksum = int.from_bytes(header[10:12], "big") - 0xFFFF
        header = header[:10] + (checksum % 0xFFFF).to_bytes(2, "big") + header[12:]
        frame = (frame[:14] + header + frame[34:]).ljust(FRAME, b"\0")
        state = frame + struct.pack("=IIII", case.flows - 1, self.next, self.places[case.program], 0)
        self.state.put_index(0, state)
        context = struct.pack("=6I", 0, FRAME, 0, self.bench.wire.index("front"), 0, 0)
        with self.bench.wire.inside():
            result = syscall.prog_test_run(self.object.programs["restore"], frame, repeat=repeat, context=context)
        if result.retval not in XDP_SENT:
            raise RuntimeError(f"{case}: the program returned {result.retval}; events: {self.bench.events()}")
        if case.flows > 1 << 30:
            self.next += repeat  # further new flows, not the same ones again
        return result.duration_ns


def measure() -> dict[str, float]:
    """Least ns per packet by name of the case, net of the harness."""
    machine, wire = Machine(buckets=BUCKETS), Wire(f"lbt-nsp{os.getpid()}")
    try:
        bench = Bench(machine, wire, "xdp")
        for port, method in METHODS.values():
            bench.server(
                bench.service(f"tcp:{VIP}:{port}"), f"198.51.100.11:{8080 if method is MASQUERADE else port}", method
            )
        with tempfile.TemporaryDirectory() as folder:
            return _rounds(Harness(bench, Path(folder)))
    finally:
        wire.net.close()
        machine.close()


def _rounds(harness: Harness) -> dict[str, float]:
    cases = {"harness": Case("nothing"), "parse and send": Case("parse_and_send")}
    for method, (port, _) in METHODS.items():
        for flows in FLOWS.values():
            for flags in ("S", "A"):
                harness.run(Case("balancer", port, flags, flows), flows)
        for name, flows in FLOWS.items():
            cases[f"{method}, {name}"] = Case("balancer", port, "A", flows)
        cases[f"{method}, {NEW}"] = Case("balancer", port, "S", 1 << 31)
    # The known flows first: new ones may push nothing out that is established, but they share its cache lines.
    found: dict[str, list[int]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            found[name].append(harness.run(case))
    drops = {event: count for event, count in harness.bench.events().items() if event >= Event.DROP_NO_SERVER}
    if drops:
        print(f"note: packets were dropped meanwhile: {drops}")
    own = min(found.pop("harness"))
    return {name: max(min(times) - own, 0.5) for name, times in found.items()}


def main() -> None:
    found = measure()
    floor = found.pop("parse and send")
    print(f"{'':36} {'ns/packet':>10} {'x floor':>8}")
    print(f"{'parse and send (floor)':36} {floor:10.0f} {1:8.1f}")
    for name, ns in found.items():
        print(f"{name:36} {ns:10.0f} {ns / floor:8.1f}")


if __name__ == "__main__":
    main()
