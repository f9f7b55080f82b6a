"""Verbs that change the configuration, or make a document of another program's."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from lbnode.cli.client import EXIT_FAILED, EXIT_USAGE, ApiError, Client, segment
from lbnode.cli.lbctl import render
from lbnode.cli.lbctl.fields import FIELDS
from lbnode.cli.lbctl.verbs import Verbs, add_output, as_yaml


def add_to(verbs: Verbs) -> None:
    apply_ = verbs.add("apply", apply, "make the configuration contain this document, as one transaction")
    apply_.epilog, apply_.formatter_class = FIELDS, argparse.RawDescriptionHelpFormatter
    diff_ = verbs.add("diff", diff, "show what `apply` would change; exit 1 if anything")
    for sub in (apply_, diff_):
        sub.add_argument("-f", "--file", required=True, help="YAML or JSON; - reads standard input")
        sub.add_argument("--prune", action="store_true", help="delete what the document does not name")
        add_output(sub)
    apply_.add_argument("--dry-run", action="store_true", help="validate and show, change nothing")
    apply_.add_argument("--wait", type=float, nargs="?", const=30.0, metavar="S", help="until every node programmed it")
    for name, run, help_ in (
        ("drain", drain, "take a server out: no new connections, established ones stay"),
        ("undrain", undrain, "give a drained server its weight back"),
        ("weight", set_weight, "change a server's configured weight"),
    ):
        sub = verbs.add(name, run, help_)
        sub.add_argument("server", help="ADDRESS:PORT")
        if name == "weight":
            sub.add_argument("weight", type=int)
        sub.add_argument("-s", "--service", default="*", help="only in this service (default: in all it is part of)")
    sub = verbs.add("zero", zero, "zero the counters of one service, or of all")
    sub.add_argument("service", nargs="?")
    sub = verbs.add(
        "import",
        import_document,
        "print a document made of keepalived.conf, or of `ipvsadm -S`; on stderr what is not in it. Exit 1 if anything",
    )
    sub.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="[NODE=]FILE of keepalived, one for each gateway; or the word ipvsadm, then a file; - is standard input",
    )


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


def _print_changes(arguments: argparse.Namespace, result: Any) -> None:
    if arguments.output == "json":
        print(json.dumps(result, indent=2))
    elif arguments.output == "yaml":
        print(as_yaml(result), end="")
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


def zero(arguments: argparse.Namespace, client: Client) -> int:
    client.call("POST", "/api/v1/zero", {"service": arguments.service})
    return 0


def import_document(arguments: argparse.Namespace, _: Client) -> int:
    from lbnode.cli.lbctl import importing  # pydantic and YAML, as above

    return importing.run(arguments.source)
