"""lbnode with IPVS beside keepalived: how soon a dead server is out of ip_vs, and which connections survive a failover.

    python -m tests.bench.ipvs_keepalived                            on a kernel with ip_vs (root)
    python -m tests.uml.run --limit 900 .venv/bin/python -m tests.bench.ipvs_keepalived      elsewhere

Both have the same ip_vs, servers, check (TCP, one failure is enough) and client, one after the other in one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Command
from lbnode.dataplane.ipvs.netlink import GenericNetlink
from lbnode.model import ServiceId
from tests.node.daemon import Daemon
from tests.uml.gateways import BACK_VIP, GATEWAYS, MASQUERADED, VIP, Held, Lab

RUNS, HELD = 6, 8
OFFERED_S = 0.02  # between two new connections
TIMEOUT_S = 1.0  # of the check, and of a client
SYNC_S = 8.0  # the kernel's sender collects for up to 2 s; in 7 s a connection is synchronised or never
WEB = ServiceId.of("tcp", VIP, 80)
PATIENCE_S = 60.0


class Table:
    """ip_vs of a gateway."""

    def __init__(self, lab: Lab, gateway: str) -> None:
        with lab.inside(gateway):
            self._socket = GenericNetlink()
            self._socket.connect()

    def serving(self) -> set[str]:
        """Addresses of the servers that get new connections."""
        try:
            bodies = [body for part in self._socket.dump(Command.GET_DEST, codec.encode_key(WEB)) for body in part]
        except ProcessLookupError:
            return set()
        found = (codec.decode_destination(body, 4) for body in bodies)
        return {str(item.id.address) for item in found if item.weight > 0}


def wait(condition: Callable[[], bool]) -> float:
    """Seconds until it is true."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > PATIENCE_S:
            raise TimeoutError("it took too long; see the logs of the daemons")
        time.sleep(0.004)
    return time.monotonic() - begin


class Offer:
    """New connections, one each OFFERED_S, from the client; counts those that fail."""

    def __init__(self, lab: Lab) -> None:
        self.failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(lab,))
        self._thread.start()

    def _run(self, lab: Lab) -> None:
        with lab.inside("client"):
            asyncio.run(self._offer())

    async def _offer(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while not self._stop.is_set():
                tasks.create_task(self._connect())
                await asyncio.sleep(OFFERED_S)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                _, writer = await asyncio.open_connection(VIP, 80)
            writer.close()
        except OSError:  # TimeoutError is one
            self.failed += 1

    def end(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.failed


# --- the two ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lbnode(lab: Lab, gateways: list[str], interval_s: float, directory: Path) -> Iterator[None]:
    document: dict[str, object] = {
        "services": {
            f"tcp:{VIP}:80": {
                "scheduler": "rr",
                "check": {"interval": interval_s, "timeout": TIMEOUT_S, "rise": 1, "fall": 1},
                "servers": {f"{address}:80": {} for address in MASQUERADED.values()},
            }
        }
    }
    if len(gateways) > 1:
        addresses = [f"{VIP}/24 dev eth0", f"{BACK_VIP}/24 dev eth1"]
        group = {"vrid": 51, "interface": "eth0", "addresses": addresses, "priorities": {"gw1": 250, "gw2": 150}}
        document["vip-groups"] = {"front": {**group, "advert_interval": 1.0}}
    with contextlib.ExitStack() as stack:
        for name in gateways:
            sync = f'[sync]\nlisten = "198.51.100.{GATEWAYS[name]}:8848"\nkey = "x"\n'
            daemon = Daemon(directory / name, name, sync, plane="ipvs")
            stack.callback(daemon.close)
            with lab.inside(name):
                daemon.start()
            daemon.client.call("POST", "/api/v1/apply", {"document": document})
        yield


@contextlib.contextmanager
def keepalived(lab: Lab, gateways: list[str], interval_s: float, directory: Path) -> Iterator[None]:
    servers = "\n".join(
        f"  real_server {address} 80 {{ weight 1\n TCP_CHECK {{ connect_timeout {TIMEOUT_S:g}\n retry 0 }} }}"
        for address in MASQUERADED.values()
    )
    service = (
        f"virtual_server {VIP} 80 {{ delay_loop {interval_s:g}\n lb_algo rr\n lb_kind NAT\n protocol TCP\n{servers} }}"
    )
    with contextlib.ExitStack() as stack:
        for name in gateways:
            (directory / name).mkdir(parents=True)
            general, instance = "global_defs { router_id x }\n", ""
            if len(gateways) > 1:
                general = "global_defs { lvs_sync_daemon eth1 V1 id 1 }\n"
                state, priority = ("MASTER", 150) if name == "gw1" else ("BACKUP", 100)
                instance = (
                    f"vrrp_instance V1 {{ state {state}\n interface eth0\n virtual_router_id 51\n priority {priority}\n"
                    f" advert_int 1\n version 3\n"
                    f" virtual_ipaddress {{ {VIP}/24 dev eth0\n {BACK_VIP}/24 dev eth1 }} }}\n"
                )
            path = directory / name / "keepalived.conf"
            path.write_text(f"{general}{instance}{service}\n")
            pids = [f"--{kind}={directory}/{name}/{kind}" for kind in ("pid", "vrrp_pid", "checkers_pid")]
            only = [] if instance else ["--check"]
            command = ["keepalived", "--dont-fork", "--use-file", str(path), *only, *pids]
            log = stack.enter_context((directory / name / "log").open("wb"))
            process = lab.popen(name, command, stdout=log, stderr=log)
            stack.callback(_end, process)
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)


SYSTEMS = {"lbnode": lbnode, "keepalived": keepalived}


# --- detection -------------------------------------------------------------------------------------------------


def detection(system: str, event: str, interval_s: float) -> tuple[list[float], list[int]]:
    """Seconds from the event to the change of ip_vs, and failed connections meanwhile, for each run."""
    victim = "rs2"
    took, failed = [], []
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        directory = Path(stack.enter_context(TemporaryDirectory()))
        lab.ip("gw1", f"addr add {VIP}/24 dev eth0", f"addr add {BACK_VIP}/24 dev eth1")
        listeners = {name: lab.listen(name, address, 80) for name, address in MASQUERADED.items()}
        acceptor = stack.enter_context(Acceptor(listeners))
        stack.enter_context(SYSTEMS[system](lab, ["gw1"], interval_s, directory))
        table = Table(lab, "gw1")
        everybody, address = set(MASQUERADED.values()), MASQUERADED[victim]
        wait(lambda: table.serving() == everybody)
        for _ in range(RUNS):
            offer = Offer(lab)
            time.sleep(1.0 + random.random() * interval_s)
            if event == "refuses":
                acceptor.close(victim)
            else:
                lab.ip("switch", f"link set {victim}-back down")
            took.append(wait(lambda: address not in table.serving()))
            failed.append(offer.end())
            if event == "refuses":
                acceptor.open(victim, lab.listen(victim, address, 80))
            else:
                lab.ip("switch", f"link set {victim}-back up")
            wait(lambda: table.serving() == everybody)
    return took, failed


class Acceptor:
    """Takes what is connected, as a server does, and lets it go."""

    def __init__(self, listeners: dict[str, socket.socket]) -> None:
        self._listeners = dict(listeners)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for listener in self._listeners.values():
            listener.close()

    def close(self, name: str) -> None:
        with self._lock:
            self._listeners.pop(name).close()

    def open(self, name: str, listener: socket.socket) -> None:
        with self._lock:
            self._listeners[name] = listener

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                for listener in self._listeners.values():
                    listener.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            listener.accept()[0].close()
            time.sleep(0.005)


# --- failover --------------------------------------------------------------------------------------------------


def failover(system: str) -> tuple[int, int, float]:
    """(of HELD connections that only had their handshake, of HELD that had talked) how many live after the active
    gateway is cut off, and how long the first answer took (s)."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        directory = Path(stack.enter_context(TemporaryDirectory()))
        listeners = [lab.listen(name, address, 80) for name, address in MASQUERADED.items()]
        stack.enter_context(SYSTEMS[system](lab, list(GATEWAYS), 1.0, directory))
        tables = [Table(lab, name) for name in GATEWAYS]
        wait(lambda: all(table.serving() == set(MASQUERADED.values()) for table in tables))
        wait(functools.partial(_reachable, lab))
        time.sleep(2.0)  # both know their roles
        fresh, talked = ([Held(lab, 80, listeners) for _ in range(HELD)] for _ in range(2))
        for connection in (*fresh, *talked):
            stack.enter_context(closing(connection))
        for _ in range(5):
            assert all(connection.is_live() for connection in talked)
        time.sleep(SYNC_S)
        lab.unplug("gw1")
        begin = time.monotonic()
        alive_talked = [talked[0].is_live(PATIENCE_S)]
        gap = time.monotonic() - begin
        alive_talked += [connection.is_live() for connection in talked[1:]]
        return sum(connection.is_live() for connection in fresh), sum(alive_talked), gap


def _reachable(lab: Lab) -> bool:
    try:
        lab.connect(VIP, 80, 1.0).close()
    except OSError:
        return False
    return True


def main() -> None:
    print(f"{'':>34} {'detected after, s':>24} {'failed connections':>19}")
    print(f"{'check every':>12} {'server':>9} {'':>11} {'min median max':>24} {'median max':>19}")
    for interval_s, event in ((1.0, "refuses"), (1.0, "is silent"), (0.1, "refuses")):
        for system in SYSTEMS:
            took, failed = detection(system, event, interval_s)
            times = f"{min(took):.2f} {statistics.median(took):.2f} {max(took):.2f}"
            lost = f"{statistics.median(failed):.0f} {max(failed)}"
            print(f"{interval_s:>10g} s {event:>9} {system:>11} {times:>24} {lost:>19}", flush=True)
    print(f"\nPower cut of the active gateway, advertisements each second: connections that live on, of {HELD}")
    print(f"{'':>11} {'only handshake':>15} {'had talked':>11} {'first answer after, s':>22}")
    for system in SYSTEMS:
        fresh, talked, gap = failover(system)
        print(f"{system:>11} {fresh:>15} {talked:>11} {gap:>22.1f}", flush=True)


if __name__ == "__main__":
    main()
