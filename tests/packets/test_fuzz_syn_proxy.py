"""Mutated segments of connections that begin with a SYN cookie (bpf/syn_proxy.h), every one judged.

The others' services (test_fuzz.py) change nothing in TCP but ports. Here sequence numbers, windows and SACK blocks are
translated, and segments of the gateway's own take the place of others. Each round opens one connection in the order of
the protocol, and mutates every frame of it: before, while and after it is opened.
"""

from __future__ import annotations

import os
from collections import Counter
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event
from tests.packets.bench import FULLNAT, Bench
from tests.packets.gun import Gun
from tests.packets.judge_syn_proxy import Connection, Judge
from tests.packets.mutations import mutate
from tests.packets.syn_proxy import ISN, LINUX, SERVER_ISN, Kind, Opening, every_kind
from tests.packets.traffic import ether, ip

pytestmark = pytest.mark.root
PACKETS = int(os.environ.get("LBNODE_FUZZ", "1000000")) // 25 // 8  # of each kind, by each program; cookies take time
SHOTS = 100  # in each of a round's stages
NOPS = [("NOP", None)] * 2
KINDS = {"cookie", "opening", "segment to the server", "segment to the client", "probe"}


class Frames:
    """Of one connection."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.all: list[tuple[bytes, str]] = []

    def client(self, flags: str, seq: int, ack: int = 0, data: bytes = b"", **fields: Any) -> None:
        opening = self.opening
        self._add(opening.client, opening.vip, opening.port, 80, (flags, seq, ack, data), "front", fields)

    def server(self, flags: str, seq: int, ack: int = 0, data: bytes = b"", **fields: Any) -> None:
        peer, port = self.opening.seen
        self._add(self.opening.server, peer, 8080, port, (flags, seq, ack, data), "back", fields)

    def _add(self, source: str, target: str, sport: int, dport: int, what: Any, interface: str, fields: Any) -> None:
        flags, seq, ack, data = what
        tcp = TCP(sport=sport, dport=dport, flags=flags, seq=seq & 0xFFFFFFFF, ack=ack & 0xFFFFFFFF, **fields)
        packet: Packet = ip(source, target) / tcp / Raw(data)
        self.all.append((ether(packet, target=self.opening.bench.wire.mac(interface)), interface))


@every_kind
def test_mutated_openings(bench: Bench, kind: Kind) -> None:
    bench.configure(icmp_rate=1 << 20)
    opening, gun, dice = Opening(bench, kind), Gun(bench), Random(f"{kind} {bench.entry}")
    vip, server, client = (ip_address(one).packed for one in (opening.vip, opening.server, opening.client))
    verdicts, sent = Counter[str](), Counter[str]()

    def shoot(judge: Judge, frames: Frames) -> None:
        with bench.wire.inside():
            for _ in range(SHOTS):
                frame, interface = mutate(frames.all, dice)
                verdict, out = gun(frame, interface)
                verdicts[verdict] += 1
                complaint = judge.look(frame, verdict, out, bench.now_ms) if verdict else ""
                assert not complaint, f"{complaint}; by {interface}: {frame.hex()} became {out.hex()}"

    for number in range(max(1, PACKETS // (4 * SHOTS))):
        opening.port = 20000 + number % 40000
        frames, dropped = Frames(opening), verdicts["drop"]
        drops, cookies, errors = bench.drops(), bench.event(Event.COOKIE_SENT), bench.event(Event.DROP_ERROR)
        opening.syn()
        known = Connection(client, opening.port, opening.cookie, ISN)
        judge = Judge(vip, server, kind.forward is FULLNAT, known)
        frames.client("S", ISN, window=64240, options=LINUX)
        shoot(judge, frames)
        frames.client("A", ISN + 1, opening.cookie + 1, window=501)
        frames.client("PA", ISN + 1, opening.cookie + 1, b"GET", window=501)
        frames.client("R", ISN + 1)
        shoot(judge, frames)
        opening.ack()
        known.seen = ip_address(opening.seen[0]).packed, opening.seen[1]
        edges = [opening.cookie + 20 * n & 0xFFFFFFFF for n in (1, 2, 3, 4)]
        frames.client("A", ISN + 4, opening.cookie + 1, window=501, options=[*NOPS, ("SAck", tuple(edges))])
        frames.client("FA", ISN + 4, opening.cookie + 9, window=0)
        frames.server("SA", SERVER_ISN, ISN + 1, window=65000, options=LINUX)
        frames.server("A", SERVER_ISN + 1, ISN + 4, window=700, options=[*NOPS, ("SAck", (ISN + 20 & 0xFFFFFFFF, 9))])
        frames.server("PA", SERVER_ISN + 1, ISN + 4, b"answer", window=65535)
        frames.server("RA", SERVER_ISN + 1, ISN + 4)
        for _ in range(2):
            shoot(judge, frames)
        assert bench.drops() - drops == verdicts["drop"] - dropped + judge.seen["own error"]
        unsent = bench.event(Event.COOKIE_SENT) - cookies - judge.seen["cookie"] - 1
        assert 0 <= unsent <= bench.event(Event.DROP_ERROR) - errors  # fragments and the like
        sent += judge.seen
        bench.advance(1000)
        assert bench.records() == [] and bench.gauges() == (0, 0)
    print(f"{kind} {bench.entry}: {dict(verdicts)}, sent {dict(sent)}")
    assert set(sent) >= KINDS
