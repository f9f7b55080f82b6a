"""Run the cases of ipvsadm/cases.json against lbadm and a node, and tell which lines differ.

A case is a list of commands with what ipvsadm 1.31 answered: exit status, stdout, stderr. It starts with an empty
table. The folder is this one, or the one that LBNODE_REFERENCE names.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from unittest import mock

from lbnode.cli import ipvsadm
from lbnode.cli.client import Client
from tests.reference.host import ReferenceHost

FOLDER = Path(os.environ.get("LBNODE_REFERENCE") or Path(__file__).parent)
CASES = FOLDER / "ipvsadm" / "cases.json"

# Why a step may differ from ipvsadm on purpose. The README has the table for people.
TRANSACTION = "restore is one transaction: a mistake changes nothing and names the line"


@dataclass(frozen=True, slots=True)
class Answer:
    rc: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`differences`: empty = passed. `on_purpose`: why the case ended early at a step that has to differ."""

    name: str
    differences: Sequence[str]
    on_purpose: str = ""


Cases = Mapping[str, Any]  # name -> {"note", "steps"}


def load(path: Path = CASES) -> Cases:
    """No cases if there is no such file; the caller says so by name."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def run_case(name: str, case: Mapping[str, Any], client: Client) -> Outcome:
    empty(client)
    for number, step in enumerate(case["steps"], 1):
        expected = Answer(step["rc"], step["stdout"], step["stderr"])
        actual = run_step(step, client)
        if reason := on_purpose(step):
            # What follows shows another table than here; that a mistake is refused and named is tested here.
            fine = actual.rc != 0 and re.match(r"line \d+: ", actual.stderr) and actual.stdout == ""
            return Outcome(name, () if fine else (f"{number}: {step['cmd']}: {actual}",), reason)
        if found := list(differences(step["cmd"], expected, actual)):
            return Outcome(name, [f"step {number}: {step['cmd']}", *found])
    return Outcome(name, ())


def empty(client: Client) -> None:
    answer = client.get("/api/v1/document")
    document = answer["document"]
    keys = [f"services/{service}" for service in document.get("services") or {}]
    keys += ["settings"] if document.get("settings") else []
    if keys:
        body = {"put": {}, "delete": keys, "expect_revision": answer["revision"], "dry_run": False}
        revision = client.call("POST", "/api/v1/changes", body)["revision"]
        while client.get("/api/v1/status")["settled_revision"] < revision:
            pass


def run_step(step: Mapping[str, Any], client: Client) -> Answer:
    """In this process: 480 starts of Python would take minutes. What needs a shell gets one, and processes."""
    if re.search(r"[|;&<>$`(]", step["cmd"]):
        return _run_in_shell(step, client)
    program, *arguments = shlex.split(step["cmd"])
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "stdin", io.StringIO(step["stdin"] or "", newline="")),
        mock.patch.object(sys, "argv", [program, *arguments]),
        mock.patch.object(ipvsadm, "Client", return_value=client),
        mock.patch.object(ipvsadm, "SystemHost", ReferenceHost),
    ):
        main = {"ipvsadm": ipvsadm.main, "ipvsadm-save": ipvsadm.save, "ipvsadm-restore": ipvsadm.restore}[program]
        rc = main()
    return Answer(rc, stdout.getvalue(), stderr.getvalue())


def _run_in_shell(step: Mapping[str, Any], client: Client) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        for program in ("ipvsadm", "ipvsadm-save", "ipvsadm-restore"):
            script = Path(folder, program)
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.reference.program {program} "$@"\n')
            script.chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "LBNODE_SOCKET": client.socket_path,
        }
        command = ["sh", "-c", step["cmd"]]
        done = subprocess.run(
            command, input=step["stdin"] or "", capture_output=True, text=True, env=environment, check=False
        )
    return Answer(done.returncode, done.stdout, done.stderr)


def on_purpose(step: Mapping[str, Any]) -> str:
    words = shlex.split(step["cmd"])
    restores = words[0] == "ipvsadm-restore" or any(word in ("-R", "--restore") for word in words[1:2])
    return TRANSACTION if restores and step["stderr"] and step["stdin"] else ""


def differences(command: str, expected: Answer, actual: Answer) -> Iterator[str]:
    if expected.rc != actual.rc:
        yield f"exit status {actual.rc}, ipvsadm's is {expected.rc}"
    for stream in ("stdout", "stderr"):
        want, have = getattr(expected, stream), getattr(actual, stream)
        if want != have and not (order_is_free(command, want) and blocks(want) == blocks(have)):
            lines = difflib.unified_diff(want.splitlines(), have.splitlines(), "ipvsadm", "lbadm", lineterm="", n=0)
            yield from (f"{stream} {line!r}" for line in lines)


def order_is_free(command: str, listing: str) -> bool:
    """--nosort shows the kernel's hash tables; ipvsadm's comparison overflows for addresses 2^31 apart."""
    if "--nosort" in command:
        return True
    v6 = re.findall(r"\[([0-9a-fA-F:.]+)\]", listing)
    v4 = [int(ip_address(text)) for text in re.findall(r"\b(?:\d{1,3}\.){3}\d{1,3}\b", listing)]
    return len(v6) > 1 or (len(v4) > 1 and max(v4) - min(v4) >= 2**31)


def blocks(listing: str) -> list[list[str]]:
    """A listing with its services, and the servers of each, in one order."""
    found: list[list[str]] = []
    for line in listing.splitlines():
        if found and line.startswith(("  ->", "-a ")):
            found[-1].append(line)
        else:
            found.append([line])
    return sorted([first, *sorted(rest)] for first, *rest in found)
