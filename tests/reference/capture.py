"""ipvsadm itself on this kernel's ip_vs, for capturing cases and for comparing with lbadm --direct.

    python -m tests.reference.capture [--seed N] [--cases N] [--steps N]    print cases.json of generated commands
    python -m tests.reference.capture FILE                                  print FILE's cases with fresh answers

Each case runs in a network namespace of its own, with the names of the reference's machine in /etc/hosts. Needs root
and a kernel with ip_vs (python -m tests.uml.run ...).
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.reference import generate
from tests.reference.cases import NEEDS_SHELL, Answer, Step
from tests.reference.host import HOSTS, reference_netns
from tests.uml.own_netns import enter_mount_namespace

PATIENCE_S = 20


def prepare() -> None:
    """Only the reference's names, and no look-ups elsewhere, for this process and those it starts."""
    enter_mount_namespace()  # this machine's files stay as they are
    hosts = "".join(f"{address} {name}\n" for name, address in HOSTS.items())
    for path, text in (("/etc/hosts", hosts), ("/etc/nsswitch.conf", "hosts: files\nservices: files\n")):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            subprocess.run(["mount", "--bind", file.name, path], check=True)


def run_step(step: Step) -> Answer:
    done = subprocess.run(
        ["sh", "-c", step["cmd"]] if NEEDS_SHELL.search(step["cmd"]) else shlex.split(step["cmd"]),
        input=(step["stdin"] or "").encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def capture(case: Mapping[str, Any]) -> dict[str, Any]:
    steps = []
    with reference_netns():
        for step in case["steps"]:
            answer = run_step(step)
            steps.append({**step, "rc": answer.rc, "stdout": answer.stdout, "stderr": answer.stderr})
    return {**case, "steps": steps}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reference.capture", description=__doc__.partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.file:
        found = json.loads(arguments.file.read_text())
    else:
        found = generate.cases(arguments.seed, arguments.cases, arguments.steps)
    prepare()
    json.dump({name: capture(case) for name, case in found.items()}, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
