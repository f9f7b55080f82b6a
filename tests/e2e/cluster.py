"""Helpers of the end-to-end tests: the shipped lab, configured as the demonstration does it, and what clients see."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from lbnode.lab import observe
from lbnode.lab.demo import CLUSTER, GATEWAYS, SERVERS, VIP, WEB, documents, gw1_leads
from lbnode.lab.lab import Lab

T = TypeVar("T")
WEIGHTS = dict(SERVERS.values())


def until(condition: Callable[[], T | None], expected: str, timeout_s: float = 90) -> T:
    return observe.until(condition, expected, timeout_s)[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shipped_lab(area: str, commands: Mapping[str, Sequence[str]] = {}) -> Lab:
    """The lab of docker-compose.yml under a name and on host ports of its own."""
    ports = {"LBNODE_GW1_PORT": str(free_port()), "LBNODE_GW2_PORT": str(free_port())}
    return Lab(name=f"lbt-{area}{os.getpid()}", environment=ports, commands=commands)


def put(lab: Lab, key: str, value: object) -> None:
    """`etcdctl put`, from whichever member is on; text goes as it is, anything else as JSON."""
    member = next(name for name in ("etcd1", "etcd2", "etcd3") if lab.pid(name) is not None)
    text = value if isinstance(value, str) else json.dumps(value)
    lab.run(member, ["etcdctl", "put", f"{CLUSTER}/{key}", text])


def configure(lab: Lab) -> None:
    """gw1 becomes active: at once if its election begins soon enough, else gw2 hands over."""
    for node in GATEWAYS:
        until(lambda node=node: observe.api(lab, node, "status"), f"lbnoded on {node} answers")  # type: ignore[misc]
    for key, value in documents().items():
        put(lab, key, value)
    until(lambda: gw1_leads(lab), f"gw1 alone holds {VIP}")
    for node in GATEWAYS:
        until(lambda node=node: observe.effective_weights(lab, node, WEB) == WEIGHTS, f"{node} serves {WEB}")  # type: ignore[misc]
    until(lambda: not requests(lab, 1)[1], "the client gets a page")


def requests(lab: Lab, count: int, seconds: int = 2) -> tuple[Counter[str], int]:
    """(real server -> answers, failures) of requests one after the other, each with a time-out of `seconds`."""
    loop = f"for i in $(seq {count}); do curl -sf -m {seconds} http://{VIP}/ || echo failed; done"
    answers = Counter(lab.run("client", ["sh", "-c", loop], timeout=count * seconds + 10).stdout.split())
    return answers, answers.pop("failed", 0)


class Probe:
    """The measuring client (lbnode.lab.probe) in the client container."""

    def __init__(self, lab: Lab, sessions: int = 3) -> None:
        streams = ["--udp", f"{VIP}:7", "--http", f"{VIP}:80", "--session", f"{VIP}:2222", "--sessions", str(sessions)]
        command = ["python3", "-m", "lbnode.lab.probe", *streams]
        self.process = lab.popen("client", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == {"ready": True}

    def ask(self, command: str) -> dict[str, Any]:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._read()

    def flows(self, answers: int = 20) -> None:
        """Wait until both streams have had that many more answers."""
        before = self.ask("report")

        def more() -> bool:
            report = self.ask("report")
            return all(report[kind]["answered"] >= before[kind]["answered"] + answers for kind in ("udp", "http"))

        until(more, f"{answers} more answers of each kind")

    def _read(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def probing(lab: Lab, sessions: int = 3) -> Iterator[Probe]:
    probe = Probe(lab, sessions)
    try:
        yield probe
    finally:
        probe.close()


@contextmanager
def daemon(lab: Lab, node: str) -> Iterator[Callable[[], None]]:
    """lbnoded as a process of its own in a container that outlives it. Yields what kills it with SIGKILL."""
    script = "echo $$ >/run/lbnoded.pid; exec lbnoded --config /etc/lbnode/node.toml"
    log = open(lab.run_dir / "logs" / f"{node}-lbnoded.log", "ab")  # noqa: SIM115 - closed below
    process = lab.popen(node, ["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill() -> None:
        lab.run(node, ["sh", "-c", "kill -9 $(cat /run/lbnoded.pid)"])
        process.send_signal(signal.SIGCONT)  # nsenter stops itself when what it runs is stopped
        process.wait(timeout=10)

    try:
        until(lambda: observe.api(lab, node, "status") is not None, f"lbnoded on {node} answers")
        yield kill
    finally:
        if process.poll() is None:
            kill()
        log.close()


@contextmanager
def hung_daemon(lab: Lab, node: str) -> Iterator[None]:
    """What is left of an lbnoded that hangs while its data plane opens: it has found the election process that serves
    on, and says no more."""
    script = "import socket, time; s = socket.socket(socket.AF_UNIX); s.connect('/run/lbnode/election.sock'); print()"
    process = lab.popen(node, ["python3", "-uc", script + "; time.sleep(600)"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        yield
    finally:
        process.kill()
        process.wait(timeout=10)


class HolderWatch:
    """Which gateways hold an address, event by event from the kernel (rtnetlink(7), RTM_NEWADDR and RTM_DELADDR)."""

    def __init__(self, lab: Lab, address: str) -> None:
        self._address = socket.inet_aton(address)
        self._sockets = {node: lab.call(node, self._subscribe) for node in GATEWAYS}
        self.holders = set(observe.holders(lab, address))
        self.most = len(self.holders)  # most holders at any one time

    @staticmethod
    def _subscribe() -> socket.socket:
        result = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        result.bind((0, 0x10))  # RTMGRP_IPV4_IFADDR
        result.setblocking(False)
        return result

    def drain(self) -> None:
        """Take in what happened since. Losses before gains: of one round the order between nodes is unknown."""
        events = []
        for node, source in self._sockets.items():
            while True:
                try:
                    data = source.recv(65536)
                except BlockingIOError:
                    break
                if self._address in data:
                    events.append((int.from_bytes(data[4:6], "little") == 20, node))  # nlmsg_type 20: RTM_NEWADDR
        for gained, node in sorted(events):
            (self.holders.add if gained else self.holders.discard)(node)
            self.most = max(self.most, len(self.holders))

    def close(self) -> None:
        for source in self._sockets.values():
            source.close()
