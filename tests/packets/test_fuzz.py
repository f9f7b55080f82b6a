"""Mutated packets through both programs, every one judged: a million in `make test`, LBNODE_FUZZ says how many else.

The kernel runs a packet in microseconds, and so the judge is made of slices and sums (judge.py); scapy parses what is
sent for one mutation of a hundred, where it finds the checksums right before. A failing frame is shown in hex with its
seed: make a test of it beside those of its feature.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from random import Random

import pytest
from scapy.layers.inet import UDP, IPerror
from scapy.layers.inet6 import IPerror6
from scapy.layers.l2 import Ether

from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.records import MergeResult
from tests.packets import seeds
from tests.packets.bench import Bench
from tests.packets.checksums import crc32c
from tests.packets.gun import Gun
from tests.packets.judge import Judge
from tests.packets.judge_link import Link
from tests.packets.mutations import mutate
from tests.packets.view import untagged, view

pytestmark = pytest.mark.root
PACKETS = int(os.environ.get("LBNODE_FUZZ", "1000000"))
ROUND = 10_000
SEEDS = 2  # and two programs
KINDS = {
    "masquerade",
    "full NAT",
    "reply",
    "full NAT reply",
    "direct",
    "tunnel",
    "echo",
    "own error",
    "error translated",
}


def right_by_scapy(frame: bytes) -> bool:
    """Whether scapy, told to work out every checksum anew but those of quoted packets, makes the same bytes."""
    packet = layer = Ether(frame)
    while layer and not isinstance(layer, (IPerror, IPerror6)):
        for name in ("chksum", "cksum"):
            value = layer.fields.get(name)
            if value or (value == 0 and not isinstance(layer, UDP)):  # UDP's 0: none is wanted (RFC 768)
                layer.delfieldval(name)
        layer = layer.payload
    try:
        return bytes(packet) == frame
    except (ValueError, TypeError, struct.error, AttributeError, IndexError):
        return False  # what it took apart it cannot put together


def wrong_crc(frame: bytes) -> bool:
    """SCTP's, over all that the IP header says."""
    packet = untagged(frame)
    seen = view(packet)
    if seen is None or seen.protocol != 132:
        return False
    data = packet[seen.at : seen.end]
    return crc32c(data[:8] + bytes(4) + data[12:]).to_bytes(4, "little") != data[8:12]


def first_of_sctp(frame: bytes) -> bool:
    """A first fragment, whose CRC covers what is not there: translated it cannot be."""
    seen = view(untagged(frame))
    return seen is not None and (seen.protocol, seen.fragment) == (132, 1)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutations(bench: Bench, seed: int) -> None:
    judge, dice = Judge(seeds.configure(bench), Link(bench.wire)), Random(f"{seed} {bench.entry}")
    frames, gun, told = seeds.frames(bench.wire), Gun(bench), seeds.connections()
    verdicts: Counter[str] = Counter()
    unmendable = asked_scapy = 0
    for _ in range(max(1, PACKETS // (2 * SEEDS * ROUND))):
        drops, errors = bench.drops(), judge.seen.get("own error", 0)
        this: Counter[str] = Counter()
        assert set(bench.merge(b"".join(one.pack() for one in told))) == {MergeResult.TAKEN}
        judge.ways.learn(told)
        with bench.wire.inside():
            for _ in range(ROUND):
                frame, interface = mutate(frames, dice)
                verdict, out = gun(frame, interface)
                this[verdict] += 1
                if verdict == "send":
                    complaint = judge.sent(frame, out, interface, gun.how)
                    # scapy leaves what follows SCTP's chunks out of the CRC: what is wrong before is not asked about
                    if dice.random() < 0.01 and right_by_scapy(frame) and not wrong_crc(frame):
                        asked_scapy += 1
                        complaint += "" if right_by_scapy(out) else " scapy finds wrong checksums"
                elif verdict:
                    unmendable += verdict == "drop" and first_of_sctp(frame)
                    complaint = judge.untouched(frame, verdict, changed=out != frame)
                else:
                    complaint = "" if len(frame) < 54 else "the kernel refused it"
                assert not complaint, f"{complaint}; seed {seed}, by {interface}: {frame.hex()} became {out.hex()}"
        verdicts += this
        assert bench.drops() - drops == this["drop"] + judge.seen.get("own error", 0) - errors
        refused = bench.refused()
        assert refused == {event.label: bench.event(event) for event in Event if event.label in refused}
        assert bench.event(Event.DROP_ERROR) <= unmendable
        records = bench.records()
        assert bench.event(Event.ENTRIES) == len(records) == sum(bench.gauges())
        assert judge.settle(records) == []
        bench.advance(100)
    print(f"seed {seed}: {dict(verdicts)}, sent {judge.seen}, {asked_scapy} by scapy, too, refused {refused}")
    assert asked_scapy > verdicts["send"] // 1000
    assert set(judge.seen) == KINDS and refused["no-server"]
    bench.advance(2000)
    assert bench.records() == [] and bench.gauges() == (0, 0)
