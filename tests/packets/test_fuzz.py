"""Mutated packets through both programs, every one judged: a million in `make test`, LBNODE_FUZZ says how many else.

The kernel runs a packet in microseconds, and so the judge is made of slices and sums (judge.py); scapy parses what is
sent for one mutation of a hundred, where it finds the checksums right before. A failing frame is shown in hex with its
seed: make a test of it beside those of its feature.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from random import Random

import pytest
from scapy.layers.inet import UDP, IPerror
from scapy.layers.inet6 import IPerror6
from scapy.layers.l2 import Ether

from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.records import MergeResult
from tests.packets import seeds
from tests.packets.bench import HANDOVER, HANDOVER_SIZE, VERDICTS, Bench
from tests.packets.checksums import crc32c
from tests.packets.judge import Judge
from tests.packets.judge_link import Link
from tests.packets.mutations import mutate
from tests.packets.view import untagged, view

pytestmark = pytest.mark.root
PACKETS = int(os.environ.get("LBNODE_FUZZ", "1000000"))
ROUND = 10_000
SEEDS = 2  # and two programs
ROOM = 2048
HOW = {3: "reflected", 4: "redirected"}  # XDP_TX, XDP_REDIRECT
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


class _Attributes(ctypes.Structure):
    """`union bpf_attr`, as BPF_PROG_TEST_RUN reads it."""

    _fields_ = [
        ("program", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("size_in", ctypes.c_uint32),
        ("size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("context_size_in", ctypes.c_uint32),
        ("context_size_out", ctypes.c_uint32),
        ("context_in", ctypes.c_uint64),
        ("context_out", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 2),
    ]


class Gun:
    """Runs one program on frame after frame with buffers that stay."""

    def __init__(self, bench: Bench) -> None:
        self.verdicts, self.xdp = VERDICTS[bench.entry], bench.entry == "xdp"
        self.how = ""  # as judge_link.py has it, of the last frame
        self._frame, self._out = (ctypes.create_string_buffer(ROOM) for _ in range(2))
        self._contexts = {
            name: ctypes.create_string_buffer(
                struct.pack("=6I", 0, 0, 0, index, 0, 0) if self.xdp else struct.pack("=11I", *(0,) * 9, index, index)
            )
            for name, (index, _) in bench.wire.interfaces.items()
        }
        self._attr = _Attributes(bench.machine.programs["xdp_lb" if self.xdp else "tc_lb"])
        self._attr.data_in, self._attr.data_out = ctypes.addressof(self._frame), ctypes.addressof(self._out)
        self._attr.repeat, self._attr.context_size_in = 1, 24 if self.xdp else 44
        self._call = ctypes.CDLL(None).syscall
        self._number = ctypes.c_long(syscall._NUMBERS[os.uname().machine])
        self._pointer, self._size = ctypes.byref(self._attr), ctypes.c_long(ctypes.sizeof(self._attr))

    def __call__(self, frame: bytes, interface: str) -> tuple[str, bytes]:
        """The verdict and the frame behind the program; "" where the kernel makes no packet of so few bytes."""
        attr, context, size = self._attr, self._contexts[interface], len(frame)
        ctypes.memmove(self._frame, frame, size)
        if self.xdp:
            ctypes.memmove(ctypes.addressof(context) + 4, size.to_bytes(4, "little"), 4)
        attr.size_in, attr.size_out, attr.context_in = size, ROOM, ctypes.addressof(context)
        if self._call(self._number, 10, self._pointer, self._size) < 0:
            return "", frame
        out, verdict = ctypes.string_at(self._out, attr.size_out), self.verdicts[attr.verdict]
        self.how = HOW.get(attr.verdict, "") if self.xdp else ""
        if verdict == "pass" and out.startswith(HANDOVER):
            self.how = "handed over"
            return "send", out[HANDOVER_SIZE:]
        return verdict, out


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
        assert bench.event(Event.DROP_ERROR) <= unmendable
        records = bench.records()
        assert bench.event(Event.ENTRIES) == len(records) == sum(bench.gauges())
        assert judge.settle(records) == []
        bench.advance(100)
    print(f"seed {seed}: {dict(verdicts)}, sent {judge.seen}, {asked_scapy} by scapy, too")
    assert asked_scapy > verdicts["send"] // 1000
    assert set(judge.seen) == KINDS
    bench.advance(2000)
    assert bench.records() == [] and bench.gauges() == (0, 0)
