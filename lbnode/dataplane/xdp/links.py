"""A program attached to an interface so that it outlives this process: a pinned BPF link, or a clsact filter.

Both keep their program attached whoever dies; `swap` replaces the program without a gap. There are three kinds: "xdp";
"tcx"; "tc", the filter, which stands in for tcx on kernels that have none. The latter two also at egress, "tcx-out" and
"tc-out".
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal, Protocol

from lbnode.dataplane.xdp import clsact, syscall
from lbnode.errors import DataPlaneError


class AttachType(IntEnum):
    """`enum bpf_attach_type`."""

    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class LinkType(IntEnum):
    """`enum bpf_link_type`."""

    XDP = 6
    TCX = 11


XDP_FLAGS_DRV_MODE = 1 << 2  # native: the driver runs the program, or the attach fails


Kind = Literal["xdp", "tcx", "tc", "tcx-out", "tc-out"]
_ATTACH_TYPE = {"xdp": AttachType.XDP, "tcx": AttachType.TCX_INGRESS, "tcx-out": AttachType.TCX_EGRESS}
_CLSACT = {"tc": clsact.INGRESS, "tc-out": clsact.EGRESS}


class Link(Protocol):
    """A program on an interface of the current network namespace."""

    ifindex: int
    prog_id: int

    def swap(self, prog_fd: int) -> None:
        """Replace the program atomically."""

    def detach(self) -> None:
        """Take the program off the interface and forget the link."""

    def close(self) -> None:
        """Let go of it; the program stays attached."""


@dataclass(slots=True)
class PinnedLink:
    """An open, pinned BPF link: kinds "xdp" and "tcx"."""

    fd: int
    pin: Path
    ifindex: int
    prog_id: int

    def swap(self, prog_fd: int) -> None:
        syscall.link_update(self.fd, prog_fd)
        self.prog_id = syscall.prog_info(prog_fd).id

    def detach(self) -> None:
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


def has_tcx(prog_fd: int) -> bool:
    """Whether the kernel knows tcx (Linux 6.6): it then misses interface 0, and does not refuse the attach type."""
    try:
        os.close(syscall.link_create(prog_fd, 0, AttachType.TCX_INGRESS))
    except DataPlaneError as error:
        return error.errno != errno.EINVAL
    return True


def attach(kind: Kind, prog_fd: int, ifindex: int, directory: Path) -> Link:
    """Attach a program to an interface; links are pinned in `directory`. DataPlaneError says what to do."""
    try:
        if kind in _CLSACT:
            return clsact.attach(prog_fd, ifindex, directory, _CLSACT[kind])
        return _attach_pinned(kind, prog_fd, ifindex, directory)
    except DataPlaneError as error:
        raise DataPlaneError(_why(kind, error), error.errno) from error


def _attach_pinned(kind: Kind, prog_fd: int, ifindex: int, directory: Path) -> PinnedLink:
    fd = syscall.link_create(prog_fd, ifindex, _ATTACH_TYPE[kind], XDP_FLAGS_DRV_MODE if kind == "xdp" else 0)
    pin = directory / f"link-{kind}-{ifindex}"
    try:
        pin.unlink(missing_ok=True)
        syscall.obj_pin(fd, str(pin))
    except BaseException:
        os.close(fd)  # the last descriptor of an unpinned link: the kernel detaches it
        raise
    return PinnedLink(fd, pin, ifindex, syscall.link_info(fd).prog_id)


def _why(kind: Kind, error: DataPlaneError) -> str:
    if error.errno == errno.ENODEV:
        return "the interface is gone"
    if kind in _CLSACT and error.errno == errno.EEXIST:
        return (
            f"another filter has handle {clsact.HANDLE:#x} at priority {clsact.PRIORITY}; "
            "`tc filter show dev INTERFACE ingress` names its owner"
        )
    if kind in _CLSACT and error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
        return f"the kernel lacks the clsact qdisc or cls_bpf (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF): {error}"
    if error.errno == errno.EBUSY:
        return f"another {kind} program is attached to the interface; detach it first (`bpftool net`)"
    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL) and kind == "xdp":
        return "the driver has no native XDP"
    if error.errno == errno.ERANGE:
        return "the interface's MTU is too large for native XDP"
    return str(error)


def adopt(directory: Path) -> dict[tuple[Kind, int], Link]:
    """What is attached for this data plane, by (kind, ifindex). Links whose interface is gone are removed."""
    found: dict[tuple[Kind, int], Link] = {}
    for one in clsact.adopt(directory):
        found["tc" if one.parent == clsact.INGRESS else "tc-out", one.ifindex] = one
    for pin in sorted(directory.glob("link-*")):
        fd = syscall.obj_get(str(pin))
        info = syscall.link_info(fd)
        if info.ifindex == 0:
            os.close(fd)
            pin.unlink()
            continue
        at_tcx: Kind = "tcx-out" if info.attach_type == AttachType.TCX_EGRESS else "tcx"
        kind: Kind = at_tcx if info.type == LinkType.TCX else "xdp"
        found[kind, info.ifindex] = PinnedLink(fd, pin, info.ifindex, info.prog_id)
    return found
