"""lbctl: look at a node and change the cluster. See `lbctl --help`; every verb is one function below."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from lbnode.cli import render
from lbnode.cli.client import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, ApiError, Client, segment

CLEAR = "\x1b[H\x1b[2J"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments, Client(arguments.socket)))
    except ApiError as error:
        print(f"lbctl: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lbctl",
        description="Look at an lbnode gateway and change its cluster's configuration.",
        epilog="Exit: 0 ok, 1 failed (diff: differences; import: something was left out), 2 usage, 3 not found, "
        "4 conflict, 5 node unreachable.",
    )
    parser.add_argument("--socket", help="the node's API socket (default: $LBNODE_SOCKET or /run/lbnode/api.sock)")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace, Client], int], help_: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_, description=help_)
        sub.set_defaults(run=run)
        return sub

    def output(sub: argparse.ArgumentParser, *, watch: bool = True) -> None:
        sub.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table")
        sub.set_defaults(watch=False)
        if watch:
            sub.add_argument("-w", "--watch", action="store_true", help="show again at every change, until Ctrl-C")

    output(verb("status", status, "role, store, data plane, synchronisation, peers and problems of this node"))
    get_ = verb("get", get, "show services, servers, nodes, problems, connections or the whole configuration")
    get_.add_argument(
        "what",
        nargs="?",
        default="services",
        choices=("services", "nodes", "roles", "problems", "connections", "document"),
    )
    get_.add_argument("id", nargs="?", help="one service id, for example tcp:192.0.2.10:80")
    output(get_)
    apply_ = verb("apply", apply, "make the configuration contain this document, as one transaction")
    diff_ = verb("diff", diff, "show what `apply` would change; exit 1 if anything")
    for sub in (apply_, diff_):
        sub.add_argument("-f", "--file", required=True, help="YAML or JSON; - reads standard input")
        sub.add_argument("--prune", action="store_true", help="delete what the document does not name")
        output(sub, watch=False)
    apply_.add_argument("--dry-run", action="store_true", help="validate and show, change nothing")
    apply_.add_argument("--wait", type=float, nargs="?", const=30.0, metavar="S", help="until every node programmed it")
    for name, run, help_ in (
        ("drain", drain, "take a server out: no new connections, established ones stay"),
        ("undrain", undrain, "give a drained server its weight back"),
        ("weight", set_weight, "change a server's configured weight"),
    ):
        sub = verb(name, run, help_)
        sub.add_argument("server", help="ADDRESS:PORT")
        if name == "weight":
            sub.add_argument("weight", type=int)
        sub.add_argument("-s", "--service", default="*", help="only in this service (default: in all it is part of)")
    import_ = verb(
        "import",
        import_document,
        "print a document made of keepalived.conf, or of `ipvsadm -S`; on stderr what is not in it. Exit 1 if anything",
    )
    import_.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="[NODE=]FILE of keepalived, one for each gateway; or the word ipvsadm, then a file; - is standard input",
    )
    explain_ = verb(
        "explain",
        explain,
        "what this node would do with a packet now, and why: the data plane's own program says it. Nothing changes",
    )
    explain_.add_argument("protocol", choices=("tcp", "udp", "sctp"))
    explain_.add_argument("source", help="ADDRESS:PORT of its sender (IPv6: [ADDRESS]:PORT)")
    explain_.add_argument("target", help="ADDRESS:PORT that it is for")
    explain_.add_argument("--interface", metavar="IF", default="", help="it comes in here (default: its sender's way)")
    explain_.add_argument("--mark", type=int, metavar="N", default=0, help="firewall mark")
    explain_.add_argument("--length", type=int, metavar="BYTES", default=0, help="of the IP packet (default: headers)")
    output(explain_, watch=False)
    events_ = verb("events", events, "the journal: what happened, to what, and why")
    events_.add_argument("-n", "--lines", type=int, default=50)
    events_.add_argument("-w", "--watch", action="store_true", help="go on with new events, until Ctrl-C")
    events_.add_argument("-o", "--output", choices=("table", "json"), default="table")
    verb("top", top, "services by load, live").add_argument(
        "-n", "--count", type=int, help="stop after so many screens"
    )
    failover_ = verb("failover", failover, "make this node give up the active role of a VIP group")
    failover_.add_argument("group")
    failover_.add_argument("--to", metavar="NODE", default="", help="who shall take over (default: the best backup)")
    election_ = verb("election", election, "who holds each VIP group, who did before, and why")
    election_.add_argument("group", nargs="?")
    election_.add_argument("--dot", action="store_true", help="draw the state machine, for Graphviz")
    maintenance_ = verb("maintenance", maintenance, "have a node hold no VIP group that another one can hold")
    maintenance_.add_argument("switch", choices=("on", "off"))
    maintenance_.add_argument("node", nargs="?", help="default: this node")
    for sub in (failover_, maintenance_):
        sub.add_argument("--dry-run", action="store_true", help="show what would move, change nothing")
    zero_ = verb("zero", zero, "zero the counters of one service, or of all")
    zero_.add_argument("service", nargs="?")
    sysctl_ = verb("sysctl", sysctl, "kernel settings of a gateway: check, apply, or print a sysctl.d file")
    sysctl_.add_argument("action", choices=("check", "apply", "print"))
    sysctl_.add_argument("--from", dest="source", metavar="FILE", help="print: take over a file with former names")
    output(sysctl_, watch=False)
    return parser


# --- verbs: showing ------------------------------------------------------------------------------------------


def status(arguments: argparse.Namespace, client: Client) -> int:
    return _show(arguments, client, "status", lambda: client.get("/api/v1/status"), render.status)


def get(arguments: argparse.Namespace, client: Client) -> int:
    what, wanted = arguments.what, arguments.id
    if wanted is not None and what != "services":
        raise ApiError(f"get {what} takes no id", EXIT_USAGE)
    if what == "connections" and arguments.output == "table" and not arguments.watch:
        sys.stdout.writelines(render.connections(client.lines("/api/v1/connections")))
        return 0
    fetch: dict[str, Callable[[], Any]] = {
        "services": lambda: _services(client, wanted),
        "nodes": lambda: client.get("/api/v1/status")["nodes"],
        "roles": lambda: client.get("/api/v1/status")["roles"],
        "problems": lambda: client.get("/api/v1/status")["problems"],
        "connections": lambda: list(client.lines("/api/v1/connections")),
        "document": lambda: client.get("/api/v1/document")["document"],
    }
    show: dict[str, Callable[[Any, float], str]] = {
        "services": lambda data, _: render.services(data),
        "nodes": render.nodes,
        "roles": lambda data, now: render.roles(data, now, client.get("/api/v1/status")["dataplane"]["leases"]),
        "problems": lambda data, _: render.problems(data),
        "connections": lambda data, _: "".join(render.connections(data)),
        "document": lambda data, _: _yaml(data),
    }
    return _show(arguments, client, what, fetch[what], show[what])


def _services(client: Client, wanted: str | None) -> list[Any]:
    if wanted is not None:
        return [client.get(f"/api/v1/services/{segment(wanted)}")]
    return list(client.get("/api/v1/services")["services"])


def explain(arguments: argparse.Namespace, client: Client) -> int:
    names = ("protocol", "source", "target", "interface", "mark", "length")
    query = urlencode({name: getattr(arguments, name) for name in names if getattr(arguments, name)})
    path = f"/api/v1/explain?{query}"
    return _show(arguments, client, "explain", lambda: client.get(path), lambda data, _: render.explanation(data))


def events(arguments: argparse.Namespace, client: Client) -> int:
    def show(item: Any) -> None:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item["time"]))
        print(json.dumps(item) if arguments.output == "json" else render.event(item, clock), flush=True)

    last = 0
    for item in client.get(f"/api/v1/events?since=0&limit={arguments.lines}")["events"]:
        show(item)
        last = item["seq"]
    if arguments.watch:
        for name, data in client.events():
            if name == "journal":
                for item in data if isinstance(data, list) else [data]:
                    if item["seq"] > last:
                        show(item)
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
        clear = CLEAR if sys.stdout.isatty() else ""
        print(f"{clear}{time.strftime('%H:%M:%S')}  {render.quantity(rate)} connections/s, {active} active\n")
        print(render.services(items), flush=True)
        shown += 1
        if arguments.count and shown >= arguments.count:
            break
    return 0


def _show(
    arguments: argparse.Namespace,
    client: Client,
    what: str,
    fetch: Callable[[], Any],
    show: Callable[[Any, float], str],
) -> int:
    def once() -> None:
        data = fetch()
        if arguments.output == "json":
            print(json.dumps(data, indent=2))
        elif arguments.output == "yaml":
            print(_yaml(data), end="")
        else:
            print(show(data, time.time()), end="")

    once()
    if arguments.watch:
        topic = "services" if what == "services" else "status"
        for name, _ in client.events():
            if name == topic:
                print(CLEAR if sys.stdout.isatty() else "", end="")
                once()
                sys.stdout.flush()
    return 0


def _yaml(data: Any) -> str:
    import yaml  # here, because most verbs do without it and start faster

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


# --- verbs: changing -----------------------------------------------------------------------------------------


def apply(arguments: argparse.Namespace, client: Client) -> int:
    body = {"document": _document(arguments.file), "prune": arguments.prune, "dry_run": arguments.dry_run}
    result = client.call("POST", "/api/v1/apply", body)
    _print_changes(arguments, result)
    if arguments.wait is not None and not arguments.dry_run:
        return _wait_programmed(client, result["revision"], arguments.wait)
    return 0


def diff(arguments: argparse.Namespace, client: Client) -> int:
    body = {"document": _document(arguments.file), "prune": arguments.prune}
    result = client.call("POST", "/api/v1/diff", body)
    _print_changes(arguments, result)
    return 1 if result["changes"] else 0


def _document(path: str) -> Any:
    from lbnode.config.parse import parse_document  # pydantic and YAML: only where a document is read

    name = "standard input" if path == "-" else path
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ApiError(f"{name}: {error}", EXIT_USAGE) from error
    parsed = parse_document(text, name)
    if parsed.problems:
        raise ApiError("\n".join(str(problem) for problem in parsed.problems), EXIT_FAILED)
    return parsed.document


def import_document(arguments: argparse.Namespace, _: Client) -> int:
    from lbnode.cli import importing  # pydantic and YAML, as above

    return importing.run(arguments.source)


def _print_changes(arguments: argparse.Namespace, result: Any) -> None:
    if arguments.output == "json":
        print(json.dumps(result, indent=2))
    elif arguments.output == "yaml":
        print(_yaml(result), end="")
    elif result["changes"]:
        print(render.changes(result["changes"]), end="")
    else:
        print("unchanged")


def _wait_programmed(client: Client, revision: int, limit_s: float) -> int:
    """Until every reachable node has tried every object of the revision; 1 if any of them failed."""
    deadline = time.monotonic() + limit_s
    while True:
        nodes = [node for node in client.get("/api/v1/status")["nodes"] if node["reachable"]]
        late = [node for node in nodes if node["settled_revision"] < revision]
        if not late:
            break
        if time.monotonic() >= deadline:
            names = ", ".join(f"{node['name']} (at {node['settled_revision']})" for node in late)
            print(f"lbctl: not programmed after {limit_s:g} s: {names}", file=sys.stderr)
            return EXIT_FAILED
        time.sleep(0.1)
    failing = [node["name"] for node in nodes if node["programmed_revision"] < revision]
    if failing:
        names = ", ".join(failing)
        print(f"lbctl: some objects could not be programmed on {names}: see STATUS of `lbctl get`", file=sys.stderr)
        return EXIT_FAILED
    print(f"programmed at revision {revision}")
    return 0


def drain(arguments: argparse.Namespace, client: Client) -> int:
    return _change_server(arguments, client, {"drain": True})


def undrain(arguments: argparse.Namespace, client: Client) -> int:
    return _change_server(arguments, client, {"drain": False})


def set_weight(arguments: argparse.Namespace, client: Client) -> int:
    return _change_server(arguments, client, {"weight": arguments.weight})


def _change_server(arguments: argparse.Namespace, client: Client, change: dict[str, Any]) -> int:
    path = f"/api/v1/services/{segment(arguments.service)}/servers/{segment(arguments.server)}"
    result = client.call("PATCH", path, change)
    print(render.changes(result["changes"]) or "unchanged\n", end="")
    return 0


def failover(arguments: argparse.Namespace, client: Client) -> int:
    status = client.get("/api/v1/status")
    if any(role["group"] == arguments.group for role in status["roles"]):
        print(render.moves(status, status["node"], (arguments.group,), arguments.to), end="")
    if not arguments.dry_run:
        to = f"?to={segment(arguments.to)}" if arguments.to else ""
        client.call("POST", f"/api/v1/vip-groups/{segment(arguments.group)}/handover{to}", {})
    return 0


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


def maintenance(arguments: argparse.Namespace, client: Client) -> int:
    status, known = client.get("/api/v1/status"), client.get("/api/v1/document")
    node = arguments.node or status["node"]
    settings = dict(known["document"].get("settings", {}))
    resting = set(settings.get("maintenance", ()))
    resting = resting | {node} if arguments.switch == "on" else resting - {node}
    settings["maintenance"] = sorted(resting)
    if arguments.switch == "on":
        held = [role["group"] for role in _roles_of(status, node) if role["state"] == "active"]
        shared = known["document"].get("vip-groups", {})
        groups = [group for group in held if len(shared.get(group, {}).get("priorities", ())) > 1]  # the rest stays
        moves = render.moves(status, node, groups)
        print(moves, end="")
        if "no other node" in moves:
            raise ApiError("nobody would hold what stays; nothing was changed", EXIT_FAILED)
    body = {"document": {"settings": settings}, "dry_run": arguments.dry_run, "expect_revision": known["revision"]}
    result = client.call("POST", "/api/v1/apply", body)
    print(render.changes(result["changes"]) or "unchanged\n", end="")
    return 0


def _roles_of(status: Any, node: str) -> Any:
    return next((one["roles"] for one in status["nodes"] if one["name"] == node), [])


def zero(arguments: argparse.Namespace, client: Client) -> int:
    client.call("POST", "/api/v1/zero", {"service": arguments.service})
    return 0


def sysctl(arguments: argparse.Namespace, client: Client) -> int:
    if arguments.action == "print":
        return _sysctl_print(arguments.source)
    if arguments.source:
        raise ApiError("--from goes with print", EXIT_USAGE)
    if arguments.action == "apply":
        findings = client.call("POST", "/api/v1/sysctl/apply", {})
    else:
        findings = client.get("/api/v1/sysctl")
    items: Iterable[Any] = findings["findings"] if isinstance(findings, dict) else findings
    items = list(items)
    print(json.dumps(items, indent=2) if arguments.output == "json" else render.sysctl(items), end="")
    wrong = [item for item in items if item["actual"] not in (None, item["wanted"])]
    return 1 if arguments.action == "check" and wrong else 0


def _sysctl_print(source: str | None) -> int:
    """A sysctl.d file; with `source`, its values under present names on top of the profile."""
    from lbnode.tuning.profile import UnknownSetting, parse, present_name, profile
    from lbnode.tuning.profile import render as render_profile

    overrides: dict[str, str] = {}
    complaints = 0
    if source is not None:
        try:
            for number, key, value in parse(Path(source).read_text(encoding="utf-8")):
                try:
                    present_name(key)
                    overrides[key] = value
                except UnknownSetting as error:
                    complaints += 1
                    print(f"{source}:{number}: {error}", file=sys.stderr)
        except (OSError, ValueError) as error:
            raise ApiError(f"{source}: {error}", EXIT_USAGE) from error
    print(render_profile(profile(overrides)), end="")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
