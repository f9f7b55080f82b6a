"""Asks for the VIP each millisecond until its standard input is closed, then prints all it saw as one JSON document.

`python -m tests.bench.failover.probe VIP PORT INTERFACE MAC...`. Each round sends one datagram as any client does, by
the kernel's ARP entry, and one to each MAC address, whoever the ARP entry names: a gateway that answers there serves
the VIP, and two that do serve it twice.

Output: {"sent": [ns, ...], "answers": [[index, by], ...], "direct": {mac: [index, ...]}}; index counts rounds, `by` is
the name the echo gave, times are of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

PERIOD_NS = 1_000_000
ETH_P_IP = 0x0800
DIRECT = 1 << 31  # marks the number of a datagram that was sent to a MAC address


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


class Probe:
    def __init__(self, vip: str, port: int, interface: str, macs: list[str]) -> None:
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.setblocking(False)
        self.client.bind(("", 0))
        self.frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.frames.bind((interface, 0))
        self.target = (vip, port)
        self.macs = macs
        self.headers = [self._header(mac, vip, port, interface) for mac in macs]
        self.sent: list[int] = []
        self.answers: list[tuple[int, str]] = []
        self.direct: dict[str, list[int]] = {mac: [] for mac in macs}

    def _header(self, mac: str, vip: str, port: int, interface: str) -> bytes:
        """Ethernet, IPv4 and UDP without a checksum (RFC 768: zero), for four bytes of payload."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.connect((vip, port))
            source = socket.inet_aton(route.getsockname()[0])
        ours = self.frames.getsockname()[4]
        addresses = source + socket.inet_aton(vip)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 32, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        udp = struct.pack("!HHHH", self.client.getsockname()[1], port, 12, 0)
        return bytes.fromhex(mac.replace(":", "")) + ours + struct.pack("!H", ETH_P_IP) + ip + udp

    def ask(self) -> None:
        number = len(self.sent)
        self.sent.append(time.monotonic_ns())
        with contextlib.suppress(OSError):  # no ARP answer: an unanswered question
            self.client.sendto(struct.pack("!I", number), self.target)
        for index, header in enumerate(self.headers):
            try:
                self.frames.send(header + struct.pack("!I", DIRECT | index << 24 | number))
            except OSError:  # the queue is full
                continue

    def hear(self) -> None:
        while True:
            try:
                data = self.client.recv(64)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of an earlier datagram
                continue
            (number,) = struct.unpack("!I", data[-4:])
            if number & DIRECT:
                self.direct[self.macs[number >> 24 & 0x7F]].append(number & 0xFFFFFF)
            else:
                self.answers.append((number, data[:-4].decode()))

    def run(self) -> None:
        due = time.monotonic_ns()
        said = False
        while True:
            wait = max(0, due - time.monotonic_ns()) / 1e9
            ready, _, _ = select.select([self.client, sys.stdin], [], [], wait)
            self.hear()
            if sys.stdin in ready:
                return
            if self.answers and not said:
                said = True
                print("answered", flush=True)
            if time.monotonic_ns() >= due:
                self.ask()
                due = max(due + PERIOD_NS, time.monotonic_ns())


def main() -> None:
    vip, port, interface, *macs = sys.argv[1:]
    with contextlib.suppress(PermissionError):  # a busy machine shall not look like a gap; the gateways have 10
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    probe = Probe(vip, int(port), interface, macs)
    probe.run()
    json.dump({"sent": probe.sent, "answers": probe.answers, "direct": probe.direct}, sys.stdout)


if __name__ == "__main__":
    main()
