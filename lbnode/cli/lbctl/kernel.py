"""`lbctl sysctl`: the kernel settings of a gateway."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lbnode.cli.client import EXIT_USAGE, ApiError, Client
from lbnode.cli.lbctl import render
from lbnode.cli.lbctl.verbs import Verbs, add_output


def add_to(verbs: Verbs) -> None:
    sub = verbs.add("sysctl", sysctl, "kernel settings of a gateway: check, apply, or print a sysctl.d file")
    sub.add_argument("action", choices=("check", "apply", "print"))
    sub.add_argument("--from", dest="source", metavar="FILE", help="print: take over a file with former names")
    add_output(sub)


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
