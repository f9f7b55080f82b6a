"""`make bench`: every benchmark, one table each. Figures are ratios within one run; nothing is asserted by time."""

from __future__ import annotations

import asyncio
import sys

from tests.bench import ns_per_packet, throughput
from tests.bench.failover.__main__ import FAULTS, PAIRS, measure


def main() -> int:
    print("Program cost: ns per packet by BPF_PROG_TEST_RUN, beside a parse+TX floor program\n", flush=True)
    ns_per_packet.main()
    print("\nTCP through the gateway: HTTP requests by wrk, beside HAProxy and nftables DNAT\n", flush=True)
    asyncio.run(throughput.main())
    print("\nFailover as a client sees it, beside keepalived\n", flush=True)
    measure(5, [100], list(PAIRS)[:2], FAULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
