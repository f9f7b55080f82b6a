"""Pinned maps: the bpffs they lie in, and typed access to one map.

The bpffs is mounted inside the run directory, not taken at /sys/fs/bpf: `ip netns exec` mounts /sys anew, so pins there
would be invisible to a daemon started that way. It lives as long as the mount namespace that it was mounted in.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from lbnode.dataplane.xdp import syscall
from lbnode.errors import DataPlaneError

_BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE


def _is_bpffs(path: Path) -> bool:
    # statfs(2): f_type is the first word; os.statvfs does not tell it.
    result = ctypes.create_string_buffer(256)
    if _libc.statfs(str(path).encode(), result) != 0:
        return False
    return int(struct.unpack_from("=l", result.raw)[0]) & 0xFFFFFFFF == _BPF_FS_MAGIC


def mount_bpffs(path: Path) -> None:
    """Make sure that a bpffs is mounted at `path`."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_bpffs(path):
        return
    if _libc.mount(b"lbnode", str(path).encode(), b"bpf", 0, b"mode=0700") != 0:
        code = ctypes.get_errno()
        raise DataPlaneError(f"cannot mount a bpffs at {path}: {syscall.explain(code)}", code)


def unmount_bpffs(path: Path) -> None:
    """Unmount, which forgets every pin in it. Nothing happens if none is mounted."""
    if path.exists() and _is_bpffs(path):
        if _libc.umount2(str(path).encode(), _MNT_DETACH) != 0:
            code = ctypes.get_errno()
            raise DataPlaneError(f"cannot unmount {path}: {syscall.explain(code)}", code)
        path.rmdir()


class Map:
    """A map by descriptor. The descriptor belongs to the object that loaded it, or to this one if `own`."""

    def __init__(self, fd: int, *, own: bool = False) -> None:
        self.fd = fd
        self.info = syscall.map_info(fd)
        self._own = own
        self._view: mmap.mmap | None = None
        self.per_cpu = syscall.possible_cpus() if self.info.type in syscall.PERCPU_TYPES else 0
        size = self.info.value_size
        self.value_size = (size + 7) // 8 * 8 * self.per_cpu if self.per_cpu else size

    @classmethod
    def pinned(cls, path: Path) -> Map:
        return cls(syscall.obj_get(str(path)), own=True)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
            self._view = None
        if self._own and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def get(self, key: bytes) -> bytes | None:
        return syscall.map_lookup(self.fd, key, self.value_size)

    def put(self, key: bytes, value: bytes, flags: int = syscall.BPF_ANY) -> None:
        syscall.map_update(self.fd, key, value, flags)

    def delete(self, key: bytes) -> bool:
        return syscall.map_delete(self.fd, key)

    def get_index(self, index: int) -> bytes:
        """Element of an array map."""
        value = self.get(struct.pack("=I", index))
        if value is None:
            raise DataPlaneError(f"map {self.info.name} has no element {index}")
        return value

    def put_index(self, index: int, value: bytes) -> None:
        self.put(struct.pack("=I", index), value)

    def put_range(self, start: int, values: bytes) -> None:
        """Write consecutive elements of an array map in one call."""
        count = len(values) // self.value_size
        if count:
            keys = struct.pack(f"={count}I", *range(start, start + count))
            syscall.map_update_batch(self.fd, keys, values, count)

    def batches(self, chunk: int = 8192) -> Iterator[tuple[bytes, bytes]]:
        """(keys, values) slices of all entries."""
        return syscall.map_lookup_batches(self.fd, self.info.key_size, self.value_size, chunk)

    def items(self, chunk: int = 8192) -> Iterator[tuple[bytes, bytes]]:
        """All entries one by one, fetched in batches."""
        key_size, value_size = self.info.key_size, self.value_size
        for keys, values in self.batches(chunk):
            for index in range(len(keys) // key_size):
                yield (
                    keys[index * key_size : (index + 1) * key_size],
                    values[index * value_size : (index + 1) * value_size],
                )

    def view(self) -> mmap.mmap:
        """Shared memory of an array map made with BPF_F_MMAPABLE: elements lie 8-byte aligned one after the other."""
        if self._view is None:
            stride = (self.info.value_size + 7) // 8 * 8
            length = (stride * self.info.max_entries + PAGE - 1) // PAGE * PAGE
            self._view = mmap.mmap(self.fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        return self._view
