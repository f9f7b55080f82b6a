"""lbnoded as a process on this machine, by default with its data plane in memory: no root, no network but loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lbnode.cli.client import ApiError, Client

DEADLINE_S = 20.0
_INTERFACES = (
    "ip link set lo up; for i in 0 1 2; do ip link add eth$i type veth peer name peer$i; ip link set peer$i up; "
    'ip address add 192.0.2.2$i/24 dev eth$i; ip link set eth$i up; done; exec "$@"'
)
# Before the command of a daemon that takes part in elections: as root it would give this machine's interfaces the VIPs
# (they may be in 192.0.2.0/24, too). In this network it finds interfaces of the usual names, which lead nowhere.
OWN_NETWORK = ("unshare", "--net", "sh", "-ec", _INTERFACES, "sh") if os.geteuid() == 0 else ()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Poll until `condition` gives something true, and return it; ApiErrors count as not yet."""
    end = time.monotonic() + deadline_s
    last: object = None
    while time.monotonic() < end:
        try:
            if last := condition():
                return last
        except ApiError as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_s:g} s: {what}; last seen: {last!r}")


class Daemon:
    """One lbnoded with its own directories below `root`. `toml` is added to its node.toml.

    prefix: of its command line: `ip netns exec ...`.
    """

    def __init__(
        self, root: Path, node: str = "gw1", toml: str = "", plane: str = "fake", prefix: Sequence[str] = ()
    ) -> None:
        self.prefix = prefix
        self.root = root
        self.log = root / "log"
        self.port = free_port()
        self.config = root / "node.toml"
        root.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f'node = "{node}"\ncluster = "test"\nstate_dir = "{root}/state"\nrun_dir = "{root}/run"\n'
            f'[web]\nlisten = "127.0.0.1:{self.port}"\ntoken = "secret"\n[dataplane]\nkind = "{plane}"\n{toml}'
        )
        self.client = Client(str(root / "run" / "api.sock"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "lbnode", "--config", str(self.config)], stdout=log, stderr=log
            )
        until(lambda: self.running() and self.status(), f"lbnoded answers; its log: {self.text()}")

    def running(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"lbnoded ended: {self.text()}"
        return True

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def close(self, *, unload: bool = False) -> None:
        """unload: take what it left in the kernel out of it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if unload:
            command = [sys.executable, "-m", "lbnode", "--config", str(self.config), "--unload"]
            subprocess.run(command, capture_output=True, check=True)

    # --- what it says -----------------------------------------------------------------------------------------

    def status(self) -> Any:
        return self.client.get("/api/v1/status")

    def service(self, name: str) -> Any:
        services = self.client.get("/api/v1/services")["services"]
        return next((service for service in services if service["id"] == name), None)

    def metrics(self) -> Iterator[Sample]:
        command = ["curl", "-sf", "--unix-socket", self.client.socket_path, "http://node/metrics"]
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        for family in text_string_to_metric_families(text):
            yield from family.samples

    def events(self) -> list[Any]:
        return list(self.client.get("/api/v1/events?since=0&limit=1000")["events"])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """lbctl or lbadm as a user runs them."""
        program, *arguments = command
        module = {"lbctl": "lbnode.cli.lbctl", "lbadm": "lbnode.cli.ipvsadm"}[program]
        environment = {**os.environ, "LBNODE_SOCKET": self.client.socket_path}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
        )
