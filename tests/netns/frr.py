"""FRR's vrrpd as a live peer: zebra and vrrpd of Debian's package, with every file in a directory of the test's own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.netns.election_lab import VIP, Lab, until

DAEMONS = Path("/usr/lib/frr")
MAC_V4, MAC_V6 = "00:00:5e:00:01:33", "00:00:5e:00:02:33"  # of VRID 51
CONFIG = """\
log stdout
interface front
 vrrp 51 version 3
 vrrp 51 priority {priority}
 vrrp 51 advertisement-interval {interval_ms}
"""


class Frr:
    """A running vrrpd (VRRPv3, preempting) with VRID 51. The addresses are on macvlans, which are down while Backup."""

    def __init__(
        self, lab: Lab, name: str, path: Path, priority: int, interval_ms: int = 100, *, vips6: tuple[str, ...] = ()
    ) -> None:
        self._lab, self._name, self.path = lab, name, path
        shutil.chown(path, "frr", "frr")  # the daemons give up root
        config = CONFIG.format(priority=priority, interval_ms=interval_ms) + f" vrrp 51 ip {VIP}\n"
        self._macvlan("vrrp4", MAC_V4, f"{VIP}/24")
        if vips6:
            config += "".join(f" vrrp 51 ipv6 {vip}\n" for vip in vips6)
            self._macvlan("vrrp6", MAC_V6, *(f"{vip}/64" for vip in vips6))
        (path / "vrrpd.conf").write_text(config)
        (path / "zebra.conf").write_text("log stdout\n")
        self._start("zebra")
        until(lambda: (path / "zserv").exists(), "zebra answers")
        self.process = self._start("vrrpd")
        until(lambda: self.status() is not None, "vrrpd answers")

    def _macvlan(self, interface: str, mac: str, *addresses: str) -> None:
        run = self._lab.net.run
        run(self._name, "ip", "link", "add", interface, "link", "front", "type", "macvlan", "mode", "bridge")
        run(self._name, "ip", "link", "set", interface, "address", mac)
        for address in addresses:
            run(self._name, "ip", "addr", "add", address, "dev", interface)
        run(self._name, "ip", "link", "set", interface, "up")

    def _start(self, daemon: str) -> subprocess.Popen[bytes]:
        files = ("-f", f"{daemon}.conf", "-i", f"{daemon}.pid", "-z", "zserv", "--vty_socket", ".")
        command = [str(DAEMONS / daemon), "-P", "0", "--log", "stdout"]
        for option, value in zip(files[::2], files[1::2], strict=True):
            command += [option, str(self.path / value)]
        with (self.path / f"{daemon}.log").open("wb") as log:
            return self._lab.net.popen(self._name, *command, stdout=log, stderr=subprocess.STDOUT)

    def status(self, family: str = "v4") -> str | None:
        """Master or Backup; None: vrrpd does not say."""
        command = ["vtysh", "--vty_socket", str(self.path), "-c", "show vrrp json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            routers: list[dict[str, Any]] = json.loads(done.stdout)
        except json.JSONDecodeError:
            return None
        return str(routers[0][family]["status"]) if routers else None

    @property
    def log(self) -> str:
        return (self.path / "vrrpd.log").read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
