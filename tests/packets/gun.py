"""Shoots frames at a program: BPF_PROG_TEST_RUN with as little around it as can be, for the fuzzers."""

from __future__ import annotations

import ctypes
import os
import struct

from lbnode.dataplane.xdp import syscall
from tests.packets.bench import HANDOVER, HANDOVER_SIZE, VERDICTS, Bench

ROOM = 2048
HOW = {3: "reflected", 4: "redirected"}  # XDP_TX, XDP_REDIRECT


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
