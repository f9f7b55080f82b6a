"""One gateway of the bench: lbnoded or keepalived, with real processes, as it is installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lbnode.cli.client import ApiError, Client
from tests.netns.election_lab import ROOT, VIP, Keepalived, Lab, until

PRIORITIES = {"a": 250, "b": 200}
SYNC = {"a": "198.51.100.1", "b": "198.51.100.2"}
CLIENT = "192.0.2.100"  # also the gateway that lbnode asks
SYNC_TOML = '[sync]\nlisten = "{own}:8848"\nkey = "bench"\n[sync.peers]\n{peer} = "{address}:8848"\n'


class Lbnoded:
    """lbnoded with its XDP data plane; beside another one also with the second path, authentication and a gateway.

    Its programs are pinned in a mount namespace that a keeper holds, as they are in the machine's own when it is a
    service: they outlive every process of the daemon.
    """

    def __init__(self, lab: Lab, name: str, directory: Path, interval_s: float, *, peer: bool) -> None:
        """`peer`: the other gateway is lbnode, too."""
        hold = ("unshare", "--mount", "--propagation", "private", "sleep", "infinity")
        self._keeper = lab.net.popen(name, *hold)
        until(lambda: _mounts(self._keeper.pid) != _mounts(os.getpid()), "the keeper has its mount namespace")
        config = directory / "node.toml"
        config.write_text(
            f'node = "{name}"\ncluster = "bench"\nstate_dir = "{directory}/state"\nrun_dir = "{directory}/run"\n'
            '[web]\nlisten = ""\n[dataplane]\nkind = "xdp"\ninterfaces = ["front"]\n'
            + (self._sync(name) if peer else "")
        )
        command = ("nsenter", "-t", str(self._keeper.pid), "--mount", sys.executable, "-m", "lbnode")
        with (directory / "log").open("wb") as log:
            self.process = lab.net.popen(name, *command, "--config", str(config), cwd=ROOT, stdout=log, stderr=log)
        self._client = Client(str(directory / "run" / "api.sock"))
        until(self._answers, f"lbnoded of {name} answers")
        group: dict[str, Any] = {"vrid": 51, "addresses": [f"{VIP}/24"], "priorities": PRIORITIES}
        group |= {"advert_interval": interval_s, "track": [{"gateway": CLIENT}] if peer else []}
        document = json.dumps({"vip-groups": {"front": group}})
        lbctl = (sys.executable, "-m", "lbnode.cli.lbctl", "--socket", self._client.socket_path)
        subprocess.run(
            [*lbctl, "apply", "-f", "-"], input=document, cwd=ROOT, text=True, check=True, capture_output=True
        )

    @staticmethod
    def _sync(name: str) -> str:
        (peer,) = SYNC.keys() - {name}
        return SYNC_TOML.format(own=SYNC[name], peer=peer, address=SYNC[peer])

    def _answers(self) -> bool:
        return self._status() is not None

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
    def __init__(self, lab: Lab, name: str, directory: Path, interval_s: float, *, peer: bool) -> None:
        super().__init__(lab, name, directory, PRIORITIES[name], interval_s)

    def follows(self, _: str) -> bool:
        return self.says("Entering BACKUP STATE")


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
