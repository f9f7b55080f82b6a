"""From another program's configuration to a running node: lbctl import, lbctl apply, and what lbadm says then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_import import SAVED
from tests.node.daemon import OWN_NETWORK, Daemon
from tests.unit.keepalived_conf import GATEWAY


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, prefix=OWN_NETWORK)
    daemon.start()
    yield daemon
    daemon.close()


def command(daemon: Daemon, module: str, *arguments: str, text: str = "") -> str:
    environment = {**os.environ, "LBNODE_SOCKET": str(daemon.root / "run" / "api.sock")}
    answer = subprocess.run(
        [sys.executable, "-m", f"lbnode.cli.{module}", *arguments],
        input=text, capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_a_saved_table_is_saved_again_as_it_was(daemon: Daemon) -> None:
    document = command(daemon, "lbctl", "import", "ipvsadm", text=SAVED)
    command(daemon, "lbctl", "apply", "--wait", "-f", "-", text=document)
    assert sorted(command(daemon, "ipvsadm", "-S", "-n").splitlines()) == sorted(SAVED.splitlines())


def test_a_keepalived_gateway_runs(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "keepalived.conf"
    file.write_text(GATEWAY)
    document = command(daemon, "lbctl", "import", f"gw1={file}")
    command(daemon, "lbctl", "apply", "--wait", "-f", "-", text=document)
    services = daemon.client.get("/api/v1/services")["services"]
    assert {service["id"]: service["check"].split()[0] for service in services} == {
        "tcp:192.0.2.10:80": "http", "udp:192.0.2.20:53": "tcp", "udp:192.0.2.21:53": "tcp", "fwmark:7": "tcp",
    }  # fmt: skip
    problems = daemon.client.get("/api/v1/status")["problems"]
    assert [problem for problem in problems if problem["severity"] == "error"] == []
