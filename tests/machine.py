"""The network of the machine that runs the tests: none of them may change it. Their own are namespaces.

tests/conftest.py compares it before and after a run, and fails the run by naming what changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LISTINGS = (
    "ip -o link",
    "ip -o address",
    "ip -4 -o route show table all",
    "ip -6 -o route show table all",
    "ip -4 -o rule",
    "ip -6 -o rule",
    "tc qdisc show",
)
SYSCTLS = Path("/proc/sys/net")

# What changes by itself: life times, carrier, the privacy addresses of RFC 8981.
_BY_ITSELF = re.compile(r"(valid_lft|preferred_lft|expires) \S+|\b(state \w+|mode \w+)|,?(NO-CARRIER|LOWER_UP)\b")
_TEMPORARY = " temporary "
# Links that a module of the kernel makes in this namespace when it is loaded for another one.
_FALLBACK = re.compile(r"\b(tunl0|gre0|gretap0|erspan0|ip_vti0|sit0|ip6tnl0|ip6gre0|ip6_vti0|dummy0|bond0|ifb[01])\b")


@dataclass(frozen=True)
class Machine:
    """listed: by command, the lines it prints. sysctls: by their path below /proc/sys/net."""

    listed: Mapping[str, frozenset[str]]
    sysctls: Mapping[str, str]


def machine() -> Machine:
    """The network namespace of the caller. Without iproute2 and /proc, nothing."""
    return Machine({command: frozenset(_lines(command)) for command in LISTINGS}, dict(_sysctls()))


def changes(before: Machine, after: Machine) -> Iterator[str]:
    """One line each: the command and what it does not print any more (-) or prints now (+); sysctls old -> new.

    Sysctls that came or went say nothing: those of a link are told by the link, others are of a module.
    """
    for command, was in before.listed.items():
        now = after.listed[command]
        yield from (f"{command}: - {line}" for line in sorted(was - now))
        yield from (f"{command}: + {line}" for line in sorted(now - was))
    for name in sorted(before.sysctls.keys() & after.sysctls.keys()):
        if before.sysctls[name] != after.sysctls[name]:
            yield f"sysctl net/{name}: {before.sysctls[name]} -> {after.sysctls[name]}"


def _lines(command: str) -> Iterator[str]:
    if shutil.which(command.split()[0]) is None:
        return
    text = subprocess.run(command.split(), capture_output=True, text=True, check=False).stdout
    for line in text.splitlines():
        if _TEMPORARY not in line and not _FALLBACK.search(line):
            yield " ".join(_BY_ITSELF.sub("", line).split())


def _sysctls() -> Iterator[tuple[str, str]]:
    for path in SYSCTLS.rglob("*"):
        try:
            yield str(path.relative_to(SYSCTLS)), path.read_text().strip()
        except OSError:  # a folder, write-only, or not for this user
            continue
