"""What ip_vs shows and takes in /proc, and which of its modules the kernel has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path

from lbnode.errors import DataPlaneError, Unsupported
from lbnode.tuning import kernel
from lbnode.tuning.profile import Setting

_CONNECTIONS = "/proc/thread-self/net/ip_vs_conn"  # not /proc/net, which is the main thread's namespace


def write_sysctls(values: Mapping[str, str]) -> None:
    """In the thread that is in the right network namespace; a write takes microseconds."""
    missing = [item.key for item in kernel.apply(Setting(*item, "") for item in values.items()) if item.actual is None]
    if missing:
        raise Unsupported(
            f"{', '.join(missing)}: this kernel's ip_vs has no such setting; remove it from settings.sysctl"
        )


def open_connections() -> FileIO:
    """Opened in the caller's thread, whose network namespace it belongs to from then on."""
    try:
        return FileIO(_CONNECTIONS)
    except OSError as error:
        raise DataPlaneError(f"reading the connections: {error}", error.errno) from None


def module_lists() -> list[str]:
    """Of the running kernel; those that are there."""
    found = []
    for name in ("modules.dep", "modules.builtin"):
        try:
            found.append(Path("/lib/modules", os.uname().release, name).read_text())
        except OSError:
            continue
    return found
