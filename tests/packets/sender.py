"""Packets by the hundred thousand on several CPUs at once, by the benchmark's programs."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.lab.netns import call_in_netns
from tests.packets.bench import Bench
from tests.packets.traffic import ether
from tests.packets.wire import VIP, VIP6, Wire

CLIENTS, SERVER = "203.0.113.0", "198.51.100.11"


class Sender:
    """Repeats packets of many flows inside the kernel: two of them on two CPUs meet all the time. `peer`: whom the
    server answers; its last byte is free for a part of the flow's number."""

    def __init__(self, bench: Bench, wrapper: LoadedObject, seed: int, flows: int, peer: str = CLIENTS) -> None:
        self.bench, self.wrapper, self.flows, self.peer = bench, wrapper, flows, peer
        self.random = random.Random(seed)
        self.maps = {name: Map(fd) for name, fd in wrapper.maps.items()}
        self.maps["target"].put_index(0, struct.pack("=I", bench.machine.programs["xdp_lb"]))

    def send(
        self,
        flags: str,
        *,
        packets: int,
        back: bool = False,
        first: int | None = None,
        port: int = 80,
        addresses: bool = False,
    ) -> None:
        """`first`: number of the flow to begin with; None: any. `addresses`: each flow is an IPv6 client of its own."""
        packet: Packet
        if addresses:
            packet = IPv6(src="2001:db8:f::", dst=VIP6) / TCP(sport=1024, dport=port, flags=flags)
        elif back:
            packet = IP(src=SERVER, dst=self.peer) / TCP(sport=8080, dport=1024, flags=flags)
        else:
            packet = IP(src=CLIENTS, dst=VIP) / TCP(sport=1024, dport=port, flags=flags)
        index, mac = self.bench.wire.interfaces["back" if back else "front"]
        frame = ether(packet / bytes(10), target=mac)
        first = self.random.randrange(self.flows) if first is None else first
        setup = struct.pack("=IIHHI", len(frame), self.flows - 1, back, addresses, first)
        self.maps["setup"].put_index(0, setup + frame[:64])
        context = struct.pack("=6I", 0, len(frame), 0, index, 0, 0)
        syscall.prog_test_run(self.wrapper.programs["wrapper"], frame, repeat=packets, context=context)


def at_once(wire: Wire, senders: list[Sender], send: Callable[[Sender], None]) -> None:
    """Each on a CPU of its own."""
    cpus, start, failures = sorted(os.sched_getaffinity(0)), threading.Barrier(len(senders)), list[BaseException]()

    def run(sender: Sender, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread
        start.wait(60)
        send(sender)

    def guarded(sender: Sender, cpu: int) -> None:
        try:
            call_in_netns(wire.namespace, lambda: run(sender, cpu))
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failures.append(error)
            start.abort()

    pairs = [(sender, cpus[number % len(cpus)]) for number, sender in enumerate(senders)]
    threads = [threading.Thread(target=guarded, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
