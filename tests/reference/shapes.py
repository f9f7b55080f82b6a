"""Listings under live traffic: their shapes. Pure.

Numbers, client ports and times are those of the moment. So the same lines are wanted, with the same columns, and of
connections the same kinds in the same states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.reference.cases import Answer, Outcome, Step

# States that pass within seconds: there or not, they say nothing.
FLEETING = ("CLOSE", "CLOSED", "SYN_RECV", "LAST_ACK", "CLOSE_WAIT")
# Lines about what traffic.NOT_ON_XDP leaves out.
_LEFT_OUT = re.compile(r"FWM |IP  |UDP .*(vip\.example:sip|172\.16\.0\.50:5060)|TCP .* 10\.99\.|TCP \d\d:.*:83 ")


def compare(name: str, case: Mapping[str, Any], run: Callable[[Step], Answer], *, complete: bool) -> Outcome:
    """`complete`: False: without what only IPVS balances."""
    found = []
    for number, step in enumerate(case["steps"], 1):
        command = re.sub(r"^sleep [0-9.]+; ", "", step["cmd"])  # for counters, which are not compared
        if not command.startswith("ipvsadm"):
            continue  # the kernel's own files
        actual = run({**step, "cmd": command})
        want = step["stdout"].splitlines()
        differ = list(differences(actual.stdout.splitlines(), want if complete else _without(want)))
        if (actual.rc, actual.stderr) != (step["rc"], step["stderr"]):
            differ.append(f"exit status {actual.rc}, ipvsadm's is {step['rc']}: {actual.stderr!r}")
        if differ:
            found += [f"step {number}: {command}", *differ]
    return Outcome(name, found)


def _without(lines: Sequence[str]) -> list[str]:
    """A service's lines of servers go with it."""
    left, skipping = [], False
    for line in lines:
        if not line.startswith("  -> ") or line.startswith("  -> RemoteAddress"):
            skipping = _LEFT_OUT.match(line) is not None
        if not skipping:
            left.append(line)
    return left


def differences(have: Sequence[str], want: Sequence[str]) -> Iterator[str]:
    if want[:1] == ["IPVS connection entries"]:
        if have[:2] != want[:2]:
            yield f"title: {have[:2]}"
        yield from (f"not in columns: {line!r}" for line in have[2:] if in_columns(line) != line)
        ours, theirs = kinds(have[2:]), kinds(want[2:])
        yield from (f"missing: {' '.join(kind)}" for kind in sorted(theirs - ours))
        yield from (f"ipvsadm has no such connection: {' '.join(kind)}" for kind in sorted(ours - theirs))
    elif (ours := [shape(line) for line in have]) != (theirs := [shape(line) for line in want]):
        yield from (f"-{line!r}" for line in theirs if line not in ours)
        yield from (f"+{line!r}" for line in ours if line not in theirs)
        yield "the lines or their order differ"


def shape(line: str) -> str:
    """Every number of a table's columns, with its blanks, as so many `#`.

    Counters and rates, five to a line, stand to the right; with --exact a column grows with its number.
    """
    name, columns = line[:33], line[33:]
    if re.fullmatch(r"( +\d+[KMGT]?){5}", columns):
        return name + re.sub(r" +\d+[KMGT]?", lambda match: "#" * min(len(match[0]), 9), columns)
    if re.fullmatch(r" (Masq|Route|Tunnel)?( *\d+)+ *", columns):
        return name + re.sub(r"\d+ *", lambda match: "#" * len(match[0]), columns)
    return line


def kinds(lines: Sequence[str]) -> set[tuple[str, str, str]]:
    """(protocol, state, virtual address) of each connection that stays for a while."""
    fields = (line.split() for line in lines)
    return {(words[0], words[2], words[4]) for words in fields if words[2] not in FLEETING}


def in_columns(line: str) -> str:
    """A connection's words as ipvsadm prints them."""
    protocol, expires, state, client, virtual, server, *engine = line.split()
    text = f"{protocol:<3} {expires:<6} {state:<11} {client:<18} {virtual:<18} "
    return text + (f"{server:<16} {engine[0]:<18} {engine[1]}" if engine else server)
