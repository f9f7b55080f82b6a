"""What the choice of a server costs a new flow, by scheduler and number of servers, by BPF_PROG_TEST_RUN.

Every flow is a new one and the table is full, so each choice comes after a connection that ended somewhere: what the
choice by load has to find out anew. The fastest of several rounds counts, as in ns_per_packet.
"""

from __future__ import annotations

import os
import sys

from lbnode.dataplane.xdp.layout import SCHEDULERS
from lbnode.model import ForwardingMethod
from tests.bench.ns_per_packet import NEW_FLOWS, SMALL, Variant, load_wrapper, mean_ns
from tests.packets.bench import Bench, Machine
from tests.packets.wire import VIP, Wire

SERVERS = (2, 16, 64, 256)
ROUNDS = 5
PACKETS = 40_000
NEW = Variant("new flow each", "xdp_lb", NEW_FLOWS, flags="S")
WRAPPER = Variant("wrapper", "nothing", NEW_FLOWS)


def main() -> None:
    wire = Wire(f"lbt-sched{os.getpid()}")
    try:
        machine, wrapper = Machine(entries=SMALL), load_wrapper()
        print(f"{'new flow, ns':16}" + "".join(f"{number:>7} servers" for number in SERVERS))
        for scheduler in sys.argv[1:] or SCHEDULERS:
            cells = []
            for number in SERVERS:
                bench = _bench(machine, wire, scheduler, number)
                mean_ns(wrapper, bench, NEW, 0, 2 * SMALL)  # fills the table
                times = [
                    mean_ns(wrapper, bench, NEW, 2 * SMALL + PACKETS * turn, PACKETS)
                    - mean_ns(wrapper, bench, WRAPPER, 0, PACKETS)
                    for turn in range(ROUNDS)
                ]
                cells.append(f"{min(times):>15}")
            print(f"{scheduler:16}" + "".join(cells), flush=True)
        machine.close()
        wrapper.close()
    finally:
        wire.net.close()


def _bench(machine: Machine, wire: Wire, scheduler: str, number: int) -> Bench:
    bench = Bench(machine, wire, "xdp")
    service = bench.service(f"tcp:{VIP}:80", scheduler)
    for one in range(number):
        # with this weight ovf, too, has room for every connection that the table holds
        bench.server(service, f"10.0.{one // 200}.{one % 200 + 1}:80", ForwardingMethod.DIRECT, weight=1 << 20)
    return bench


if __name__ == "__main__":
    main()
