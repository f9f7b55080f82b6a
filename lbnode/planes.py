"""Which data plane this node drives: node.toml decides, else the cluster's settings, else what the kernel has."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from contextlib import closing
from dataclasses import dataclass

from lbnode.config.bootstrap import NodeConfig
from lbnode.config.keys import parse_key
from lbnode.config.schema import SettingsDocument
from lbnode.config.value import parse_value
from lbnode.dataplane.base import DataPlane
from lbnode.dataplane.fake import FakePlane
from lbnode.dataplane.ipvs.netlink import GenericNetlink
from lbnode.dataplane.ipvs.plane import LEDGER, IpvsPlane
from lbnode.dataplane.xdp.guard import LeaseGuard
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.errors import DataPlaneError, StoreUnavailable
from lbnode.store.base import Entry, Store
from lbnode.store.cache import ConfigCache

PATIENCE_S = 2.0  # a start waits so long for the store's settings, then takes those of the disk cache

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    kind: str  # "xdp" | "ipvs" | "fake"
    why: str


async def choose(config: NodeConfig, store: Store) -> Choice:
    """Before anything is programmed: a node drives one data plane for as long as its daemon runs."""
    if config.dataplane.kind != "auto":
        return Choice(config.dataplane.kind, "node.toml says so")
    wanted = await _cluster_setting(store, ConfigCache(config.state_dir / "config.cache"))
    if wanted != "auto":
        return Choice(wanted, "the cluster's settings say so")
    if missing := await asyncio.to_thread(missing_ip_vs):
        return Choice("xdp", missing)
    return Choice("ipvs", "this kernel has ip_vs")


def missing_ip_vs() -> str:
    """Why IPVS cannot be driven, or nothing. Looking ip_vs up loads its module where there is one."""
    try:
        with closing(GenericNetlink()) as sock:
            sock.connect()
    except OSError as error:
        return "this kernel has no ip_vs" if error.errno == errno.ENOENT else f"ip_vs does not answer: {error}"
    return ""


async def _cluster_setting(store: Store, cache: ConfigCache) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            view = await store.snapshot()
    except (StoreUnavailable, TimeoutError):
        cached = await asyncio.to_thread(cache.load)
        return _setting(cached.entries.get("settings") if cached else None)
    return _setting(view.entries.get("settings"))


def _setting(entry: Entry | None) -> str:
    document = parse_value(parse_key("settings"), entry.value).document if entry is not None else None
    return document.dataplane if isinstance(document, SettingsDocument) else "auto"


def make_plane(config: NodeConfig, kind: str) -> DataPlane:
    if kind == "fake":
        return FakePlane()
    if kind == "ipvs":
        return IpvsPlane(config.run_dir, LeaseGuard(config.run_dir, config.dataplane.interfaces))
    return XdpPlane(
        config.run_dir,
        interfaces=config.dataplane.interfaces,
        attach=config.dataplane.attach,
        connections=config.dataplane.connections,
    )


def loaded(config: NodeConfig) -> set[str]:
    """Kinds of data plane of which something may be in the kernel, from this or an earlier daemon of this run_dir."""
    there = {"xdp": os.path.ismount(config.run_dir / "bpf"), "ipvs": (config.run_dir / LEDGER).exists()}
    return {kind for kind, here in there.items() if here}


async def unload(config: NodeConfig, *, but: str = "") -> None:
    """Take out of the kernel what this or an earlier daemon of this run_dir put there; `but` that kind of data plane.

    Two at once would both take the clients' packets.
    """
    for kind in sorted(loaded(config) - {but}):
        log.info("taking the %s data plane out of the kernel", kind)
        try:
            await make_plane(config, kind).close(unload=True)
        except DataPlaneError as error:
            if error.errno != errno.ENOENT:  # a kernel without ip_vs has nothing of it either
                raise
