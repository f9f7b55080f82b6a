"""What the verbs have in common: how one is declared, and how it prints what it was answered."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from lbnode.cli.client import Client

Run = Callable[[argparse.Namespace, Client], int]  # returns the exit status
CLEAR = "\x1b[H\x1b[2J"


class Verbs:
    """The parser's verbs; each module of verbs adds its own."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._verbs = parser.add_subparsers(metavar="VERB", required=True)

    def add(self, name: str, run: Run, help_: str) -> argparse.ArgumentParser:
        sub = self._verbs.add_parser(name, help=help_, description=help_)
        sub.set_defaults(run=run)
        return sub


def add_output(sub: argparse.ArgumentParser, *, watch: bool = False) -> None:
    sub.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table")
    sub.set_defaults(watch=False)
    if watch:
        sub.add_argument("-w", "--watch", action="store_true", help="show again at every change, until Ctrl-C")


def show(
    arguments: argparse.Namespace,
    client: Client,
    fetch: Callable[[], Any],
    as_text: Callable[[Any, float], str],
    *,
    topic: str = "status",
) -> int:
    """What `fetch` answers, in the form asked for; with --watch again at each event `topic` of the node's stream."""

    def once() -> None:
        data = fetch()
        if arguments.output == "json":
            print(json.dumps(data, indent=2))
        elif arguments.output == "yaml":
            print(as_yaml(data), end="")
        else:
            print(as_text(data, time.time()), end="")

    once()
    if arguments.watch:
        for name, _ in client.events():
            if name == topic:
                clear_screen()
                once()
                sys.stdout.flush()
    return 0


def clear_screen() -> None:
    if sys.stdout.isatty():
        print(CLEAR, end="")


def as_yaml(data: Any) -> str:
    import yaml  # here, because most verbs do without it and start faster

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
