"""The lab itself: a small compose file brought up for real, looked at, broken and removed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbnode.lab import processes
from lbnode.lab.lab import RUN, Lab
from lbnode.lab.namespaces import NETNS, LabError

pytestmark = pytest.mark.root

COMPOSE = """
networks:
  front: {ipam: {config: [{subnet: 192.0.2.0/24, gateway: 192.0.2.254}]}}
  back: {ipam: {config: [{subnet: 198.51.100.0/24}]}}
volumes: {data: }
services:
  server:
    init: true
    command: [python3, -m, lbnode.lab.realserver, --http, "80", --udp-echo, "7", --tcp-echo, "2222"]
    hostname: server-one
    networks: {front: {ipv4_address: 192.0.2.11}, back: {ipv4_address: 198.51.100.11}}
    ports: ["127.0.0.1:${PORT}:80"]
    volumes: ["data:/data", "./read-me:/etc/lab/read-me:ro"]
    sysctls: {net.ipv4.ip_forward: 1}
    healthcheck: {test: [CMD, curl, -sf, "http://127.0.0.1/"], interval: 1s, retries: 20}
    stop_grace_period: 5s
  client:
    init: true
    command: ["sh", "-c", "trap 'echo stopped >/data/note; exit 0' TERM; while :; do sleep 0.1; done"]
    networks: {front: {ipv4_address: 192.0.2.100}}
    volumes: ["data:/data"]
    depends_on: {server: {condition: service_healthy}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], what: str, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def write_compose(directory: Path) -> Path:
    (directory / "read-me").write_text("hello\n")
    path = directory / "lab.yml"
    path.write_text(COMPOSE)
    return path


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def lab(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    path = write_compose(tmp_path_factory.mktemp("lab"))
    with Lab(path, name=f"lbt-lab{os.getpid()}", environment={"PORT": str(port)}) as lab:
        lab.up()
        yield lab


def page(lab: Lab, check: bool = True) -> str:
    return lab.run("client", ["curl", "-s", "-m", "2", "http://server/"], check=check).stdout


def test_containers_reach_each_other_by_name_as_docker_has_it(lab: Lab) -> None:
    assert page(lab) == "server-one\n"
    links = json.loads(lab.run("server", ["ip", "-json", "address"]).stdout)
    addresses = {link["ifname"]: link["addr_info"][0]["local"] for link in links if link["ifname"] != "lo"}
    assert addresses == {"eth0": "198.51.100.11", "eth1": "192.0.2.11"}  # networks in the order of their names
    assert {link["ifname"]: link["address"] for link in links}["eth1"] == "02:42:c0:00:02:0b"
    assert lab.run("client", ["ip", "route", "show", "default"]).stdout.split()[:3] == ["default", "via", "192.0.2.254"]
    assert lab.run("client", ["ping", "-c1", "-W2", "192.0.2.254"]).returncode == 0  # the bridge's own address


def test_a_container_sees_its_own_things_only(lab: Lab) -> None:
    assert lab.run("server", ["hostname"]).stdout == "server-one\n"
    assert lab.run("server", ["cat", "/etc/lab/read-me"]).stdout == "hello\n"
    assert lab.run("server", ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "1\n"
    assert lab.run("client", ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout == "0\n"
    lab.run("server", ["sh", "-c", "touch /run/mine /tmp/mine /etc/mine"])
    assert lab.run("client", ["ls", "/run/mine", "/tmp/mine", "/etc/mine"], check=False).returncode != 0
    assert not any(Path(path).exists() for path in ("/run/mine", "/etc/mine"))
    for path in ("/usr/mine", str(Path(__file__).parent / "mine")):
        assert "Read-only file system" in lab.run("server", ["touch", path], check=False).stderr
    commands = lab.run("client", ["ps", "-eo", "pid,args"]).stdout
    assert "realserver" not in commands and " 1 " in commands


def test_capabilities_are_dockers(lab: Lab) -> None:
    refused = lab.run("client", ["ip", "link", "set", "eth0", "down"], check=False)
    assert refused.returncode != 0 and "not permitted" in refused.stderr  # no cap_add: NET_ADMIN
    refused = lab.run("client", ["sysctl", "-w", "net.ipv4.ip_forward=1"], check=False)
    assert refused.returncode != 0 and "permission denied" in refused.stderr  # not privileged


def test_exec_passes_the_exit_code_on_and_errors_say_where(lab: Lab) -> None:
    assert lab.run("client", ["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(LabError, match=r"client: sh -c echo no >&2; false: exit 1: no"):
        lab.run("client", ["sh", "-c", "echo no >&2; false"])
    with pytest.raises(LabError, match=r"no container 'clint'.*client"):
        lab.run("clint", ["true"])


def test_published_port_answers_on_the_hosts_loopback(lab: Lab, port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"server-one\n"


def test_real_server_echoes(lab: Lab) -> None:
    def udp() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(5)
            probe.sendto(b"ping", ("192.0.2.11", 7))
            return probe.recv(100)

    def tcp() -> bytes:
        with socket.create_connection(("192.0.2.11", 2222), timeout=5) as session:
            session.sendall(b"a line\n")
            return session.recv(100)

    assert lab.call("client", udp) == b"ping"
    assert lab.call("client", tcp) == b"a line\n"
    big = lab.run("client", ["curl", "-s", "-r", "6400-6463", "http://server/big"]).stdout
    assert big == f"{100:063d}\n"  # each line of the long download says its own position


def test_power_cut_sends_no_goodbye_and_leaves_nothing_running(lab: Lab, port: int) -> None:
    lab.run("server", ["sh", "-c", "echo kept >/var/lib/kept; echo kept >/data/kept; echo lost >/run/lost"])
    inside = lab.popen("server", ["sleep", "1000"])
    session = lab.call("client", lambda: socket.create_connection(("192.0.2.11", 2222), timeout=5))
    with session:
        before = lab.pid("server")
        lab.power_off("server")
        assert before is not None and processes.start_time(before) is None
        assert inside.wait(timeout=5) != 0
        session.settimeout(0.3)
        with pytest.raises(TimeoutError):  # neither FIN nor RST
            session.recv(1)
        assert page(lab, check=False) == ""
        assert [row.state for row in lab.status()] == ["off", "running"]
        with pytest.raises(LabError, match="server is off"):
            lab.run("server", ["true"])
    lab.power_on("server")
    until(lambda: page(lab, check=False) == "server-one\n", "the server is back")
    assert lab.run("server", ["cat", "/var/lib/kept", "/data/kept"]).stdout == "kept\nkept\n"
    assert lab.run("server", ["cat", "/run/lost"], check=False).returncode != 0
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"server-one\n"  # the published port leads into the new namespace


def test_cut_and_heal(lab: Lab) -> None:
    lab.cut("server")
    assert page(lab, check=False) == ""
    assert "NO-CARRIER" in lab.run("server", ["ip", "link", "show", "eth1"]).stdout
    lab.heal("server")
    until(lambda: page(lab, check=False) == "server-one\n", "the server is reachable again")


def test_pause_and_unpause(lab: Lab) -> None:
    lab.pause("server")
    assert lab.status()[0].state == "paused"
    assert lab.run("client", ["ping", "-c1", "-W2", "server"]).returncode == 0  # its kernel lives
    assert page(lab, check=False) == ""
    lab.unpause("server")
    assert page(lab) == "server-one\n"


def test_stop_lets_the_command_say_goodbye(lab: Lab) -> None:
    lab.stop("client")
    assert lab.run("server", ["cat", "/data/note"]).stdout == "stopped\n"
    lab.power_on("client")
    assert page(lab) == "server-one\n"


def test_up_again_changes_nothing_and_another_process_finds_the_lab(lab: Lab) -> None:
    before = [row.pid for row in lab.status()]
    lab.up()
    assert [row.pid for row in Lab.attach(lab.project.name).status()] == before
    command = [sys.executable, "-m", "lbnode.lab.main", "lab", "-f", str(lab.path), "-p", lab.project.name]
    environment = {**os.environ, "PORT": "1"}  # not needed: the lab remembers
    done = subprocess.run(
        [*command, "exec", "client", "hostname"], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, "client\n"), done.stderr


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = write_compose(tmp_path)
    lab = Lab(path, name=f"lbt-labx{os.getpid()}", environment={"PORT": "1"}, commands={"server": ["no-such-program"]})
    with lab, pytest.raises(LabError, match=r"server does not start.*no-such-program"):
        lab.up()
    assert not (RUN / lab.project.name).exists()


def test_down_removes_everything_also_after_a_crash(tmp_path: Path) -> None:
    """A first run is killed half-way; `down` of another process finds and removes its remains."""
    path, name = write_compose(tmp_path), f"lbt-labc{os.getpid()}"
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    script = (
        "import os, sys; from lbnode.lab.lab import Lab\n"
        "lab = Lab(sys.argv[1], name=sys.argv[2], environment={'PORT': sys.argv[3]}); lab.up(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(path), name, str(free_port())], check=False)
    pids = [row.pid for row in Lab.attach(name).status()]
    assert all(pids)
    path.unlink()
    down = [sys.executable, "-m", "lbnode.lab.main", "lab", "-p", name, "down"]
    subprocess.run(down, check=True)
    assert not any(processes.start_time(pid) for pid in pids if pid)
    assert not list(NETNS.glob(f"{name}.*"))
    assert not list(RUN.glob(f"{name}*"))
    assert name not in Path("/proc/mounts").read_text()
    assert subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout == links
    with pytest.raises(LabError, match="no lab"):
        Lab.attach(name)


def test_measuring_client_sees_the_gap_of_a_cut_and_the_sessions_that_survive(lab: Lab) -> None:
    address = lab.address("server", "front")
    streams = ["--udp", f"{address}:7", "--http", f"{address}:80", "--session", f"{address}:2222", "--sessions", "3"]
    pipe = subprocess.PIPE
    process = lab.popen("client", ["python3", "-m", "lbnode.lab.probe", *streams], stdin=pipe, stdout=pipe, text=True)

    def ask(command: str) -> dict[str, Any]:
        process.stdin.write(command + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    with process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        assert ask("sessions")["kept"] == 3
        ask("window")
        until(lambda: ask("report")["http"]["answered"] >= 10, "ten requests were answered")
        quiet = ask("report")
        assert quiet["http"]["servers"] == {"server-one": quiet["http"]["answered"]}
        assert quiet["udp"]["answered"] > 10 and quiet["http"]["failed"] == 0
        ask("window")
        lab.cut("server")
        began = time.monotonic()
        until(lambda: ask("report")["udp"]["longest_gap"] > 0.5, "the gap is seen while it lasts")
        cut_for = time.monotonic() - began
        lab.heal("server")
        answered = ask("report")["udp"]["answered"]
        until(lambda: ask("report")["udp"]["answered"] > answered + 10, "answers flow again")
        assert 0.5 < ask("report")["udp"]["longest_gap"] < cut_for + 10
        assert ask("sessions") == {"sessions": 3, "kept": 3, "lost": 0, "errors": []}
        process.stdin.close()
        assert process.wait(timeout=5) == 0
