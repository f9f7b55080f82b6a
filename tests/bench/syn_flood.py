"""A SYN flood against a masquerade service, with and without SYN cookies: what an answer costs, what clients notice.

The flood runs inside the network namespaces of the tests, from 203.0.113.0/24. New connections succeed if their first
request is answered within three seconds; what established ones lose is what their clients had to send again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from scapy.layers.inet import TCP

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.model import ForwardingMethod, ProgrammedService
from tests.bench.ns_per_packet import CLIENTS, NEW_FLOWS, PORTS, SERVER, SMALL, Variant, load_wrapper, mean_ns
from tests.netns.xdp_lab import HTTP, PORT, VIP, Lab, ask, server
from tests.packets.bench import Bench, Machine
from tests.packets.traffic import ip
from tests.packets.wire import VIP as BENCH_VIP
from tests.packets.wire import Wire

ROUNDS = 7
PACKETS = 50_000
WEB = PORTS[ForwardingMethod.MASQUERADE]
SECONDS, PER_SECOND = 4.0, 40_000
TABLE, THRESHOLD = 4096, 500
ESTABLISHED = 20
_TCP_INFO = struct.Struct("=100xI32xI")  # <linux/tcp.h>: tcpi_total_retrans, tcpi_segs_out


def cost() -> None:
    wire = Wire(f"lbt-syn{os.getpid()}")
    try:
        machine, wrapper = Machine(entries=SMALL), load_wrapper()
        bench = Bench(machine, wire, "xdp")
        service = bench.service(f"tcp:{BENCH_VIP}:{WEB}")
        bench.server(service, f"{SERVER}:{8000 + WEB}")
        plain = bench.tables.services[service].programmed
        new = Variant("SYN, an entry in the full table", "xdp_lb", NEW_FLOWS, WEB, "S")
        answered = replace(new, name="SYN, answered with a cookie")
        known = Variant("known connection", "xdp_lb", 1, WEB)
        proxied = replace(known, name="known connection that began with a cookie")
        floor = Variant("wrapper", "nothing", NEW_FLOWS, WEB)
        mean_ns(wrapper, bench, new, 0, 2 * SMALL)  # fills the table
        best: dict[str, int] = {}
        for turn in range(ROUNDS):
            for variant in (floor, new, answered, known, proxied):
                bench.tables.put_service(replace(plain, syn_proxy=0 if "cookie" in variant.name else None))
                if variant in (known, proxied):
                    _open(bench)
                took = mean_ns(wrapper, bench, variant, 2 * SMALL + PACKETS * turn, PACKETS)
                best[variant.name] = min(took, best.get(variant.name, took))
        wrapper_ns = best.pop("wrapper")
        for name, took in best.items():
            print(f"{name:45}{took - wrapper_ns:>6} ns")
        machine.close()
        wrapper.close()
    finally:
        wire.net.close()


def _open(bench: Bench) -> None:
    """The wrapper's flow 0, by a cookie if the service asks for one."""
    bench.send(ip(CLIENTS, BENCH_VIP) / TCP(sport=1024, dport=WEB, flags="R"))  # what there was ends
    bench.advance(200)
    answer = bench.send(ip(CLIENTS, BENCH_VIP) / TCP(sport=1024, dport=WEB, flags="S", seq=99)).ip[TCP]
    if answer.flags == "SA":
        bench.send(ip(CLIENTS, BENCH_VIP) / TCP(sport=1024, dport=WEB, flags="A", seq=100, ack=answer.seq + 1))
    bench.send(ip(SERVER, CLIENTS) / TCP(sport=8000 + WEB, dport=1024, flags="SA", seq=7, ack=100), "back")
    bench.send(ip(CLIENTS, BENCH_VIP) / TCP(sport=1024, dport=WEB, flags="A", seq=100, ack=answer.seq + 1))


@dataclass(frozen=True, slots=True)
class Seen:
    tried: int
    succeeded: int
    median_ms: float
    sent: int  # segments of established connections
    again: int  # of these, sent again
    flood: int
    to_servers: int  # connections

    def __str__(self) -> str:
        lost = 100 * self.again / max(1, self.sent)
        return (
            f"{self.succeeded:>6} of {self.tried:<5}{self.median_ms:>9.1f} ms{self.sent:>10}{lost:>9.3f} %"
            f"{self.flood:>11}{self.to_servers:>12}"
        )


def _info(socks: list[socket.socket]) -> tuple[int, int]:
    found = [_TCP_INFO.unpack(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)) for one in socks]
    return sum(again for again, _ in found), sum(sent for _, sent in found)


def _clients(lab: Lab, there: list[socket.socket], until: float) -> tuple[int, list[float]]:
    tried, took = 0, []
    while time.monotonic() < until:
        started = time.monotonic()
        tried += 1
        with contextlib.suppress(OSError), lab.connect(timeout=3) as sock:
            ask(sock)
            took.append(1000 * (time.monotonic() - started))
        for one in there:
            ask(one)
    return tried, took


async def _measure(lab: Lab, plane: XdpPlane, *, threshold: int | None, flooded: bool) -> Seen:
    await plane.apply(PutService(ProgrammedService(HTTP, "rr", syn_proxy=threshold)))
    for number in (1, 2):
        await plane.apply(PutServer(HTTP, server(number)))
    with contextlib.ExitStack() as stack:
        there = [stack.enter_context(lab.connect()) for _ in range(ESTABLISHED)]
        for one in there:
            ask(one)
        again, sent = _info(there)
        before = (await plane.counters())[HTTP].total.connections
        flood = None
        if flooded:
            mac = lab.net.run("gw", "ip", "-o", "link", "show", "front").split("link/ether ")[1].split()[0]
            words = ("eth0", mac, VIP, str(PORT), str(SECONDS + 5), str(PER_SECOND))
            flood = lab.net.popen("client", sys.executable, "-m", "tests.netns.flood", *words, stdout=-1)
            assert flood.stdout is not None and flood.stdout.readline() == b"ready\n"
            await asyncio.sleep(1)
        tried, took = await asyncio.to_thread(_clients, lab, there, time.monotonic() + SECONDS)
        count = 0
        if flood is not None and flood.stdout is not None:
            flood.terminate()
            count = int(flood.stdout.readline())
            flood.wait(5)
        again, sent = (now - then for now, then in zip(_info(there), (again, sent), strict=True))
        after = (await plane.counters())[HTTP].total.connections
    return Seen(tried, len(took), statistics.median(took or [0.0]), sent, again, count, after - before - len(took))


async def clients() -> None:
    heads = zip(
        ("new connections", "median", "established", "lost", "flood", "to servers"),
        (15, 9, 14, 11, 11, 12),
        strict=True,
    )
    print(" " * 26 + "".join(f"{word:>{width}}" for word, width in heads))
    for hook in ("tcx", "xdp"):
        for name, threshold, flooded in (
            ("no flood", None, False),
            ("flood, no cookies", None, True),
            ("flood, cookies", THRESHOLD, True),
            ("all by cookie, no flood", 0, False),
        ):
            with tempfile.TemporaryDirectory() as directory, Lab(xdp=hook == "xdp") as lab:
                async with lab.plane(Path(directory), connections=TABLE) as plane:
                    seen = await _measure(lab, plane, threshold=threshold, flooded=flooded)
                    print(f"{hook}  {name:24}{seen}", flush=True)


def main() -> None:
    cost()
    print()
    asyncio.run(clients())


if __name__ == "__main__":
    main()
