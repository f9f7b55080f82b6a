"""Messages between the daemon and its election process: JSON lines over a socket pair. Pure.

To the process: {"groups": [...]} whenever the configuration changes, {"handover": NAME}.
From the process: {"role": {...}} on each change, {"dropped": {...}} for invalid packets, {"warning": TEXT}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from lbnode.model import Role, VipAddress, VipGroup, VrrpState


def encode_line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def groups_message(groups: Iterable[VipGroup]) -> dict[str, Any]:
    return {"groups": [_group_document(group) for group in groups]}


def _group_document(group: VipGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "vrid": group.vrid,
        "interface": group.interface,
        "addresses": [[str(vip.address), vip.prefix_len, vip.interface] for vip in group.addresses],
        "priorities": dict(group.priorities),
        "advert_interval_s": group.advert_interval_s,
        "preempt": group.preempt,
    }


def group_from(document: dict[str, Any]) -> VipGroup:
    addresses = tuple(
        VipAddress(ip_address(address), length, interface) for address, length, interface in document["addresses"]
    )
    return VipGroup(**{**document, "addresses": addresses})


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
        }
    }


def role_from(document: dict[str, Any]) -> Role:
    address = document["active_address"]
    return Role(
        **{
            **document,
            "state": VrrpState(document["state"]),
            "active_address": None if address is None else ip_address(address),
        }
    )
