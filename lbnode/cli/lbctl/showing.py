"""Verbs that show: the node, the configuration, connections, events, load, and what becomes of a packet."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from lbnode.cli.client import EXIT_USAGE, ApiError, Client, segment
from lbnode.cli.lbctl import render
from lbnode.cli.lbctl.verbs import Verbs, add_output, as_yaml, clear_screen, show

_OF_CONNECTIONS = ("service", "server", "client", "state", "limit")


def add_to(verbs: Verbs) -> None:
    add_output(
        verbs.add("status", status, "role, store, data plane, synchronisation, peers and problems of this node"),
        watch=True,
    )
    sub = verbs.add("get", get, "show services, servers, nodes, problems, connections or the whole configuration")
    sub.add_argument(
        "what",
        nargs="?",
        default="services",
        choices=("services", "nodes", "roles", "problems", "connections", "document"),
    )
    sub.add_argument("id", nargs="?", help="one service id, for example tcp:192.0.2.10:80")
    for name, metavar, text in (
        ("service", "ID", "connections of this service"),
        ("server", "ADDRESS:PORT", "connections to this real server"),
        ("client", "PREFIX", "connections of clients in this network, for example 203.0.113.0/24"),
        ("state", "STATE", "connections in this state, for example SYN_RECV"),
        ("limit", "N", "at most so many connections"),
    ):
        sub.add_argument(f"--{name}", metavar=metavar, default="", help=text)
    add_output(sub, watch=True)
    sub = verbs.add("events", events, "the journal: what happened, to what, and why")
    sub.add_argument("-n", "--lines", type=int, default=50)
    sub.add_argument("-w", "--watch", action="store_true", help="go on with new events, until Ctrl-C")
    sub.add_argument("-o", "--output", choices=("table", "json"), default="table")
    sub = verbs.add("top", top, "services by load, live")
    sub.add_argument("-n", "--count", type=int, help="stop after so many screens")
    sub = verbs.add(
        "explain",
        explain,
        "what this node would do with a packet now, and why: the data plane's own program says it. Nothing changes",
    )
    sub.add_argument("protocol", choices=("tcp", "udp", "sctp"))
    sub.add_argument("source", help="ADDRESS:PORT of its sender (IPv6: [ADDRESS]:PORT)")
    sub.add_argument("target", help="ADDRESS:PORT that it is for")
    sub.add_argument("--interface", metavar="IF", default="", help="it comes in here (default: its sender's way)")
    sub.add_argument("--mark", type=int, metavar="N", default=0, help="firewall mark")
    sub.add_argument("--length", type=int, metavar="BYTES", default=0, help="of the IP packet (default: headers)")
    add_output(sub)


def status(arguments: argparse.Namespace, client: Client) -> int:
    return show(arguments, client, lambda: client.get("/api/v1/status"), render.status)


def get(arguments: argparse.Namespace, client: Client) -> int:
    what, wanted = arguments.what, arguments.id
    if wanted is not None and what != "services":
        raise ApiError(f"get {what} takes no id", EXIT_USAGE)
    asked = {name: getattr(arguments, name) for name in _OF_CONNECTIONS if getattr(arguments, name)}
    if asked and what != "connections":
        raise ApiError(f"get {what} takes no --{next(iter(asked))}: it is of connections", EXIT_USAGE)
    connections = "/api/v1/connections" + (f"?{urlencode(asked)}" if asked else "")
    if what == "connections" and arguments.output == "table" and not arguments.watch:
        sys.stdout.writelines(render.connections(client.lines(connections)))
        return 0
    fetch: dict[str, Callable[[], Any]] = {
        "services": lambda: _services(client, wanted),
        "nodes": lambda: client.get("/api/v1/status")["nodes"],
        "roles": lambda: client.get("/api/v1/status")["roles"],
        "problems": lambda: client.get("/api/v1/status")["problems"],
        "connections": lambda: list(client.lines(connections)),
        "document": lambda: client.get("/api/v1/document")["document"],
    }
    as_text: dict[str, Callable[[Any, float], str]] = {
        "services": lambda data, _: render.services(data),
        "nodes": render.nodes,
        "roles": lambda data, now: render.roles(data, now, client.get("/api/v1/status")["dataplane"]["leases"]),
        "problems": lambda data, _: render.problems(data),
        "connections": lambda data, _: "".join(render.connections(data)),
        "document": lambda data, _: as_yaml(data),
    }
    topic = "services" if what == "services" else "status"
    return show(arguments, client, fetch[what], as_text[what], topic=topic)


def _services(client: Client, wanted: str | None) -> list[Any]:
    if wanted is not None:
        return [client.get(f"/api/v1/services/{segment(wanted)}")]
    return list(client.get("/api/v1/services")["services"])


def events(arguments: argparse.Namespace, client: Client) -> int:
    def tell(item: Any) -> None:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item["time"]))
        print(json.dumps(item) if arguments.output == "json" else render.event(item, clock), flush=True)

    last = 0
    for item in client.get(f"/api/v1/events?since=0&limit={arguments.lines}")["events"]:
        tell(item)
        last = item["seq"]
    if arguments.watch:
        for name, data in client.events():
            if name == "journal":
                for item in data if isinstance(data, list) else [data]:
                    if item["seq"] > last:
                        tell(item)
                        last = item["seq"]
    return 0


def top(arguments: argparse.Namespace, client: Client) -> int:
    """Busiest service first; each of the node's updates is one screen."""
    shown = 0
    for name, data in client.events():
        if name != "services":
            continue
        items = data["services"] if isinstance(data, dict) else data
        items = sorted(items, key=lambda s: (-s["rates"]["connections"], -s["counters"]["active"], s["id"]))
        rate = sum(service["rates"]["connections"] for service in items)
        active = sum(service["counters"]["active"] for service in items)
        clear_screen()
        print(f"{time.strftime('%H:%M:%S')}  {render.quantity(rate)} connections/s, {active} active\n")
        print(render.services(items), flush=True)
        shown += 1
        if arguments.count and shown >= arguments.count:
            break
    return 0


def explain(arguments: argparse.Namespace, client: Client) -> int:
    names = ("protocol", "source", "target", "interface", "mark", "length")
    query = urlencode({name: getattr(arguments, name) for name in names if getattr(arguments, name)})
    path = f"/api/v1/explain?{query}"
    return show(arguments, client, lambda: client.get(path), lambda data, _: render.explanation(data))
