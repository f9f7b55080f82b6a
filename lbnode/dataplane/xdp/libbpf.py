"""libbpf.so.1 through ctypes, only to open and load the compiled object: ELF, BTF and relocations are its trade.

Everything after loading (maps, links, pins) is bpf(2) in syscall.py.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lbnode.cpus import long_call
from lbnode.dataplane.xdp import syscall
from lbnode.errors import DataPlaneError

# Of Definition, in its order: bpf_map__*
_DEFINITION = ("type", "key_size", "value_size", "max_entries", "map_flags", "btf_key_type_id", "btf_value_type_id")
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_RECORD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)  # ring_buffer_sample_fn
_LIBBPF_DEBUG = 2  # enum libbpf_print_level: warn 0, info 1, debug 2
# The balancer's timer is of 5.15; where helpers of 5.17 and 5.18 are missing it does without (bpf/older.h). lease.bpf.o
# loads on 5.10, too.
OLDEST_KERNEL = (5, 15)
_PROG_TYPE_XDP, _BPF_F_XDP_HAS_FRAGS = 6, 1 << 5
_LOG_TAIL = 15  # lines of the verifier's log that an error message carries
_LOG_BYTES = 1 << 24  # libbpf's own limit; the reason stands at the end
_libc = ctypes.CDLL(None)
_libc.vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
_log: list[str] = []


def _on_print(level: int, form: bytes, arguments: int) -> int:
    if level < _LIBBPF_DEBUG:
        text = ctypes.create_string_buffer(_LOG_BYTES)
        _libc.vsnprintf(text, len(text), form, arguments)
        _log.append(text.value.decode("utf-8", "replace"))
    return 0


_print_callback = _PRINT(_on_print)  # libbpf keeps the pointer: must live as long as the process


@cache
def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise DataPlaneError(f"libbpf.so.1 is missing (Debian: apt-get install libbpf1): {error}") from error
    pointer, string, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, *arguments in (
        ("libbpf_set_print", pointer, _PRINT),
        ("bpf_object__open_file", pointer, string, pointer),
        ("bpf_object__load", number, pointer),
        ("bpf_object__close", None, pointer),
        ("bpf_object__next_program", pointer, pointer, pointer),
        ("bpf_object__next_map", pointer, pointer, pointer),
        ("bpf_program__name", string, pointer),
        ("bpf_program__section_name", string, pointer),
        ("bpf_program__fd", number, pointer),
        ("bpf_program__set_autoload", number, pointer, ctypes.c_bool),
        ("bpf_map__name", string, pointer),
        ("bpf_map__fd", number, pointer),
        ("bpf_map__set_max_entries", number, pointer, ctypes.c_uint32),
        ("bpf_map__set_pin_path", number, pointer, string),
        ("bpf_map__reuse_fd", number, pointer, number),
        ("bpf_object__btf", pointer, pointer),
        ("btf__raw_data", pointer, pointer, ctypes.POINTER(ctypes.c_uint32)),
        ("bpf_map__set_initial_value", number, pointer, pointer, ctypes.c_size_t),
        ("ring_buffer__new", pointer, number, _RECORD, pointer, pointer),
        ("ring_buffer__consume", number, pointer),
        ("ring_buffer__free", None, pointer),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    for name in _DEFINITION:
        function = getattr(lib, f"bpf_map__{name}")
        function.restype, function.argtypes = ctypes.c_uint32, [pointer]
    lib.libbpf_set_print(_print_callback)
    return lib


@dataclass(frozen=True, slots=True)
class Definition:
    """A map as an object defines it, before it is made. The types are in the object's BTF; 0 = none."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: int
    value_type: int


@cache
def _has_frags() -> bool:
    """Whether XDP programs may be given frames of several buffers (Linux 5.18): a program that asks for them loads."""
    pass_on = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # r0 = XDP_PASS; exit
    try:
        os.close(syscall.prog_load(_PROG_TYPE_XDP, pass_on, _BPF_F_XDP_HAS_FRAGS))
    except DataPlaneError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _walk(following: Callable[[Any, Any], int | None], obj: int) -> list[int]:
    found: list[int] = []
    item = following(obj, None)
    while item:
        found.append(item)
        item = following(obj, item)
    return found


def too_old(release: str) -> str:
    """What to say of a kernel that is older than those that the programs are tried on, or ''."""
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) >= OLDEST_KERNEL:
        return ""
    return f"this is Linux {release}; the balancer's programs need {'.'.join(map(str, OLDEST_KERNEL))} or newer"


def _failure(what: str, code: int) -> DataPlaneError:
    lines = "".join(_log).rstrip().splitlines()
    _log.clear()
    hint = ""
    if code in (errno.EPERM, errno.EACCES) and not any("R0" in line or "processed" in line for line in lines):
        hint = " - it needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    elif old := too_old(os.uname().release):
        hint = f" - {old}"
    elif any("BTF" in line and "vmlinux" in line for line in lines):
        hint = " - the kernel must have BTF (/sys/kernel/btf/vmlinux; CONFIG_DEBUG_INFO_BTF)"
    tail = "\n".join(f"  {line}" for line in lines[-_LOG_TAIL:])
    return DataPlaneError(f"{what}: {syscall.explain(code)}{hint}" + (f"\n{tail}" if tail else ""), code)


def _raw_btf(lib: ctypes.CDLL, loaded: int) -> bytes:
    size = ctypes.c_uint32()
    data = lib.btf__raw_data(lib.bpf_object__btf(loaded), ctypes.byref(size))
    return ctypes.string_at(data, size.value)


def _share(
    lib: ctypes.CDLL, opened: int, maps: Mapping[str, int], shared: Callable[[Definition, bytes], int | None]
) -> None:
    types = _raw_btf(lib, opened)
    for name, item in maps.items():
        definition = Definition(name, *(int(getattr(lib, f"bpf_map__{one}")(item)) for one in _DEFINITION))
        fd = shared(definition, types)
        if fd is not None and lib.bpf_map__reuse_fd(item, fd) != 0:
            raise _failure(f"map {name!r} cannot be shared", ctypes.get_errno())


class LoadedObject:
    """A loaded BPF object: descriptors of its programs and maps by name, valid until `close`.

    Maps named in `pins` are taken from their pin path if something is pinned there (libbpf refuses a pin whose type
    or sizes differ), and pinned there otherwise. `max_entries` overrides map sizes. `shared` is asked about each map,
    with the object's BTF: the descriptor of a map to take instead of a new one, or None. `only`: programs to load; the
    others are left out. So are programs for frames of several buffers at XDP where the kernel has none. `constants`:
    values of the programs' constants by the name of their section.
    """

    def __init__(
        self,
        path: Path,
        *,
        pins: Callable[[str], Path | None],
        max_entries: Mapping[str, int] | None = None,
        shared: Callable[[Definition, bytes], int | None] | None = None,
        only: Collection[str] | None = None,
        constants: Mapping[str, bytes] | None = None,
    ) -> None:
        if not path.exists():
            raise DataPlaneError(
                f"{path} is missing: the BPF object was not built. Install clang and libbpf-dev and run "
                "`python lbnode/build_hook.py` (or `make`)",
                errno.ENOENT,
            )
        lib = _library()
        _log.clear()
        ctypes.set_errno(0)
        self._object = lib.bpf_object__open_file(str(path).encode(), None)
        if not self._object:
            raise _failure(f"{path} cannot be opened as a BPF object", ctypes.get_errno())
        try:
            maps = {lib.bpf_map__name(item).decode(): item for item in _walk(lib.bpf_object__next_map, self._object)}
            for name, entries in (max_entries or {}).items():
                if name not in maps:
                    raise DataPlaneError(f"{path} has no map {name!r}: rebuild it (`make`)")
                lib.bpf_map__set_max_entries(maps[name], entries)
            for name, item in maps.items():
                pin = pins(name)
                if pin is not None:
                    lib.bpf_map__set_pin_path(item, str(pin).encode())
            if shared is not None:
                _share(lib, self._object, maps, shared)
            for name, value in (constants or {}).items():
                if lib.bpf_map__set_initial_value(maps[name], value, len(value)) != 0:
                    raise _failure(f"{path}: {name} cannot be set", ctypes.get_errno())
            programs = {
                lib.bpf_program__name(item).decode(): item for item in _walk(lib.bpf_object__next_program, self._object)
            }
            for name, item in list(programs.items()):
                frags = lib.bpf_program__section_name(item) == b"xdp.frags"
                if (only is not None and name not in only) or (frags and not _has_frags()):
                    lib.bpf_program__set_autoload(item, False)
                    del programs[name]
            with long_call():  # makes the maps, and verifies
                code = lib.bpf_object__load(self._object)
            if code != 0:
                raise _failure(f"{path} was refused by the kernel", -code)
            self.maps = {name: int(lib.bpf_map__fd(item)) for name, item in maps.items()}
            self.programs = {name: int(lib.bpf_program__fd(item)) for name, item in programs.items()}
        except BaseException:
            self.close()
            raise
        _log.clear()

    def close(self) -> None:
        """Close the descriptors. What is pinned or attached stays in the kernel."""
        if self._object:
            _library().bpf_object__close(self._object)
            self._object = None


class RingBuffer:
    """What programs write into a map of type BPF_MAP_TYPE_RINGBUF."""

    def __init__(self, fd: int) -> None:
        self._records: list[bytes] = []
        self._take = _RECORD(self._on_record)  # libbpf keeps the pointer
        self._handle = _library().ring_buffer__new(fd, self._take, None, None)
        if not self._handle:
            raise _failure("no ring buffer", ctypes.get_errno())

    def _on_record(self, _: int, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, size))
        return 0

    def take(self) -> list[bytes]:
        """All records that are there."""
        _library().ring_buffer__consume(self._handle)
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        if self._handle:
            _library().ring_buffer__free(self._handle)
            self._handle = None
