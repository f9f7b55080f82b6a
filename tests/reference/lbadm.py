"""lbadm under ipvsadm's names, answering the steps of a case on one of the data planes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from lbnode.cli.client import Client
from lbnode.cli.ipvsadm import main as lbadm
from tests.node.daemon import Daemon, until
from tests.reference.cases import NEEDS_SHELL, Answer, Step
from tests.reference.host import ReferenceHost, reference_netns

PROGRAMS = {"ipvsadm": lbadm.main, "ipvsadm-save": lbadm.save, "ipvsadm-restore": lbadm.restore}

# A command of a user without rights.
SOMEBODY_ELSE = re.compile(r"(setpriv .*--reuid|su|runuser)\b.*?\b(?P<command>ipvsadm[^'\"]*)")
NOBODY = 65534


def answer(step: Step, environment: dict[str, str], host: type[ReferenceHost]) -> Answer:
    """In this process: 480 starts of Python would take minutes. What needs a shell gets one, and processes."""
    if somebody_else := SOMEBODY_ELSE.match(step["cmd"]):
        with _without_rights():
            return answer({**step, "cmd": somebody_else["command"]}, environment, host)
    program, *arguments = shlex.split(step["cmd"])
    if program not in PROGRAMS or NEEDS_SHELL.search(step["cmd"]):
        return _in_shell(step, environment)
    stdout, stderr = io.StringIO(), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO((step["stdin"] or "").encode()))
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "stdin", stdin),
        mock.patch.object(sys, "argv", [program, *arguments]),
        mock.patch.object(lbadm, "SystemHost", host),
        mock.patch.dict(os.environ, environment),
    ):
        rc = PROGRAMS[program]()
    return Answer(rc, stdout.getvalue(), stderr.getvalue())


def needs_root(case: Mapping[str, Any]) -> bool:
    return any(SOMEBODY_ELSE.match(step["cmd"]) for step in case["steps"])


@contextlib.contextmanager
def _without_rights() -> Iterator[None]:
    """This process as nobody: another one could not read this Python everywhere."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _in_shell(step: Step, environment: dict[str, str]) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        for program in PROGRAMS:
            script = Path(folder, program)
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.reference.program {program} "$@"\n')
            script.chmod(0o755)
        path = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            ["sh", "-c", step["cmd"]],
            input=step["stdin"] or "",
            capture_output=True,
            text=True,
            env={**os.environ, **environment, **path},
            check=False,
        )
    return Answer(done.returncode, done.stdout, done.stderr)


class OnNode:
    """lbadm of a real lbnoded."""

    transactions = True

    def __init__(self, client: Client, host: type[ReferenceHost]) -> None:
        self._client = client
        self._host = host

    @contextlib.contextmanager
    def case(self) -> Iterator[None]:
        """Begins with an empty table."""
        answer = self._client.get("/api/v1/document")
        document = answer["document"]
        keys = [f"services/{service}" for service in document.get("services") or {}]
        keys += ["settings"] if document.get("settings") else []
        if keys:
            body = {"put": {}, "delete": keys, "expect_revision": answer["revision"], "dry_run": False}
            revision = self._client.call("POST", "/api/v1/changes", body)["revision"]
            until(lambda: self._client.get("/api/v1/status")["settled_revision"] >= revision, "the table is empty")
        yield

    def run(self, step: Step) -> Answer:
        return answer(step, {"LBNODE_SOCKET": self._client.socket_path}, self._host)


class OnKernel:
    """lbadm --direct, in the namespace of the calling thread."""

    transactions = False

    def __init__(self, host: type[ReferenceHost] = ReferenceHost) -> None:
        self._host = host

    @contextlib.contextmanager
    def case(self) -> Iterator[None]:
        """Begins with an empty table."""
        for command in ("-C", "--set 900 120 300", "--stop-daemon master", "--stop-daemon backup"):
            self.run({"cmd": f"ipvsadm {command}", "stdin": None})
        yield

    def run(self, step: Step) -> Answer:
        return answer(step, {"LBADM_DIRECT": "1"}, self._host)


@contextlib.contextmanager
def target(
    plane: str, host: type[ReferenceHost] = ReferenceHost, *, own_netns: bool = True
) -> Iterator[OnNode | OnKernel]:
    """plane: of an lbnoded ("fake", "xdp", "ipvs"), or "direct". own_netns: not in the caller's namespace."""
    with tempfile.TemporaryDirectory(prefix="lbnode-reference-") as folder, contextlib.ExitStack() as stack:
        if plane != "fake" and own_netns:
            stack.enter_context(reference_netns())
        if plane == "direct":
            yield OnKernel(host)
            return
        node = Daemon(Path(folder), plane=plane)
        try:
            node.start()
            yield OnNode(node.client, host)
        finally:
            node.close(unload=plane != "fake")
