"""`make bench`: every benchmark, one table each. Figures are ratios within one run; nothing is asserted by time."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from lbnode.planes import missing_ip_vs
from tests.bench import flood, listing, ns_per_packet, schedulers, syn_flood, throughput
from tests.bench.failover.__main__ import FAULTS, PAIRS, measure
from tests.bench.failover.results import Cell


def main() -> int:
    print("Program cost: ns per packet by BPF_PROG_TEST_RUN, beside a parse+TX floor program\n", flush=True)
    ns_per_packet.main()
    print("\nA flood of live frames through one CPU, beside the kernel's forwarding and nftables DNAT\n", flush=True)
    flood.main()
    print("\nNew flows by scheduler and number of servers\n", flush=True)
    schedulers.main()
    print("\nA SYN flood, with and without SYN cookies\n", flush=True)
    syn_flood.main()
    print("\nTCP through the gateway: HTTP requests by wrk, beside HAProxy and nftables DNAT\n", flush=True)
    asyncio.run(throughput.main())
    print("\nA million connections listed\n", flush=True)
    asyncio.run(listing.main())
    print("\nFailover as a client sees it, beside keepalived\n", flush=True)
    measure([Cell(100, fault, pair) for fault in FAULTS for pair in list(PAIRS)[:2]], 5)
    print("\nIPVS: operations, and beside keepalived on the same ip_vs\n", flush=True)
    for module in ("ipvs_ops", "ipvs_keepalived"):
        in_guest = (sys.executable, "-m", "tests.uml.run", "--limit", "900") if missing_ip_vs() else ()
        subprocess.run([*in_guest, sys.executable, "-m", f"tests.bench.{module}"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
