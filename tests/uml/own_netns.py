"""A nameless network namespace for the running thread: no process is started, which is what takes long in a guest."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

from lbnode.lab.init import CLONE_NEWNS
from lbnode.lab.netns import CLONE_NEWNET

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def own_netns() -> Iterator[None]:
    """The thread is in a new namespace with nothing but `lo` inside the block. Needs root."""
    with open("/proc/thread-self/ns/net", "rb") as before:
        _checked(_libc.unshare(CLONE_NEWNET), "unshare")
        try:
            _loopback_up()
            yield
        finally:
            _checked(_libc.setns(before.fileno(), CLONE_NEWNET), "setns")


def enter_mount_namespace() -> None:
    """What this process and its children mount from now on is theirs alone. Needs root, and no other thread."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _loopback_up() -> None:
    """ip_vs knows no unicast address in a namespace that never had a local route."""
    with socket.socket() as any_socket:
        request = struct.pack("16sH22x", b"lo", _IFF_UP)  # struct ifreq
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
