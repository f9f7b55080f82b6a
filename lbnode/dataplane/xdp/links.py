"""BPF links: a program attached to an interface, pinned so that it outlives this process.

A pinned link keeps its program attached whoever dies; `swap` replaces the program without a gap.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from lbnode.dataplane.xdp import syscall
from lbnode.errors import DataPlaneError


class AttachType(IntEnum):
    """`enum bpf_attach_type`."""

    XDP = 37
    TCX_INGRESS = 46


class LinkType(IntEnum):
    """`enum bpf_link_type`."""

    XDP = 6
    TCX = 11


XDP_FLAGS_DRV_MODE = 1 << 2  # native: the driver runs the program, or the attach fails


@dataclass(slots=True)
class Link:
    """An open, pinned link. `kind` is "xdp" or "tcx"."""

    fd: int
    pin: Path
    kind: str
    ifindex: int
    prog_id: int

    def swap(self, prog_fd: int) -> None:
        """Replace the program atomically."""
        syscall.link_update(self.fd, prog_fd)
        self.prog_id = syscall.prog_info(prog_fd).id

    def detach(self) -> None:
        """Take the program off the interface and forget the link."""
        self.pin.unlink(missing_ok=True)
        try:
            syscall.link_detach(self.fd)
        except DataPlaneError as error:
            if error.errno not in (errno.ENOLINK, errno.ENODEV):  # the interface is gone, the link with it
                raise
        finally:
            self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def pin_name(kind: str, ifindex: int) -> str:
    return f"link-{kind}-{ifindex}"


def attach(kind: str, prog_fd: int, ifindex: int, directory: Path) -> Link:
    """Attach a program to an interface and pin the link in `directory`. DataPlaneError says what to do."""
    attach_type, flags = (AttachType.XDP, XDP_FLAGS_DRV_MODE) if kind == "xdp" else (AttachType.TCX_INGRESS, 0)
    try:
        fd = syscall.link_create(prog_fd, ifindex, attach_type, flags)
    except DataPlaneError as error:
        raise DataPlaneError(_why(kind, error), error.errno) from error
    pin = directory / pin_name(kind, ifindex)
    try:
        pin.unlink(missing_ok=True)
        syscall.obj_pin(fd, str(pin))
    except BaseException:
        os.close(fd)  # the last descriptor of an unpinned link: the kernel detaches it
        raise
    return Link(fd, pin, kind, ifindex, syscall.link_info(fd).prog_id)


def _why(kind: str, error: DataPlaneError) -> str:
    if kind == "tcx" and error.errno == errno.EINVAL:
        return "tcx was refused (it needs Linux 6.6 or newer)"
    if error.errno == errno.EBUSY:
        return f"another {kind} program is attached to the interface; detach it first (`bpftool net`)"
    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL) and kind == "xdp":
        return "the driver has no native XDP"
    if error.errno == errno.ERANGE:
        return "the interface's MTU is too large for native XDP"
    if error.errno == errno.ENODEV:
        return "the interface is gone"
    return str(error)


def adopt(directory: Path) -> dict[tuple[str, int], Link]:
    """The live links pinned in `directory`, by (kind, ifindex). Links whose interface is gone are removed."""
    found: dict[tuple[str, int], Link] = {}
    for pin in sorted(directory.glob("link-*")):
        fd = syscall.obj_get(str(pin))
        info = syscall.link_info(fd)
        if info.ifindex == 0:
            os.close(fd)
            pin.unlink()
            continue
        kind = "tcx" if info.type == LinkType.TCX else "xdp"
        found[kind, info.ifindex] = Link(fd, pin, kind, info.ifindex, info.prog_id)
    return found
