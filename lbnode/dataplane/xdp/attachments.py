"""Keeps the programs attached where they belong while interfaces come and go."""

from __future__ import annotations

import errno
import logging
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lbnode.dataplane.base import InterfaceStatus
from lbnode.dataplane.xdp import syscall
from lbnode.dataplane.xdp.interfaces import Attach, Interface, beyond_xdp, choose, wanted
from lbnode.dataplane.xdp.links import Kind, Link, adopt, attach, has_tcx
from lbnode.errors import DataPlaneError

_OUT: Mapping[Kind, Kind] = {"tcx": "tcx-out", "tc": "tc-out"}

_log = logging.getLogger(__name__)


class Attachments:
    """Links of one data plane in the current network namespace.

    `programs`: descriptors by use: "xdp"; "xdp-frags", for interfaces whose MTU needs multi-buffer frames (absent where
    the kernel has none: those are served at tcx); "tcx"; "xdp+tcx", what runs at tcx behind an XDP program for packets
    that only the network stack can send; "out", at tcx egress, on every interface.
    """

    def __init__(self, directory: Path, names: Sequence[str], mode: Attach, programs: Mapping[str, int]) -> None:
        self._directory = directory
        self._names = names
        self._mode = mode
        self._programs = programs
        self._links: dict[tuple[Kind, int], Link] = {}
        old = not has_tcx(programs["tcx"])
        # How a program gets to the hook "tcx" here, and why not by a tcx link.
        self._tc: Kind = "tc" if old or mode == "tc" else "tcx"
        self._no_tcx = f"; Linux {'.'.join(platform.release().split('.')[:2])} has no tcx (needs 6.6)" if old else ""
        self._status: dict[str, InterfaceStatus] = {}
        self._ids = _ids_of(programs)
        self._refused: dict[int, str] = {}  # by ifindex: why native XDP does not work there

    def adopt(self) -> None:
        """Take over what is pinned; every link then runs the new programs, without a packet in between unserved."""
        self._links = adopt(self._directory)
        self._put_all()

    def use(self, programs: Mapping[str, int]) -> None:
        """Other programs from now on: every packet is seen by the old or by the new one."""
        self._programs = programs
        self._ids = _ids_of(programs)
        self._put_all()

    def _put_all(self) -> None:
        for kind, ifindex in self._links:
            at_tc = "xdp+tcx" if ("xdp", ifindex) in self._links else "tcx"
            self._ensure(kind, ifindex, "out" if kind in _OUT.values() else "xdp" if kind == "xdp" else at_tc)

    def update(self, interfaces: Iterable[Interface]) -> None:
        """Attach to what is wanted and not attached yet, let go of what is not wanted or not there any more."""
        attached = {ifindex for _, ifindex in self._links}
        # One that goes down keeps its links: it must not come up unserved.
        present = {
            one.index: one
            for one in interfaces
            if wanted(replace(one, up=True) if one.index in attached else one, self._names)
        }
        self._refused = {index: why for index, why in self._refused.items() if index in present}
        for kind, ifindex in list(self._links):
            if ifindex not in present:
                self._drop(kind, ifindex)
        before, self._status = self._status, {}
        for one in present.values():
            self._status[one.name] = self._attach(one, present.values())
        for name in self._names:
            if name not in self._status:
                self._status[name] = InterfaceStatus(name, "-", "named by configuration", f"no interface {name} here")
        for name, status in self._status.items():
            if before.get(name) != status:
                _log.info("%s: %s (%s) %s", name, status.mode, status.reason, status.error)

    def _choose(self, interface: Interface) -> tuple[str, str]:
        if why := self._refused.get(interface.index):
            return "tcx", f"native XDP failed: {why}"
        return choose(interface, self._mode)

    def _attach(self, interface: Interface, all_of_them: Collection[Interface]) -> InterfaceStatus:
        mode, reason = self._choose(interface)
        if mode == "xdp" and (at_tcx := beyond_xdp([(one, self._choose(one)[0]) for one in all_of_them])):
            mode, reason = "tcx", f"{', '.join(at_tcx)} is served at tcx, and XDP could not send frames there"
        try:
            if mode == "xdp":
                self._ensure("xdp", interface.index, "xdp")
                self._ensure(self._tc, interface.index, "xdp+tcx")
            else:
                self._ensure(self._tc, interface.index, "tcx")
                self._drop("xdp", interface.index)
            self._ensure_out(interface)
            other: Kind = "tc" if self._tc == "tcx" else "tcx"
            for kind in (other, _OUT[other]):  # of a process that chose the other
                self._drop(kind, interface.index)
        except DataPlaneError as error:
            if mode == "tcx":
                return InterfaceStatus(interface.name, "-", reason + self._no_tcx, str(error))
            self._refused[interface.index] = str(error)
            for one in all_of_them:  # those that got XDP already change to tcx
                if one is not interface and one.name in self._status:
                    self._status[one.name] = self._attach(one, all_of_them)
            return self._attach(interface, all_of_them)
        if mode == "tcx":
            return InterfaceStatus(interface.name, self._tc, reason + self._no_tcx)
        return InterfaceStatus(interface.name, mode, reason)

    def _ensure(self, kind: Kind, ifindex: int, use: str) -> None:
        """Make the link run the program for this use; a new link if there is none."""
        try:
            self._put(kind, ifindex, self._programs[use])
        except DataPlaneError as error:
            if kind != "xdp" or error.errno != errno.ERANGE or "xdp-frags" not in self._programs:
                raise
            self._put(kind, ifindex, self._programs["xdp-frags"])

    def _ensure_out(self, interface: Interface) -> None:
        """Not worth doing without the interface: somebody's ingress qdisc takes filters for ingress alone."""
        try:
            self._ensure(_OUT[self._tc], interface.index, "out")
        except DataPlaneError as error:
            _log.warning("%s: VIPs without lease are not kept from its ARP requests: %s", interface.name, error)

    def _put(self, kind: Kind, ifindex: int, program: int) -> None:
        link = self._links.get((kind, ifindex))
        if link is not None and link.prog_id != self._ids[program]:
            link.swap(program)
        elif link is None:
            self._links[kind, ifindex] = attach(kind, program, ifindex, self._directory)

    def _drop(self, kind: Kind, ifindex: int) -> None:
        if link := self._links.pop((kind, ifindex), None):
            link.detach()

    def status(self) -> tuple[InterfaceStatus, ...]:
        return tuple(self._status[name] for name in sorted(self._status))

    def at_xdp(self) -> list[str]:
        return [one.name for one in self.status() if one.mode == "xdp"]

    def detach(self) -> None:
        for link in self._links.values():
            link.detach()
        self._links.clear()

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()


def _ids_of(programs: Mapping[str, int]) -> Mapping[int, int]:
    return {program: syscall.prog_info(program).id for program in programs.values()}
