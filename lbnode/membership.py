"""What nodes tell each other through the store: each writes nodes/<name> under a lease and reads the others'."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from ipaddress import ip_address
from typing import Any

from lbnode.control import NodeInfo
from lbnode.errors import LbError
from lbnode.model import Role, VrrpState
from lbnode.store.base import Lease, Store, View
from lbnode.watched import Watched

PREFIX = "nodes/"
LEASE_TTL_S = 5
# At most one write a second: roles and revisions may change in bursts, and every write costs the store an fsync.
WRITE_INTERVAL_S = 1.0
# A node that dies is known to have died so long after: its lease in the store must end, and be seen to have ended.
DEATH_IS_SEEN_AFTER_S = 2 * LEASE_TTL_S

log = logging.getLogger(__name__)


def encode(info: NodeInfo) -> str:
    document = asdict(replace(info, seen=0.0))
    for role in document["roles"]:
        role["active_address"] = str(role["active_address"]) if role["active_address"] else None
    return json.dumps(document, sort_keys=True)


def decode(text: str) -> NodeInfo:
    """ValueError, KeyError or TypeError if another version of lbnode wrote something we do not understand."""
    document: Mapping[str, Any] = json.loads(text)
    roles = tuple(
        Role(
            group=role["group"],
            state=VrrpState(role["state"]),
            priority=role["priority"],
            since=role["since"],
            reason=role["reason"],
            active_address=ip_address(role["active_address"]) if role["active_address"] else None,
            problem=role["problem"],
            epoch=role.get("epoch", 0),
        )
        for role in document["roles"]
    )
    return NodeInfo(
        name=document["name"],
        version=document["version"],
        started=document["started"],
        roles=roles,
        programmed_revision=document["programmed_revision"],
        problems=document["problems"],
        settled_revision=document["settled_revision"],
    )


def without_superseded(info: NodeInfo, mine: Sequence[Role], now: float) -> NodeInfo:
    """What another node said of itself, less the active roles that this node took over since then.

    It may be dead, or not yet have told of a handover. One that still says so later is active beside this one.
    """
    taken = {role.group: role.since for role in mine if role.state is VrrpState.ACTIVE}

    def corrected(role: Role) -> Role:
        if role.state is VrrpState.ACTIVE and role.since < taken.get(role.group, 0) > now - DEATH_IS_SEEN_AFTER_S:
            why = "was active until this node took over, has said nothing since"
            return replace(role, state=VrrpState.INITIALIZE, since=taken[role.group], reason=why)
        return role

    return replace(info, roles=tuple(map(corrected, info.roles)))


class Membership:
    """Publishes this node and remembers the others; a node whose key vanished is shown as unreachable."""

    def __init__(self, store: Store, me: Watched[NodeInfo]) -> None:
        self._store = store
        self._me = me
        self._others: dict[str, NodeInfo] = {}

    def observe(self, view: View) -> None:
        """Take in the newest view of the store."""
        now = time.time()
        present: dict[str, NodeInfo] = {}
        for key, entry in view.entries.items():
            name = key.removeprefix(PREFIX)
            if name == key or name == self._me.value.name:
                continue
            try:
                present[name] = replace(decode(entry.value), seen=now)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s is not understood: %r (another version of lbnode?)", key, error)
        for name, info in self._others.items():
            if name not in present:
                present[name] = replace(info, reachable=False)
        self._others = present

    def nodes(self) -> tuple[NodeInfo, ...]:
        """This node first, then the others by name."""
        me, now = self._me.value, time.time()
        others = sorted(self._others.values(), key=lambda node: node.name)
        return (replace(me, seen=now), *(without_superseded(other, me.roles, now) for other in others))

    async def run(self) -> None:
        """Publish until cancelled; a store that does not answer is tried again."""
        lease: Lease | None = None
        written = ""
        try:
            while True:
                seen = self._me.version
                text = encode(self._me.value)
                if text != written:
                    try:
                        lease = lease or await self._store.lease(LEASE_TTL_S)
                        await lease.put(PREFIX + self._me.value.name, text)
                        written = text
                    except LbError as error:
                        log.info("this node's state could not be published: %s", error)
                await asyncio.sleep(WRITE_INTERVAL_S)
                if written == encode(self._me.value):
                    await self._me.wait_changed(seen)
        finally:
            if lease is not None:
                try:
                    async with asyncio.timeout(1.0):
                        await lease.revoke()
                except (LbError, TimeoutError):
                    log.info("this node's state could not be withdrawn; it ends with its lease in %d s", LEASE_TTL_S)
