"""Messages between the daemon and its election process: JSON lines over a socket pair. Pure.

To the process: {"setup": {...}} first of all, {"groups": [...], "leases": {NAME: INDEX}, "maintenance": BOOL} whenever
the configuration changes (the first time also "held": {NAME: {"vrid", "since", "reason", "sent_at", "dark_after"}},
what the process before it held), {"handover": NAME, "to": NODE}, LEAVE at the end.
From the process: {"ready": true} when it can serve, {"role": {...}} on each change, {"dropped": {...}} for invalid
packets, {"warning": TEXT}, {"figures": [...]} now and then, {"realtime": TEXT}: why it may be late, "" = it may not.

About what groups track (see lbnode.tracking), to the process: {"failing": {GROUP: {TRACK: REASON}}}.

About owners in the shared store (see lbnode.ownership), to the process: {"store": BOOL} whether it answers, {"owner":
{"group", "node", "epoch"}}, {"question": {"group", "question"}}, {"answer": {"group", "node", "alive"}}. From it:
{"claim": NAME} after a takeover, {"ask": {"group", "within"}} before one, {"alive": {"group", "question"}}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from lbnode.model import Role, Track, VipAddress, VipGroup, VrrpState


@dataclass(frozen=True, slots=True)
class Setup:
    """What node.toml tells the election. `nodes`: those that have the same keys, this one included."""

    keys: Mapping[int, bytes] = field(default_factory=dict, repr=False)  # by id; the first signs
    nodes: frozenset[str] = frozenset()
    listen: tuple[str, int] | None = None  # address and UDP port of the heartbeats; None: there are none
    peers: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # where those of the others go


LEAVE = {"leave": True}  # release everything and end; a socket that closes without it means that lbnoded has died
ABDICATE = {"abdicate": True}  # from the next daemon, on another socket: see succession
PROGRESS = {"progress": True}  # so, too: its data plane is not open yet, but gets on


def encode_line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def setup_message(setup: Setup) -> dict[str, Any]:
    keys = {str(number): key.hex() for number, key in setup.keys.items()}
    return {"setup": {"keys": keys, "nodes": sorted(setup.nodes), "listen": setup.listen, "peers": dict(setup.peers)}}


def setup_from(document: dict[str, Any]) -> Setup:
    keys = {int(number): bytes.fromhex(key) for number, key in document["keys"].items()}
    listen = document["listen"]
    peers = {name: (host, port) for name, (host, port) in document["peers"].items()}
    return Setup(keys, frozenset(document["nodes"]), (listen[0], listen[1]) if listen else None, peers)


def groups_message(groups: Iterable[VipGroup], leases: Mapping[str, int] = {}) -> dict[str, Any]:
    """`leases`: the index of each group that has one in the data plane's map of leases."""
    return {"groups": [_group_document(group) for group in groups], "leases": dict(leases)}


def _group_document(group: VipGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "vrid": group.vrid,
        "interface": group.interface,
        "addresses": [[str(vip.address), vip.prefix_len, vip.interface] for vip in group.addresses],
        "priorities": dict(group.priorities),
        "advert_interval_s": group.advert_interval_s,
        "preempt": group.preempt,
        "preempt_delay_s": group.preempt_delay_s,
        "startup_delay_s": group.startup_delay_s,
        "version": group.version,
        "checksum": group.checksum,
        "unicast_peers": [str(address) for address in group.unicast_peers],
        "authentication": group.authentication,
        "virtual_mac": group.virtual_mac,
        "policy": group.policy,
        "track": [[track.kind, track.what, track.weight] for track in group.track],
    }


def group_from(document: dict[str, Any]) -> VipGroup:
    addresses = tuple(
        VipAddress(ip_address(address), length, interface) for address, length, interface in document["addresses"]
    )
    peers = tuple(ip_address(text) for text in document["unicast_peers"])
    track = tuple(Track(kind, what, weight) for kind, what, weight in document["track"])
    return VipGroup(**{**document, "addresses": addresses, "unicast_peers": peers, "track": track})


def role_message(role: Role) -> dict[str, Any]:
    return {
        "role": {
            "group": role.group,
            "state": role.state,
            "priority": role.priority,
            "since": role.since,
            "reason": role.reason,
            "active_address": None if role.active_address is None else str(role.active_address),
            "problem": role.problem,
            "epoch": role.epoch,
            "active_node": role.active_node,
            "backups": list(role.backups),
        }
    }


def role_from(document: dict[str, Any]) -> Role:
    address = document["active_address"]
    return Role(
        **{
            **document,
            "state": VrrpState(document["state"]),
            "active_address": None if address is None else ip_address(address),
            "backups": tuple(document["backups"]),
        }
    )
