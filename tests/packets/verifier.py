"""What the kernel's verifier makes of the BPF programs (root): `make bpf` prints it, test_verifier.py limits it."""

from __future__ import annotations

import ctypes
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lbnode.dataplane.xdp import guard, libbpf, plane
from lbnode.errors import DataPlaneError

MAX_BPF_STACK = 512  # include/linux/filter.h
FRAME_ROUNDED_TO = 32  # kernel/bpf/verifier.c, check_max_stack_depth; kernels from 6.9 on round to 16 where they can
MAX_INSTRUCTIONS = 300_000  # of the 1 000 000 that the verifier is willing to walk through
_LOG_STATS = 4  # BPF_LOG_STATS
_STATISTICS = re.compile(
    r"verification time (\d+) usec.*stack depth ([\d+]+).*processed (\d+) insns .* total_states (\d+)", re.DOTALL
)
_CALL, _LOAD_IMM64 = 0x85, 0x18
_JUMP, _EXIT = 0x05, 0x95
_JUMP_CLASSES = (0x05, 0x06)  # BPF_JMP, BPF_JMP32
_PSEUDO_CALL, _PSEUDO_FUNC = 1, 4  # src_reg of a call of a subprogram, and of a callback's address
_FOR_EACH_MAP_ELEM, _LOOP = 164, 181  # enum bpf_func_id: the program holds both, and the kernel removes one (older.h)
_KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")


@dataclass(frozen=True, slots=True)
class Verified:
    size: int  # instructions of the program with all its subprograms
    instructions: int  # that the verifier walked through
    states: int  # of registers and stack, that it kept to compare with
    time_us: int
    frames: tuple[int, ...]  # bytes of stack, by subprogram in the order of the code
    calls: tuple[frozenset[int], ...]  # by subprogram: those that it calls or passes as a callback
    bad_loops: tuple[int, ...]  # instructions that fall through to the beginning of a loop

    def deepest(self, subprogram: int = 0) -> int:
        """Bytes of the worst chain of calls. A timer's callback counts as called, though it has a stack of its own."""
        frame = -(-max(self.frames[subprogram], 1) // FRAME_ROUNDED_TO) * FRAME_ROUNDED_TO
        return frame + max((self.deepest(callee) for callee in self.calls[subprogram]), default=0)


class _Instruction(ctypes.Structure):
    """`struct bpf_insn`."""

    _fields_ = (
        ("code", ctypes.c_uint8),
        ("registers", ctypes.c_uint8),
        ("offset", ctypes.c_int16),
        ("immediate", ctypes.c_int32),
    )


@cache
def verified(path: Path) -> dict[str, Verified]:
    """By name of program, with capture switched on. DataPlaneError: the kernel refused the object."""
    lib = libbpf._library()
    lib.bpf_program__set_log_level.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    lib.bpf_program__set_log_buf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    lib.bpf_program__insns.argtypes = lib.bpf_program__insn_cnt.argtypes = [ctypes.c_void_p]
    lib.bpf_program__insns.restype = ctypes.POINTER(_Instruction)
    lib.bpf_program__insn_cnt.restype = ctypes.c_size_t
    handle = lib.bpf_object__open_file(str(path).encode(), None)
    if not handle:
        raise DataPlaneError(f"{path} cannot be opened: `make built` makes it")
    try:
        for one in libbpf._walk(lib.bpf_object__next_map, handle):
            if lib.bpf_map__name(one) == b".rodata.capture":  # else newer kernels leave out what is behind the switch
                lib.bpf_map__set_initial_value(one, struct.pack("=I", 1), 4)
        programs = []
        for program in libbpf._walk(lib.bpf_object__next_program, handle):
            if lib.bpf_program__section_name(program) == b"xdp.frags" and not libbpf._has_frags():
                lib.bpf_program__set_autoload(program, False)
            else:
                programs.append(program)
        logs = {program: ctypes.create_string_buffer(1 << 20) for program in programs}
        for program, log in logs.items():
            lib.bpf_program__set_log_level(program, _LOG_STATS)
            lib.bpf_program__set_log_buf(program, log, len(log))
        if (code := lib.bpf_object__load(handle)) != 0:
            refusals = "".join(f"\n{log.value.decode()[-500:]}" for log in logs.values() if log.value)
            raise libbpf._failure(f"{path} was refused by the kernel{refusals}", -code)
        result = {}
        for program, log in logs.items():
            text = log.value.decode()
            told = _STATISTICS.search(text)
            assert told, text
            time_us, frames, walked, states = told.groups()
            code = lib.bpf_program__insns(program)[: lib.bpf_program__insn_cnt(program)]
            calls = _calls(code)
            one = Verified(
                len(code),
                int(walked),
                int(states),
                int(time_us),
                tuple(int(frame) for frame in frames.split("+")),
                calls,
                tuple(_bad_loops(code)),
            )
            assert len(one.frames) == len(calls)
            result[lib.bpf_program__name(program).decode()] = one
        return result
    finally:
        lib.bpf_object__close(handle)


def _edges(code: list[_Instruction]) -> Iterator[tuple[int, int]]:
    """(place of the call, place of the first instruction of what is called)"""
    for at, one in enumerate(code):
        if (one.code, one.registers >> 4) in ((_CALL, _PSEUDO_CALL), (_LOAD_IMM64, _PSEUDO_FUNC)):
            yield at, at + 1 + one.immediate


def _calls(code: list[_Instruction]) -> tuple[frozenset[int], ...]:
    edges = list(_edges(code))
    starts = sorted({0, *(target for _, target in edges)})
    kept = sorted({0, *(target for at, target in edges if not _is_replaced(code, at))})
    calls: dict[int, set[int]] = {start: set() for start in kept}
    for at, target in edges:
        caller = max(start for start in starts if start <= at)
        if caller in calls and target in calls:
            calls[caller].add(kept.index(target))
    return tuple(frozenset(one) for one in calls.values())


def _is_replaced(code: list[_Instruction], at: int) -> bool:
    """Whether the address of a subprogram is loaded for a helper whose call the kernel removes."""
    if code[at].code != _LOAD_IMM64:
        return False
    while code[at].code != _CALL:
        at += 1 + (code[at].offset if code[at].code == _JUMP else 0)
    return (code[at].registers >> 4, code[at].immediate) == (0, _removed())


@cache
def _removed() -> int:
    return _FOR_EACH_MAP_ELEM if b"\0BPF_FUNC_loop\0" in _KERNEL_TYPES.read_bytes() else _LOOP


def _successors(code: list[_Instruction], at: int) -> list[tuple[int, bool]]:
    """(place, whether the edge may lead back into a loop), in the order in which check_cfg of Linux 6.1 walks them."""
    one = code[at]
    if one.code == _EXIT:
        return []
    if one.code == _CALL:
        called = [(at + 1 + one.immediate, False)] if one.registers >> 4 == _PSEUDO_CALL else []
        return [(at + 1, False), *called]
    if one.code == _LOAD_IMM64:  # takes two places
        called = [(at + 1 + one.immediate, False)] if one.registers >> 4 == _PSEUDO_FUNC else []
        return [(at + 1, False), *called]
    if one.code == _JUMP:
        return [(at + 1 + one.offset, True)]
    if one.code & 7 in _JUMP_CLASSES:
        return [(at + 1, True), (at + 1 + one.offset, True)]
    return [(at + 1, False)]


def _bad_loops(code: list[_Instruction]) -> Iterator[int]:
    """Linux 6.1 (push_insn) calls a loop a "back-edge" whose last instruction falls through to its first one."""
    explored: set[int] = set()
    path = {0: iter(_successors(code, 0))}
    while path:
        at = next(reversed(path))
        for target, may_loop in path[at]:
            if target in path and not may_loop:
                yield at
            if target not in path and target not in explored:
                path[target] = iter(_successors(code, target))
                break
        else:
            del path[at]
            explored.add(at)


def main() -> int:
    print(f"{'program':16}{'size':>8}{'walked':>9}{'states':>8}{'stack':>7}{'time':>9}")
    for path in (plane.OBJECT, guard.OBJECT):
        try:
            programs = verified(path)
        except DataPlaneError as error:
            print(error, file=sys.stderr)
            return 1
        print(path.name)
        for name, one in programs.items():
            time = f"{one.time_us / 1000:.1f} ms"
            print(f"  {name:14}{one.size:>8}{one.instructions:>9}{one.states:>8}{one.deepest():>7}{time:>9}")
    print(
        "size: instructions; walked: instructions on all paths that were tried "
        f"(at most {MAX_INSTRUCTIONS} here, 1000000 in the kernel);\nstack: bytes of the deepest chain of calls as "
        f"Linux 6.1 counts them (at most {MAX_BPF_STACK})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
