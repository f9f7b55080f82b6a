"""`lbctl capture` on a gateway that carries traffic, read by tcpdump: what is in it, and that it costs no packet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader

from tests.netns.traffic import Traffic
from tests.netns.xdp_lab import PORT, VIP, Lab, server_address
from tests.node.daemon import Daemon, until

pytestmark = pytest.mark.root
ECHO = f"udp:{VIP}:{PORT}"


def journal(daemon: Daemon) -> list[str]:
    return [event["message"] for event in daemon.events() if event["what"] == "capture"]


def start(daemon: Daemon, path: Path) -> subprocess.Popen[Any]:
    """A capture that goes on, of packets that do not come."""
    environment = {**os.environ, "LBNODE_SOCKET": daemon.client.socket_path}
    command = [sys.executable, "-m", "lbnode.cli.lbctl", "capture", "-w", str(path), "--port", "1"]
    return subprocess.Popen(command, env=environment)


def test_packets_are_written_while_no_one_is_lost(tmp_path: Path) -> None:
    with Lab(servers=1) as lab:
        prefix = ("nsenter", f"--net=/run/netns/{lab.net.ns('gw')}")
        daemon = Daemon(tmp_path / "gw", plane="xdp", prefix=prefix)
        lab.uses(tmp_path / "gw" / "run")
        server = f"{server_address(1)}:{PORT}"
        document = tmp_path / "lb.yaml"
        document.write_text(
            "services:\n" + "".join(f"  {p}:{VIP}:{PORT}:\n    servers: {{{server!r}: {{}}}}\n" for p in ("tcp", "udp"))
        )
        path = tmp_path / "taken"

        def capture(*words: str) -> subprocess.CompletedProcess[str]:
            return daemon.run("lbctl", "capture", "-w", str(path), *words)

        try:
            daemon.start()
            assert daemon.run("lbctl", "apply", "-f", str(document), "--wait").returncode == 0
            with Traffic(lab) as traffic:
                until(lambda: traffic.answered > 50 and traffic.lines > 5, "traffic flows")
                done = capture("--service", ECHO, "-c", "40")
                assert (done.returncode, done.stderr) == (0, "lbctl: 40 packets\n")
                assert journal(daemon) == ["began", "ended"]

                other = start(daemon, tmp_path / "second")
                try:
                    until(lambda: len(journal(daemon)) == 3, "another capture runs")
                    refused = capture("-c", "1")
                    assert refused.returncode == 1 and "another capture is running" in refused.stderr
                    other.terminate()
                    until(lambda: len(journal(daemon)) == 4, "its end is noticed")
                finally:
                    other.kill()
                    other.wait()
                unknown = capture("--service", f"tcp:{VIP}:1")
                assert unknown.returncode == 3 and "there is no service" in unknown.stderr
                traffic.stop()
                assert (traffic.lost, traffic.broken) == ([], None)
        finally:
            daemon.close()

        with path.open("rb") as file:
            found = list(RawPcapNgReader(file))
        assert {(one.ifname, one.direction, one.comments[0]) for _, one in found} == {
            (b"front", 1, f"to-server {server}".encode()),
            (b"back", 2, f"to-server {server}".encode()),
            (b"back", 1, f"to-client {server}".encode()),
            (b"front", 2, f"to-client {server}".encode()),
        }
        shown = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, check=True).stdout.splitlines()
        assert len(shown) == len(found) == 80
        assert any(f"> {VIP}.{PORT}: UDP" in line for line in shown)
        assert any(f"> {server_address(1)}.{PORT}: UDP" in line for line in shown)
