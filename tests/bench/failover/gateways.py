"""One gateway of the bench: lbnoded or keepalived, with real processes, as it is installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lbnode.cli.client import ApiError, Client
from tests.netns.election_lab import ROOT, VIP, Keepalived, Lab, until

PRIORITIES = {"a": 250, "b": 200}
ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2"}
SYNC = {"a": "198.51.100.1", "b": "198.51.100.2"}
CLIENT = "192.0.2.100"  # also the gateway that lbnode asks
SYNC_TOML = '[sync]\nlisten = "{own}:8848"\nkey = "bench"\n[sync.peers]\n{peer} = "{address}:8848"\n'


class Lbnoded:
    """lbnoded with its XDP data plane; beside another one also with the second path, authentication and a gateway.

    Its programs are pinned in a mount namespace that a keeper holds, as they are in the machine's own when it is a
    service: they outlive every process of the daemon.
    """

    preempts = False

    def __init__(self, lab: Lab, name: str, directory: Path, interval_s: float, *, peer: bool) -> None:
        """`peer`: the other gateway is lbnode, too."""
        hold = ("unshare", "--mount", "--propagation", "private", "sleep", "infinity")
        keeper = lab.net.popen(name, *hold)
        until(lambda: _mounts(keeper.pid) != _mounts(os.getpid()), "the keeper has its mount namespace")
        config = directory / "node.toml"
        config.write_text(
            f'node = "{name}"\ncluster = "bench"\nstate_dir = "{directory}/state"\nrun_dir = "{directory}/run"\n'
            '[web]\nlisten = ""\n[dataplane]\nkind = "xdp"\ninterfaces = ["front"]\n'
            + (self._sync(name) if peer else "")
        )
        lbnoded = (sys.executable, "-m", "lbnode", "--config", str(config))
        self._command = ("nsenter", "-t", str(keeper.pid), "--mount", *lbnoded)
        self._lab, self._name, self._log = lab, name, directory / "log"
        self._client = Client(str(directory / "run" / "api.sock"))
        self.process = self._run()
        group: dict[str, Any] = {"vrid": 51, "addresses": [f"{VIP}/24"], "priorities": PRIORITIES}
        group |= {"advert_interval": interval_s, "track": [{"gateway": CLIENT}] if peer else []}
        self._apply({"vip-groups": {"front": group}})

    def start(self) -> None:
        """Again, if it has ended."""
        if self.process.poll() is not None:
            self.process = self._run()

    def _run(self) -> subprocess.Popen[Any]:
        with self._log.open("ab") as log:
            process = self._lab.net.popen(self._name, *self._command, cwd=ROOT, stdout=log, stderr=log)
        until(lambda: self._status() is not None, f"lbnoded of {self._name} answers")
        return process

    def give_back(self) -> None:
        """Let the other gateway be Active."""
        self._apply({"settings": {"maintenance": [self._name]}})
        until(lambda: not self._lab.holds(self._name), f"{self._name} gives up what it holds")
        self._apply({"settings": {"maintenance": []}})

    def _apply(self, document: Mapping[str, Any]) -> None:
        self._client.call("POST", "/api/v1/apply", {"document": document, "dry_run": False})

    @staticmethod
    def _sync(name: str) -> str:
        (peer,) = SYNC.keys() - {name}
        return SYNC_TOML.format(own=SYNC[name], peer=peer, address=SYNC[peer])

    def _status(self) -> Any:
        try:
            return self._client.get("/api/v1/status")
        except ApiError:
            return None

    def follows(self, address: str) -> bool:
        """It is Backup and knows whom it follows."""
        status = self._status()
        return bool(status) and any(role["active_address"] == address for role in status["roles"])


class KeepalivedGateway(Keepalived):
    preempts = True

    def __init__(self, lab: Lab, name: str, directory: Path, interval_s: float, *, peer: bool) -> None:
        super().__init__(lab, name, directory, PRIORITIES[name], interval_s)

    def give_back(self) -> None:
        self.stop()
        self.start()

    def follows(self, _: str) -> bool:
        return re.findall(r"Entering (\w+) STATE", self.log.read_text())[-1:] == ["BACKUP"]


KINDS = {"lbnode": Lbnoded, "keepalived": KeepalivedGateway}
Gateway = Lbnoded | KeepalivedGateway


def signal_all(gateway: Gateway, number: int) -> None:
    """To the daemon and everything it started. Stopped first, so that no one lives to see another die."""
    family = _descendants(gateway.process.pid)
    for each in (signal.SIGSTOP, number):
        for pid in family:
            os.kill(pid, each)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in _descendants(int(child)))]


def _mounts(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")
