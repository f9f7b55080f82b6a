"""lbnoded with IPVS: what it programs, what it takes for its own, what it leaves to others."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Command, DaemonState, Flags, Service
from lbnode.dataplane.ipvs.netlink import GenericNetlink
from lbnode.model import ServiceId
from lbnode.store.embedded import EmbeddedStore
from tests.node.daemon import Daemon, until
from tests.uml.own_netns import own_netns

pytestmark = [pytest.mark.root, pytest.mark.ipvs]

WEB, DNS = ServiceId.of("tcp", "192.0.2.10", 80), ServiceId.of("udp", "192.0.2.10", 53)


class Kernel:
    """ip_vs of this thread's network namespace, and somebody else who programs it."""

    def __init__(self, sock: GenericNetlink) -> None:
        self._socket = sock

    def add(self, service_id: ServiceId) -> None:
        self._socket.do(Command.NEW_SERVICE, codec.encode_service(Service(service_id, "rr", Flags(0), 0, 0xFFFFFFFF)))

    def services(self) -> dict[ServiceId, str]:
        found = map(codec.decode_service, self._dump(Command.GET_SERVICE))
        return {service.id: service.scheduler for service in found}

    def weights(self, service_id: ServiceId) -> list[int]:
        bodies = self._dump(Command.GET_DEST, codec.encode_key(service_id))
        return [codec.decode_destination(body, 4).weight for body in bodies]

    def daemons(self) -> dict[DaemonState, int]:
        """State -> id."""
        found = map(codec.decode_daemon, self._dump(Command.GET_DAEMON))
        return {daemon.state: daemon.sync_id for daemon in found}

    def _dump(self, command: Command, body: bytes = b"") -> list[bytes]:
        return [found for bodies in self._socket.dump(command, body) for found in bodies]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with own_netns(), contextlib.closing(GenericNetlink()) as sock:
        sock.connect()
        yield Kernel(sock)


@pytest.fixture
def daemon(kernel: Kernel, tmp_path: Path) -> Iterator[Daemon]:
    """Its node.toml leaves the choice of the data plane open."""
    daemon = Daemon(tmp_path, plane="auto")
    yield daemon
    daemon.close()


def change(daemon: Daemon, **documents: object) -> None:
    daemon.client.call("POST", "/api/v1/changes", {"put": documents})


def change_while_down(daemon: Daemon, *deletes: str) -> None:
    async def change() -> None:
        store = EmbeddedStore(daemon.root / "state" / "config.sqlite")
        await store.txn({}, deletes)
        await store.close()

    asyncio.run(change())


def unload(daemon: Daemon) -> None:
    subprocess.run([sys.executable, "-m", "lbnode", "--config", str(daemon.config), "--unload"], check=True)


def test_it_drives_ip_vs_and_leaves_others_alone(kernel: Kernel, daemon: Daemon) -> None:
    """A killed daemon's rules go on; a restart adopts; what was deleted meanwhile goes; somebody else's stays."""
    kernel.add(DNS)
    daemon.start()
    daemon.run("lbadm", "-A", "-t", "192.0.2.10:80", "-s", "wrr")
    daemon.run("lbadm", "-a", "-t", "192.0.2.10:80", "-r", "198.51.100.21:8080", "-m", "-w", "3")
    until(lambda: kernel.services() == {DNS: "rr", WEB: "wrr"}, "the service is in ip_vs")
    until(lambda: kernel.weights(WEB) == [3], "its server, too")
    until(lambda: daemon.status()["foreign"] == [str(DNS)], "it tells what is not ours")
    assert daemon.status()["dataplane"]["kind"] == "ipvs"
    assert daemon.service(str(DNS))["foreign"]
    events = [(event["what"], event["message"], event["why"]) for event in daemon.events()]
    assert ("ipvs", "chosen", "this kernel has ip_vs") in events
    daemon.stop(signal.SIGKILL)
    assert kernel.services() == {DNS: "rr", WEB: "wrr"}
    daemon.start()
    assert daemon.status()["dataplane"]["adopted"]
    daemon.run("lbadm", "-E", "-t", "192.0.2.10:80", "-s", "lc")
    until(lambda: kernel.services() == {DNS: "rr", WEB: "lc"}, "the scheduler has changed")
    daemon.stop()
    change_while_down(daemon, f"services/{WEB}", f"services/{WEB}/servers/198.51.100.21:8080")
    daemon.start()
    until(lambda: kernel.services() == {DNS: "rr"}, "the service is gone, the other is not")


def test_unloading_takes_out_what_is_ours(kernel: Kernel, daemon: Daemon) -> None:
    kernel.add(DNS)
    daemon.start()
    daemon.run("lbadm", "-A", "-t", "192.0.2.10:80", "-s", "wrr")
    daemon.run("lbadm", "--start-daemon", "master", "--mcast-interface", "lo", "--syncid", "7")
    until(lambda: kernel.services() == {DNS: "rr", WEB: "wrr"}, "the service is in ip_vs")
    until(lambda: kernel.daemons() == {DaemonState.MASTER: 7}, "the sync daemon runs")
    until(lambda: daemon.status()["dataplane"]["sync_daemons"]["master"]["syncid"] == 7, "and is told")
    told = daemon.run("lbctl", "status").stdout
    assert "data plane  ipvs: 0 connections, adopted at start\n" in told
    assert "  sync      master on lo, id 7, group 224.0.0.81 port 8848\n  foreign   udp:192.0.2.10:53\n" in told
    assert Path("/proc/sys/net/ipv4/vs/sync_threshold").read_text().split() == ["0", "0"]
    daemon.run("lbadm", "--stop-daemon", "master")
    until(lambda: kernel.daemons() == {}, "the sync daemon is stopped")
    daemon.run("lbadm", "--start-daemon", "backup", "--mcast-interface", "lo")
    until(lambda: kernel.daemons() == {DaemonState.BACKUP: 0}, "the other one runs")
    daemon.stop()
    unload(daemon)
    assert (kernel.services(), kernel.daemons()) == ({DNS: "rr"}, {})


def test_services_of_others_are_taken_over_or_removed_as_configured(kernel: Kernel, daemon: Daemon) -> None:
    kernel.add(DNS)
    kernel.add(WEB)
    daemon.start()
    daemon.run("lbadm", "-A", "-t", "192.0.2.10:80", "-s", "wrr")
    until(lambda: kernel.services() == {DNS: "rr", WEB: "wrr"}, "the configured one is ours now")
    assert [event["message"] for event in daemon.events() if event["what"] == str(WEB)][-1:] == ["taken over"]
    for command in ("-A -t 192.0.2.20:80", "-a -t 192.0.2.20:80 -r [2001:db8::5]:80 -i"):
        assert daemon.run("lbadm", "--direct", *command.split()).returncode == 0
    refused = daemon.run("lbadm", "--start-daemon", "master", "--mcast-interface", "lo")
    assert refused.returncode == 255 and "cannot run beside servers of another address family" in refused.stderr
    assert daemon.run("lbadm", "--set", "60", "30", "20").returncode == 0, "another setting"
    assert daemon.run("lbadm", "--direct", "-D", "-t", "192.0.2.20:80").returncode == 0
    change(daemon, settings={"foreign_services": "remove"})
    until(lambda: kernel.services() == {WEB: "wrr"}, "the other is removed, since the settings say so")


def test_the_data_plane_is_chosen_at_the_start(kernel: Kernel, daemon: Daemon) -> None:
    """By the settings, over them by node.toml. One that cannot run takes nothing away; one that runs takes over."""
    daemon.start()
    daemon.run("lbadm", "-A", "-t", "192.0.2.10:80", "-s", "wrr")
    until(lambda: kernel.services() == {WEB: "wrr"}, "the service is in ip_vs")
    change(daemon, settings={"dataplane": "xdp"})
    until(lambda: "restart lbnoded" in str(daemon.status()["problems"]), "that takes a restart")
    daemon.stop()
    if not Path("/sys/kernel/btf/vmlinux").exists():  # User-Mode Linux
        command = [sys.executable, "-m", "lbnode", "--config", str(daemon.config)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert "data plane: xdp: the cluster's settings say so" in done.stderr
        assert kernel.services() == {WEB: "wrr"}
    daemon.config.write_text(daemon.config.read_text().replace('kind = "auto"', 'kind = "fake"'))
    daemon.start()
    assert daemon.status()["dataplane"]["kind"] == "fake"
    assert kernel.services() == {}
