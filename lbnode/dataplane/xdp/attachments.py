"""Keeps the programs attached where they belong while interfaces come and go."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lbnode.dataplane.base import InterfaceStatus
from lbnode.dataplane.xdp.interfaces import Attach, Interface, choose, wanted
from lbnode.dataplane.xdp.links import Link, adopt, attach
from lbnode.errors import DataPlaneError

_log = logging.getLogger(__name__)


class Attachments:
    """Links of one data plane in the current network namespace.

    `programs`: descriptors by use: "xdp"; "xdp-frags", for interfaces whose MTU needs multi-buffer frames; "tcx";
    "xdp+tcx", what runs at tcx behind an XDP program for packets that only the network stack can send.
    """

    def __init__(self, directory: Path, names: Sequence[str], mode: Attach, programs: Mapping[str, int]) -> None:
        self._directory = directory
        self._names = names
        self._mode = mode
        self._programs = programs
        self._links: dict[tuple[str, int], Link] = {}
        self._status: dict[str, InterfaceStatus] = {}
        self._present: dict[int, Interface] = {}

    def adopt(self) -> None:
        """Take over what is pinned; every link then runs the new programs, without a packet in between unserved."""
        self._links = adopt(self._directory)
        for kind, ifindex in self._links:
            self._ensure(kind, ifindex, "xdp+tcx" if kind == "tcx" and ("xdp", ifindex) in self._links else kind)

    def update(self, interfaces: Iterable[Interface]) -> None:
        """Attach to what is wanted and not attached yet, let go of what is not wanted or not there any more."""
        before = self._present
        self._present = {one.index: one for one in interfaces if wanted(one, self._names)}
        for key in [key for key in self._links if key[1] not in self._present]:
            self._links.pop(key).detach()
        self._status = {name: status for name, status in self._status.items() if status.mode != "-"}
        for one in before.values():
            if one.index not in self._present or self._present[one.index].name != one.name:
                self._status.pop(one.name, None)
        for one in self._present.values():
            if one.name not in self._status:
                self._status[one.name] = self._attach(one)
                _log.info("%s: %s", one.name, self._status[one.name])
        for name in self._names:
            if name not in self._status:
                self._status[name] = InterfaceStatus(name, "-", "named by configuration", f"no interface {name} here")

    def _attach(self, interface: Interface) -> InterfaceStatus:
        mode, reason = choose(interface, self._mode)
        if mode == "xdp":
            try:
                self._ensure("xdp", interface.index, "xdp")
                self._ensure("tcx", interface.index, "xdp+tcx")
            except DataPlaneError as error:
                self._drop("xdp", interface.index)
                mode, reason = "tcx", f"native XDP failed: {error}"
            else:
                return InterfaceStatus(interface.name, "xdp", reason)
        try:
            self._ensure("tcx", interface.index, "tcx")
        except DataPlaneError as error:
            return InterfaceStatus(interface.name, "-", reason, str(error))
        self._drop("xdp", interface.index)
        return InterfaceStatus(interface.name, mode, reason)

    def _ensure(self, kind: str, ifindex: int, use: str) -> None:
        """Make the link run the program for this use; a new link if there is none."""
        try:
            self._put(kind, ifindex, self._programs[use])
        except DataPlaneError as error:
            if kind != "xdp" or error.errno != errno.ERANGE:
                raise
            self._put(kind, ifindex, self._programs["xdp-frags"])

    def _put(self, kind: str, ifindex: int, program: int) -> None:
        if link := self._links.get((kind, ifindex)):
            link.swap(program)
        else:
            self._links[kind, ifindex] = attach(kind, program, ifindex, self._directory)

    def _drop(self, kind: str, ifindex: int) -> None:
        if link := self._links.pop((kind, ifindex), None):
            link.detach()

    def status(self) -> tuple[InterfaceStatus, ...]:
        return tuple(self._status[name] for name in sorted(self._status))

    def detach(self) -> None:
        for link in self._links.values():
            link.detach()
        self._links.clear()

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()
