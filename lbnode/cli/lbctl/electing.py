"""Verbs about VIP groups: who holds them and why, and moving them."""

from __future__ import annotations

import argparse
import time
from typing import Any

from lbnode.cli.client import EXIT_FAILED, EXIT_NOT_FOUND, ApiError, Client, segment
from lbnode.cli.lbctl import render
from lbnode.cli.lbctl.verbs import Verbs


def add_to(verbs: Verbs) -> None:
    sub = verbs.add("election", election, "who holds each VIP group, who did before, and why")
    sub.add_argument("group", nargs="?")
    sub.add_argument("--dot", action="store_true", help="draw the state machine, for Graphviz")
    failover_ = verbs.add("failover", failover, "make this node give up the active role of a VIP group")
    failover_.add_argument("group")
    failover_.add_argument("--to", metavar="NODE", default="", help="who shall take over (default: the best backup)")
    maintenance_ = verbs.add("maintenance", maintenance, "have a node hold no VIP group that another one can hold")
    maintenance_.add_argument("switch", choices=("on", "off"))
    maintenance_.add_argument("node", nargs="?", help="default: this node")
    for sub in (failover_, maintenance_):
        sub.add_argument("--dry-run", action="store_true", help="show what would move, change nothing")


def election(arguments: argparse.Namespace, client: Client) -> int:
    if arguments.dot:
        from lbnode.election.diagram import dot

        print(dot(), end="")
        return 0
    status = client.get("/api/v1/status")
    events_ = client.get("/api/v1/events?since=0&limit=2000")["events"]
    known = sorted({role["group"] for node in status["nodes"] for role in node["roles"]})
    if arguments.group is not None and arguments.group not in known:
        raise ApiError(f"there is no VIP group {arguments.group}", EXIT_NOT_FOUND)
    for group in [arguments.group] if arguments.group else known:
        told = [item for item in events_ if item["kind"] == "election" and item["what"] == group]
        clocks = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item["time"])) for item in told]
        print(render.election(group, status, list(zip(clocks, told, strict=True))), end="")
    return 0


def failover(arguments: argparse.Namespace, client: Client) -> int:
    to = f"?to={segment(arguments.to)}" if arguments.to else ""
    path = f"/api/v1/vip-groups/{segment(arguments.group)}/handover{to}"
    heir = client.get(path)
    print(f"{arguments.group}: {heir['node']} -> {heir['to'] or 'the best backup, if there is one'}")
    if not arguments.dry_run:
        client.call("POST", path, {})
    return 0


def maintenance(arguments: argparse.Namespace, client: Client) -> int:
    status, known = client.get("/api/v1/status"), client.get("/api/v1/document")
    node = arguments.node or status["node"]
    if node != status["node"] and status["store"]["kind"] != "etcd":
        raise ApiError(f"{status['node']} has a store of its own: run this on {node}", EXIT_FAILED)
    settings = dict(known["document"].get("settings", {}))
    resting = set(settings.get("maintenance", ()))
    resting = resting | {node} if arguments.switch == "on" else resting - {node}
    settings["maintenance"] = sorted(resting)
    if arguments.switch == "on":
        held = [role["group"] for role in _roles_of(status, node) if role["state"] == "active"]
        shared = known["document"].get("vip-groups", {})
        groups = [group for group in held if len(shared.get(group, {}).get("priorities", ())) > 1]  # the rest stays
        print(render.moves(status, node, groups, resting), end="")
        if not all(render.heir(status, node, group, resting) for group in groups):
            raise ApiError("nobody would hold what stays; nothing was changed", EXIT_FAILED)
    body = {"document": {"settings": settings}, "dry_run": arguments.dry_run, "expect_revision": known["revision"]}
    result = client.call("POST", "/api/v1/apply", body)
    print(render.changes(result["changes"]) or "unchanged\n", end="")
    return 0


def _roles_of(status: Any, node: str) -> Any:
    return next((one["roles"] for one in status["nodes"] if one["name"] == node), [])
