"""The cases of ipvsadm/cases.json: their form, and which lines of an answer differ.

A case is a list of commands with what ipvsadm 1.31 answered: exit status, stdout, stderr. It starts with an empty
table. The folder is this one, or the one that LBNODE_REFERENCE names.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.reference.host import HOSTS

OWN = Path(__file__).parent
FOLDER = Path(os.environ.get("LBNODE_REFERENCE") or OWN)
CASES = (FOLDER / "ipvsadm" / "cases.json", FOLDER / "ipvsadm" / "more.json")  # more: what generated commands found

NEEDS_SHELL = re.compile(r"[|;&<>$`(]")  # all other commands are run without one, which takes less time

# Why a step may differ from ipvsadm on purpose. The README has the table for people.
TRANSACTION = "restore is one transaction: a mistake changes nothing and names the line"
# What only IPVS takes: on XDP the answer is exit status 255 and one of these.
NOT_ON_XDP = re.compile("the XDP/tcx data plane (balances unicast addresses|has no persistence engine)")

HELP = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\nUsage:"  # lbadm has help of its own


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
Step = Mapping[str, Any]  # cmd, stdin, rc, stdout, stderr
Run = Callable[[Step], Answer]


def load(*paths: Path) -> Cases:
    """Of the files that are there; the caller says which are not."""
    return {name: case for path in paths if path.exists() for name, case in json.loads(path.read_text()).items()}


def run_case(name: str, case: Mapping[str, Any], run: Run, *, transactions: bool) -> Outcome:
    """`transactions`: whether `run` takes -R as one, as lbadm does unless it is --direct."""
    for number, step in enumerate(case["steps"], 1):
        expected = Answer(step["rc"], step["stdout"], step["stderr"])
        actual = run(step)
        if transactions and (reason := on_purpose(step)):
            # What follows shows another table than here; that a mistake is refused and named is tested here.
            fine = actual.rc != 0 and re.match(r"line \d+: ", actual.stderr) and actual.stdout == ""
            return Outcome(name, () if fine else (f"{number}: {step['cmd']}: {actual}",), reason)
        if transactions and actual.rc == 255 and (limit := NOT_ON_XDP.search(actual.stderr)):
            return Outcome(name, (), limit[0])
        if found := list(differences(step["cmd"], expected, actual)):
            return Outcome(name, [f"step {number}: {step['cmd']}", *found])
    return Outcome(name, ())


def check(outcomes: Sequence[Outcome], found: Cases) -> None:
    """For tests: each of `found` was run, and none differs."""
    assert [outcome.name for outcome in outcomes] == list(found)
    wrong = [outcome for outcome in outcomes if outcome.differences]
    assert not wrong, "\n".join("\n  ".join([outcome.name, *outcome.differences]) for outcome in wrong)


def on_purpose(step: Step) -> str:
    words = shlex.split(step["cmd"])
    restores = words[0] == "ipvsadm-restore" or any(word in ("-R", "--restore") for word in words[1:2])
    return TRANSACTION if restores and step["stderr"] and step["stdin"] else ""


def differences(command: str, expected: Answer, actual: Answer) -> Iterator[str]:
    if expected.rc != actual.rc:
        yield f"exit status {actual.rc}, ipvsadm's is {expected.rc}"
    for stream in ("stdout", "stderr"):
        want, have = getattr(expected, stream), getattr(actual, stream)
        if want.startswith(HELP):
            continue
        if want != have and not (order_is_free(command, want) and blocks(want) == blocks(have)):
            lines = difflib.unified_diff(want.splitlines(), have.splitlines(), "ipvsadm", "lbadm", lineterm="", n=0)
            yield from (f"{stream} {line!r}" for line in lines)


def order_is_free(command: str, listing: str) -> bool:
    """--nosort shows the kernel's hash tables; ipvsadm's comparison overflows for addresses 2^31 apart."""
    if "--nosort" in command:
        return True
    for name, address in HOSTS.items():
        listing = listing.replace(name[:20], address)  # listings cut long names
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
