"""bpf(2) through ctypes: the commands that run-time work on maps, links, pins and test runs needs.

The attribute layouts are `union bpf_attr` of include/uapi/linux/bpf.h, packed with `struct` (the kernel zero-extends a
shorter attribute). Raw calls because Debian 12's libbpf 1.1 does not know tcx, and because the pinned data plane must
stay manageable without the library. File descriptors are plain ints; every failure is a DataPlaneError with its errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from lbnode.errors import DataPlaneError

# arch/*/entry/syscalls: the number of bpf(2)
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "loongarch64": 283, "ppc64le": 365, "s390x": 356}
_MEMBARRIER_CMD_GLOBAL = 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

BPF_ANY = 0
BPF_F_TEST_XDP_LIVE_FRAMES = 2


class Cmd(IntEnum):
    """`enum bpf_cmd`."""

    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    BTF_GET_FD_BY_ID = 19
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class MapType(IntEnum):
    """`enum bpf_map_type`: those with a value per CPU."""

    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_PERCPU_HASH = 10


PERCPU_TYPES = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)


@dataclass(frozen=True, slots=True)
class MapInfo:
    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    btf_id: int = 0  # 0: the kernel has no types of it
    key_type: int = 0  # in that BTF
    value_type: int = 0


@dataclass(frozen=True, slots=True)
class LinkInfo:
    type: int
    id: int
    prog_id: int
    ifindex: int  # 0: the interface is gone, the link is defunct
    attach_type: int  # of tcx links; 0 otherwise


@dataclass(frozen=True, slots=True)
class ProgInfo:
    type: int
    id: int
    tag: str  # hash of the instructions: equal tags are equal programs
    name: str


@dataclass(frozen=True, slots=True)
class TestRun:
    """Result of BPF_PROG_TEST_RUN."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    retval: int
    data: bytes
    duration_ns: int  # mean of one repetition


def explain(number: int) -> str:
    """What an errno of bpf(2) means for an operator, with what to do about it."""
    if number == errno.EPERM:
        return "not permitted: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    if number == errno.ENOSYS:
        return "this kernel has no bpf(2)"
    return os.strerror(number)


def bpf(command: Cmd, attr: bytes, what: str = "") -> tuple[int, bytes]:
    """One call. Returns its result (a descriptor, or 0) and the attribute as the kernel left it."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise DataPlaneError(f"bpf(2) on {platform.machine()} is not known here", errno.ENOSYS)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result = _libc.syscall(number, int(command), buffer, len(attr))
    if result < 0:
        code = ctypes.get_errno()
        raise DataPlaneError(f"{what or 'bpf'}: {command.name}: {explain(code)}", code)
    return result, buffer.raw


def _buffer(size_or_bytes: int | bytes) -> Any:
    if isinstance(size_or_bytes, int):
        return ctypes.create_string_buffer(size_or_bytes)
    return ctypes.create_string_buffer(size_or_bytes, len(size_or_bytes))


def possible_cpus() -> int:
    """CPUs for which a per-CPU map holds values: /sys/devices/system/cpu/possible, e.g. `0-3`."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as handle:
        last = handle.read().strip().split(",")[-1].split("-")[-1]
    return int(last) + 1


# --- maps ----------------------------------------------------------------------------------------------------


def map_info(fd: int) -> MapInfo:
    # struct bpf_map_info; what is left out tells of devices
    kind, ident, key, value, entries, flags, name, *types = struct.unpack_from("=6I16s24x3I", _info(fd, 80))
    return MapInfo(kind, ident, key, value, entries, flags, name.split(b"\0")[0].decode(), *types)


def btf(ident: int) -> bytes:
    """The type information with this id."""
    fd = bpf(Cmd.BTF_GET_FD_BY_ID, struct.pack("=I", ident))[0]
    try:
        size = struct.unpack_from("=QI", _info(fd, 16))[1]  # struct bpf_btf_info: btf, btf_size
        data, info = _buffer(size), _buffer(16)
        struct.pack_into("=QI", info, 0, ctypes.addressof(data), size)
        bpf(Cmd.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
    finally:
        os.close(fd)
    return bytes(data.raw)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value (of a per-CPU map: those of all CPUs one after the other), or None."""
    key_buffer, value = _buffer(key), _buffer(value_size)
    attr = struct.pack("=IxxxxQQQ", fd, ctypes.addressof(key_buffer), ctypes.addressof(value), 0)
    try:
        bpf(Cmd.MAP_LOOKUP_ELEM, attr)
    except DataPlaneError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return bytes(value.raw)


def map_update(fd: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    key_buffer, value_buffer = _buffer(key), _buffer(value)
    bpf(
        Cmd.MAP_UPDATE_ELEM,
        struct.pack("=IxxxxQQQ", fd, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), flags),
    )


def map_delete(fd: int, key: bytes) -> bool:
    """False if the key was not there."""
    key_buffer = _buffer(key)
    try:
        bpf(Cmd.MAP_DELETE_ELEM, struct.pack("=IxxxxQQQ", fd, ctypes.addressof(key_buffer), 0, 0))
    except DataPlaneError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def map_lookup_batches(fd: int, key_size: int, value_size: int, chunk: int = 8192) -> Iterator[tuple[bytes, bytes]]:
    """All entries as (keys, values) slices of up to about `chunk` entries.

    ENOSPC means that one hash bucket holds more entries than the chunk has room for: the chunk is doubled.
    """
    token_in, token_out = _buffer(max(key_size, 8)), _buffer(max(key_size, 8))
    keys, values = _buffer(key_size * chunk), _buffer(value_size * chunk)
    first = True
    while True:
        attr = struct.pack(
            "=QQQQIIQQ",
            0 if first else ctypes.addressof(token_in),
            ctypes.addressof(token_out),
            ctypes.addressof(keys),
            ctypes.addressof(values),
            chunk,
            fd,
            0,
            0,
        )
        buffer = ctypes.create_string_buffer(attr, len(attr))
        result = _libc.syscall(_NUMBERS[platform.machine()], int(Cmd.MAP_LOOKUP_BATCH), buffer, len(attr))
        code = 0 if result >= 0 else ctypes.get_errno()
        if code == errno.ENOSPC:
            chunk *= 2
            keys, values = _buffer(key_size * chunk), _buffer(value_size * chunk)
            continue
        if code not in (0, errno.ENOENT):
            raise DataPlaneError(f"{Cmd.MAP_LOOKUP_BATCH.name}: {explain(code)}", code)
        count = struct.unpack_from("=I", buffer.raw, 32)[0]
        if count:
            yield keys.raw[: count * key_size], values.raw[: count * value_size]
        if code == errno.ENOENT:
            return
        token_in, token_out, first = token_out, token_in, False


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int, *, elem_flags: int = BPF_ANY) -> None:
    """Write `count` entries from two packed slices."""
    key_buffer, value_buffer = _buffer(keys), _buffer(values)
    bpf(
        Cmd.MAP_UPDATE_BATCH,
        struct.pack(
            "=QQQQIIQQ", 0, 0, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), count, fd, elem_flags, 0
        ),
    )


# --- pins, links, programs -----------------------------------------------------------------------------------


def obj_pin(fd: int, path: str) -> None:
    name = _buffer(path.encode() + b"\0")
    bpf(Cmd.OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0), path)


def obj_get(path: str) -> int:
    """A descriptor of a pinned map, link or program."""
    name = _buffer(path.encode() + b"\0")
    return bpf(Cmd.OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0), path)[0]


def _info(fd: int, size: int) -> bytes:
    info = _buffer(size)
    bpf(Cmd.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, ctypes.addressof(info)))
    return bytes(info.raw)


def prog_load(kind: int, code: bytes, flags: int) -> int:
    """A program that needs neither maps nor relocations. `kind`: enum bpf_prog_type."""
    instructions, license_ = _buffer(code), _buffer(b"Apache-2.0\0")
    attr = struct.pack(
        "=IIQQ IIQ II",
        *(kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(license_)),
        *(0, 0, 0),  # no log
        *(0, flags),
    )
    return bpf(Cmd.PROG_LOAD, attr)[0]


def prog_info(fd: int) -> ProgInfo:
    raw = _info(fd, 80)
    kind, ident = struct.unpack_from("=II", raw)
    return ProgInfo(kind, ident, raw[8:16].hex(), raw[64:80].split(b"\0")[0].decode())


def link_info(fd: int) -> LinkInfo:
    # struct bpf_link_info: type, id, prog_id, then a union on the next multiple of 8
    kind, ident, prog, ifindex, attach_type = struct.unpack_from("=IIIxxxxII", _info(fd, 64))
    return LinkInfo(kind, ident, prog, ifindex, attach_type)


def link_create(prog_fd: int, ifindex: int, attach_type: int, flags: int = 0) -> int:
    # The trailing words are bpf_attr.link_create.tcx: no anchor, no expected revision.
    return bpf(Cmd.LINK_CREATE, struct.pack("=IIIIIxxxxQ", prog_fd, ifindex, attach_type, flags, 0, 0))[0]


def link_update(link_fd: int, prog_fd: int) -> None:
    """Swap the program of a link: every packet is seen by the old or by the new one."""
    bpf(Cmd.LINK_UPDATE, struct.pack("=IIII", link_fd, prog_fd, 0, 0))


def link_detach(link_fd: int) -> None:
    bpf(Cmd.LINK_DETACH, struct.pack("=I", link_fd))


def prog_test_run(prog_fd: int, data: bytes, *, repeat: int = 1, context: bytes = b"", flags: int = 0) -> TestRun:
    """Run a program on one packet (Ethernet frame). `context` is the program type's context structure, or empty."""
    live = bool(flags & BPF_F_TEST_XDP_LIVE_FRAMES)
    packet, out = _buffer(data), _buffer(len(data) + 512)
    ctx = _buffer(context or b"\0")
    attr = struct.pack(
        "=4I QQ 4I QQ 3Ixxxx",
        prog_fd,
        0,
        len(data),
        0 if live else len(out),
        ctypes.addressof(packet),
        0 if live else ctypes.addressof(out),
        repeat,
        0,
        len(context),
        0,
        ctypes.addressof(ctx) if context else 0,
        0,
        flags,
        0,
        0,
    )
    raw = bpf(Cmd.PROG_TEST_RUN, attr)[1]
    _, retval, _, size_out, _, _, _, duration = struct.unpack_from("=4IQQII", raw)
    return TestRun(retval, bytes(out.raw[:size_out]), duration)


def prog_run(prog_fd: int, context: bytes) -> tuple[int, bytes]:
    """Run a program of type BPF_PROG_TYPE_SYSCALL. Returns its result (signed) and what it made of its argument."""
    ctx = _buffer(context or b"\0")
    attr = struct.pack(
        "=4I QQ 4I QQ 3Ixxxx",
        *(prog_fd, 0, 0, 0),
        *(0, 0),
        *(0, 0, len(context), 0),
        *(ctypes.addressof(ctx) if context else 0, 0),
        *(0, 0, 0),
    )
    raw = bpf(Cmd.PROG_TEST_RUN, attr)[1]
    return struct.unpack_from("=i", raw, 4)[0], bytes(ctx.raw[: len(context)])


def wait_for_programs() -> None:
    """Until every program that runs now has come to its end: they run as RCU readers, for which membarrier(2) waits.

    Does nothing on kernels that refuse it (nohz_full): there a program that is interrupted just now goes unnoticed.
    """
    _libc.syscall(_MEMBARRIER[platform.machine()], _MEMBARRIER_CMD_GLOBAL, 0, 0)
