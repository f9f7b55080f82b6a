"""The VIP leases alone (bpf/lease.bpf.c), for a data plane that has none of its own: the kernel's ip_vs.

A small program at tc ingress, and one at egress, of the same interfaces that the XDP plane would serve. Like its own,
their maps and links are pinned, in `<run_dir>/lease`: the leases hold, and end, whoever has died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lbnode.dataplane.base import InterfaceStatus, LeaseStatus
from lbnode.dataplane.xdp import counts, links
from lbnode.dataplane.xdp.attachments import Attachments
from lbnode.dataplane.xdp.layout import Event
from lbnode.dataplane.xdp.leases import Leases
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map, mount_bpffs, unmount_bpffs
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.model import Address

OBJECT = Path(__file__).parent / "bpf" / "lease.bpf.o"


class LeaseGuard:
    """For the network namespace that `open` is called in. interfaces: names; empty = every Ethernet interface."""

    def __init__(self, run_dir: Path, interfaces: Sequence[str] = ()) -> None:
        self._pins = run_dir / "lease"
        self._names = tuple(interfaces)
        self._object: LoadedObject | None = None
        self._kernel: Neighbours | None = None

    async def open(self) -> None:
        """Load, or adopt what an earlier process left. DataPlaneError says what the kernel lacks."""
        mount_bpffs(self._pins)
        try:
            self._object = await asyncio.to_thread(LoadedObject, OBJECT, pins=lambda name: self._pins / name)
            self._maps = {name: Map(fd) for name, fd in self._object.maps.items()}
            self._leases = Leases(self._maps)
            programs = {"tcx": self._object.programs["tc_lease"], "out": self._object.programs["tc_lease_out"]}
            self._attachments = Attachments(self._pins, self._names, "tcx", programs)
            self._attachments.adopt()
            self._kernel = Neighbours(lambda *_: None, self._attachments.update, lambda: None)  # for the links alone
            await self._kernel.start()
        except BaseException:
            await self.close()
            raise

    async def close(self, *, unload: bool = False) -> None:
        """Let go of it. The leases hold on unless `unload`."""
        if self._kernel is not None:
            await self._kernel.stop()
            self._kernel = None
            self._attachments.close()
        if self._object is not None:
            self._object.close()
            self._object = None
        if unload and self._pins.exists():
            for link in links.adopt(self._pins).values():
                link.detach()
            unmount_bpffs(self._pins)

    @property
    def map_fd(self) -> int:
        return self._leases.map_fd

    def set_groups(self, groups: Mapping[str, Collection[Address]]) -> Mapping[str, int]:
        """As DataPlane.set_leases."""
        self._leases.set_groups(groups)
        return self._leases.groups

    def status(self) -> tuple[Sequence[InterfaceStatus], Mapping[str, int], Sequence[LeaseStatus]]:
        """(where it is attached, dropped packets by reason, leases)"""
        assert self._kernel is not None
        self._kernel.check()
        events = self._maps["events"]
        reasons = {"no-lease": Event.DROP_NO_LEASE, "solicitation": Event.DROP_SOLICITATION, "claim": Event.DROP_CLAIM}
        drops = {reason: counts.unpack_event(events.get_index(event)) for reason, event in reasons.items()}
        interfaces = [replace(one, reason="holds the VIP leases") for one in self._attachments.status()]
        return interfaces, drops, self._leases.status()
