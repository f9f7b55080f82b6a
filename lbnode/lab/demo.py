"""`lbnode demo`: a two-gateway cluster is configured, loses a real server, then its active gateway, under load.

Every step states what it does, checks it against a deadline, and prints what was measured. With `once` the result is
the exit code: 0 only if every step did what it says. Ctrl-C at any time removes everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import IO, Any

from lbnode.errors import LbError
from lbnode.lab import observe, processes
from lbnode.lab.display import Display
from lbnode.lab.lab import RUN, Lab, remove
from lbnode.lab.namespaces import LabError
from lbnode.lab.observe import NotInTime, until
from lbnode.lab.realserver import BIG_LINE, BIG_LINES

NAME = "lbnode-demo"
CLUSTER = "/lbnode/lab"
GATEWAYS = ("gw1", "gw2")
VIP, GATEWAY_VIP = "192.0.2.10", "198.51.100.1"
WEB, ECHO, SHELL = f"tcp:{VIP}:80", f"udp:{VIP}:7", f"tcp:{VIP}:2222"
SERVERS = {"rs1": ("198.51.100.31", 3), "rs2": ("198.51.100.32", 2), "rs3": ("198.51.100.33", 1)}
SESSIONS = 20
REQUESTS = 120
WORST_GAP_S = 3.0  # what still counts as "the client hardly noticed"; the measured figure is what is printed


def documents() -> dict[str, dict[str, Any]]:
    """Keys and values for `etcdctl put`: one group of floating addresses, three services, three servers each."""
    check = {"type": "http", "path": "/", "interval": 0.5, "timeout": 0.4, "rise": 2, "fall": 2}
    addresses = [f"{VIP}/24", f"{GATEWAY_VIP}/24"]
    group = {"vrid": 51, "addresses": addresses, "priorities": {"gw1": 250, "gw2": 150}, "advert_interval": 0.1}
    puts: dict[str, dict[str, Any]] = {"vip-groups/front": group, "checks/web": check}
    # The echo services are checked over HTTP too: a real server is up or down as a whole.
    for service, port in ((WEB, 80), (ECHO, 7), (SHELL, 2222)):
        puts[f"services/{service}"] = {
            "scheduler": "wrr",
            "vip_group": "front",
            "check": "web" if port == 80 else {**check, "port": 80},
        }
        for address, weight in SERVERS.values():
            puts[f"services/{service}/servers/{address}:{port}"] = {"weight": weight, "forward": "masquerade"}
    return puts


def gw1_leads(lab: Lab) -> bool:
    """Whether gw1 alone holds the VIP. It wins by 39 ms; where gw2's election began sooner than that, gw2 hands
    over, which it refuses until it has heard that gw1 is Backup."""
    holders = observe.holders(lab, VIP)
    if holders == ("gw2",):
        lab.run("gw2", ["lbctl", "failover", "front"], check=False)
    return holders == ("gw1",)


class StepFailed(LbError):
    """A step did not do what it says."""


class Client:
    """The measuring process in the client container; see probe.py."""

    def __init__(self, lab: Lab) -> None:
        streams = ["--udp", f"{VIP}:7", "--http", f"{VIP}:80", "--session", f"{VIP}:2222", "--sessions", str(SESSIONS)]
        command = ["python3", "-m", "lbnode.lab.probe", *streams]
        self.process = lab.popen("client", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def ask(self, command: str) -> dict[str, Any]:
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        stdin.write(command + "\n")
        stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise LabError(f"the measuring client ended with {self.process.wait()}; its message stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Demo:
    def __init__(self, lab: Lab, display: Display, resources: ExitStack) -> None:
        self.lab = lab
        self.display = display
        self.resources = resources  # what must end before the lab does
        self.figures: dict[str, str] = {}

    # --- steps ------------------------------------------------------------------------------------------------

    def start_lab(self) -> None:
        self.display.step("Start the lab: 3 etcd members, 2 gateways, 3 real servers, 1 client")
        self.lab.up(progress=self.display.tick)
        self.display.detail(f"all processes started after {time.monotonic() - self.display.began:.1f} s")
        for node in GATEWAYS:
            self._until(partial(observe.api, self.lab, node, "status"), f"lbnoded on {node} answers", 90)
        for name, (address, _) in SERVERS.items():
            self._until(partial(self._page, address, "gw1"), f"{name} serves pages", 15)
        self.display.done("everything runs, each in namespaces of its own")

    def configure(self) -> None:
        self.display.step("Configure the cluster with etcdctl, as anybody could")
        puts = documents()
        for key, value in puts.items():
            self.lab.run("etcd1", ["etcdctl", "put", f"{CLUSTER}/{key}", json.dumps(value)])
        for key in ("vip-groups/front", f"services/{WEB}", f"services/{WEB}/servers/198.51.100.31:80"):
            self.display.detail(f"etcdctl put {CLUSTER}/{key} '{json.dumps(puts[key])}'")
        self.display.detail(f"... and {len(puts) - 3} more")
        self._until(partial(gw1_leads, self.lab), f"gw1, and only gw1, holds {VIP}", 15)
        self._until(lambda: observe.holders(self.lab, GATEWAY_VIP) == ("gw1",), f"gw1 holds {GATEWAY_VIP} too", 5)
        for node in GATEWAYS:
            for service in (WEB, ECHO, SHELL):
                self._until(
                    partial(self._full_weights, node, service),
                    f"{node} has every server of {service} at its weight",
                    15,
                )
        self._until(lambda: self._page(VIP) is not None, f"http://{VIP}/ answers the client", 10)
        self.display.done(f"gw1 is active and holds {VIP}; both gateways have programmed all 3 services")

    def spread(self) -> None:
        self.display.step("Requests are spread by weight, 3 : 2 : 1")
        seen, failed = self._requests(REQUESTS)
        total = sum(weight for _, weight in SERVERS.values())
        expected = {name: REQUESTS * weight // total for name, (_, weight) in SERVERS.items()}
        self.display.detail(f"{REQUESTS} requests: {_counts(seen)} (by weight: {_counts(expected)})")
        off = {
            name: seen[name] - expected[name] for name in expected if abs(seen[name] - expected[name]) > REQUESTS // 20
        }
        if failed or off:
            raise StepFailed(f"expected {_counts(expected)} and no failure; seen {_counts(seen)} and {failed} failures")
        self.display.done("the client's counts match the weights")

    def lose_server(self) -> None:
        self.display.step("A real server dies: rs3 loses its power")
        self.lab.power_off("rs3")
        address = SERVERS["rs3"][0]

        def out() -> bool:
            return all(not observe.effective_weights(self.lab, node, WEB).get(address, 1) for node in GATEWAYS)

        _, seconds = self._until(out, "both gateways have taken rs3 out of the rotation", 15)
        self.figures["a dead real server leaves the rotation after"] = f"{seconds:.1f} s"
        self.display.detail(f"out of the rotation on both gateways after {seconds:.1f} s")
        found = observe.service(self.lab, "gw1", WEB) or {"servers": []}
        reasons = [server["health_reason"] for server in found["servers"] if server["id"].startswith(f"{address}:")]
        self.display.detail(f"gw1 says why: {reasons[0] if reasons else 'nothing'}")
        seen, failed = self._requests(REQUESTS // 2)
        self.display.detail(f"{REQUESTS // 2} requests: {_counts(seen)}, {failed} failed")
        if failed or seen["rs3"] or not (seen["rs1"] and seen["rs2"]):
            raise StepFailed(f"expected all requests at rs1 and rs2; seen {_counts(seen)} and {failed} failures")
        self.display.done("no request fails any more")

    def regain_server(self) -> None:
        self.display.step("rs3 comes back")
        self.lab.power_on("rs3")
        for node in GATEWAYS:
            self._until(partial(self._full_weights, node, WEB), f"{node} has rs3 back at its weight", 20)
        self._until(lambda: self._requests(6)[0]["rs3"] > 0, "rs3 gets requests again", 10)
        self.display.done("rs3 gets requests again")

    def load(self) -> tuple[Client, subprocess.Popen[Any]]:
        self.display.step("Load from the client: a long download, idle sessions, a packet every 10 ms")
        client = Client(self.lab)
        self.resources.callback(client.close)
        size = BIG_LINES * len(BIG_LINE % 0)
        command = f"set -o pipefail; curl -sS --limit-rate 3M http://{VIP}/big | sha256sum"
        download = self.lab.popen(
            "client", ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.resources.callback(_end, download)
        checked = client.ask("sessions")
        client.ask("window")
        time.sleep(1.5)  # the measure of an undisturbed time, beside which the failover is shown
        quiet = client.ask("report")
        self.figures["longest gap while nothing happens"] = f"{quiet['udp']['longest_gap'] * 1000:.0f} ms"
        self.display.detail(f"{checked['kept']} TCP sessions are open and idle; a {size >> 20} MiB download runs")
        self.display.detail(
            f"quiet time: {_stream(quiet['udp'])} over UDP, {_stream(quiet['http'])} over new TCP connections"
        )
        if checked["lost"] or not quiet["udp"]["answered"] or not quiet["http"]["answered"] or quiet["http"]["failed"]:
            raise StepFailed(f"expected every session and probe to be answered; seen {checked} {quiet}")
        self._until(lambda: observe.in_sync(self.lab, "gw2"), "gw2 has every connection of gw1", 10)
        if download.poll() is not None:
            raise StepFailed(f"the download ended before the failover: {download.communicate()}")
        self.display.done("gw2 says that its connection table is in sync")
        return client, download

    def lose_gateway(self, client: Client, download: subprocess.Popen[Any]) -> None:
        self.display.step("The active gateway loses its power: gw1's links are cut, its processes killed, all at once")
        client.ask("window")
        self.lab.power_off("gw1")
        self._until(lambda: observe.holders(self.lab, VIP) == ("gw2",), f"gw2 holds {VIP}", 10)

        before = client.ask("report")

        def flows() -> bool:
            report = client.ask("report")
            return all(report[kind]["answered"] >= before[kind]["answered"] + 40 for kind in ("udp", "http"))

        self._until(flows, "answers flow again", 15)
        first = client.ask("report")
        began = time.monotonic()
        while download.poll() is None and time.monotonic() - began < 60:
            self.display.tick("the download goes on through gw2")
            time.sleep(0.2)
        report = client.ask("report")
        sessions = client.ask("sessions")
        gaps = {kind: report[kind]["longest_gap"] for kind in ("udp", "http")}
        output, problem = download.communicate() if download.poll() is not None else ("", "it still runs")
        whole = output.split()[:1] == [_expected_sha256()]
        self.figures["longest gap when the active gateway dies (UDP, every 10 ms)"] = f"{gaps['udp'] * 1000:.0f} ms"
        self.figures["longest gap between new TCP connections (every 25 ms)"] = f"{gaps['http'] * 1000:.0f} ms"
        self.figures["new connections during the failover"] = (
            f"{first['http']['answered']} answered, {report['http']['failed']} failed"
        )
        self.figures["idle TCP sessions"] = f"{sessions['kept']} kept, {sessions['lost']} lost"
        self.figures["the long download"] = "kept, sha256 as expected" if whole else f"lost: {problem or output}"
        for name, value in list(self.figures.items())[-5:]:
            self.display.detail(f"{name}: {value}")
        if not whole or sessions["lost"] or max(gaps.values()) > WORST_GAP_S:
            raise StepFailed(
                f"expected: the download whole, no session lost, no gap above {WORST_GAP_S:g} s\n"
                f"seen: download {'whole' if whole else problem or output!r}, {sessions}, gaps {gaps}"
            )
        self.display.done("every connection survived the gateway it went through")

    def regain_gateway(self, client: Client) -> None:
        self.display.step("gw1 is switched on again")
        client.ask("window")
        self.lab.power_on("gw1")
        self._until(lambda: observe.in_sync(self.lab, "gw1"), "gw1 is in sync with gw2", 90)
        self._until(lambda: observe.role(self.lab, "gw1") in ("backup", "active"), "gw1 takes part in the election", 30)
        roles = self._roles()
        if roles != {"gw1": "backup", "gw2": "active"} or observe.holders(self.lab, VIP) != ("gw2",):
            raise StepFailed(f"expected gw1 as backup and gw2 active; seen {roles}")
        report, sessions = client.ask("report"), client.ask("sessions")
        gap = max(report["udp"]["longest_gap"], report["http"]["longest_gap"])
        self.figures["longest gap when it comes back"] = f"{gap * 1000:.0f} ms"
        self.display.detail(f"longest gap meanwhile: {gap * 1000:.0f} ms; sessions: {sessions['kept']} kept")
        if sessions["lost"] or report["http"]["failed"] or gap > WORST_GAP_S:
            raise StepFailed(f"expected nobody to notice; seen {sessions} {report}")
        client.close()
        self.display.done("gw1 is backup and in sync, ready to take over; gw2 stays active: nothing moves without need")

    def web_ui(self) -> None:
        self.display.step("The web UI is on this machine")
        url = self.ui_url

        def page() -> bool:
            try:
                with urllib.request.urlopen(f"{url}/", timeout=2) as answer:  # noqa: S310 - our own address
                    return answer.status == 200 and b"<html" in answer.read().lower()
            except OSError:
                return False

        self._until(page, f"{url} answers", 10)
        self.display.done(f"{url}, token: lab")

    @property
    def ui_url(self) -> str:
        port = self.lab.project.containers["gw1"].ports[0]
        return f"http://{port.host_address}:{port.host_port}"

    # --- helpers ----------------------------------------------------------------------------------------------

    def _until(self, condition: Any, expected: str, timeout_s: float) -> tuple[Any, float]:
        return until(condition, expected, timeout_s, self.display.tick)

    def _page(self, address: str, node: str = "client") -> str | None:
        done = self.lab.run(node, ["curl", "-sf", "-m", "1", f"http://{address}/"], check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def _full_weights(self, node: str, service: str) -> bool:
        return observe.effective_weights(self.lab, node, service) == dict(SERVERS.values())

    def _requests(self, count: int) -> tuple[Counter[str], int]:
        """Requests one after the other, each in a connection of its own: (server -> answers, failures)."""
        loop = f"for i in $(seq {count}); do curl -sf -m 2 http://{VIP}/ || echo failed; done"
        answers = Counter(self.lab.run("client", ["sh", "-c", loop], timeout=count * 2 + 10).stdout.split())
        return answers, answers.pop("failed", 0)

    def _roles(self) -> dict[str, str | None]:
        return {node: observe.role(self.lab, node) for node in GATEWAYS}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts.get(name, 0)}" for name in SERVERS)


def _stream(report: Mapping[str, Any]) -> str:
    return f"{report['answered']} of {report['sent']} answered, longest gap {report['longest_gap'] * 1000:.0f} ms"


def _expected_sha256() -> str:
    return hashlib.sha256("".join(BIG_LINE % number for number in range(BIG_LINES)).encode()).hexdigest()


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()


def _report_failure(lab: Lab, display: Display, error: Exception) -> None:
    display.failed(str(error))
    for row in lab.status() if lab.run_dir.exists() else []:
        tail = lab.logs(row.name).strip().splitlines()[-8:]
        if row.name.startswith("gw") or row.state == "off":
            display.detail(f"{row.name} is {row.state}; its log ends:")
            display.detail("\n".join(tail) or "(nothing)")


def _run(demo: Demo) -> None:
    demo.start_lab()
    demo.configure()
    demo.spread()
    demo.lose_server()
    demo.regain_server()
    client, download = demo.load()
    demo.lose_gateway(client, download)
    demo.regain_gateway(client)
    demo.web_ui()


def demo(*, once: bool) -> int:
    """Exit code: 0 if every step did what it says."""
    display = Display(steps=9)
    lab = Lab(name=NAME)
    owner = RUN / NAME / "owner"
    if processes.recorded(owner) is not None:
        raise LabError("another `lbnode demo` runs on this machine; end it first")
    remove(NAME)  # what a killed demo left behind
    display.say("lbnode demo: everything happens in network namespaces; this machine's own network is not touched.")
    try:
        with ExitStack() as resources:
            (RUN / NAME).mkdir(parents=True)
            processes.record(owner, os.getpid())
            try:
                _run(demo := Demo(lab, display, resources))
            except (LbError, NotInTime, subprocess.SubprocessError, RuntimeError) as error:
                _report_failure(lab, display, error)
                return 1
            display.say("\nMeasured in this run:")
            width = max(map(len, demo.figures))
            for name, value in demo.figures.items():
                display.say(f"  {name.ljust(width)}  {value}")
            if not once:
                display.say(f"\nThe lab stays up. Look at {demo.ui_url} (token: lab), or in another terminal:")
                display.say(f"  lbnode lab -p {NAME} status      lbnode lab -p {NAME} exec gw1 lbctl status")
                display.say("Ctrl-C takes it down.")
                with suppress(KeyboardInterrupt):
                    signal.pause()
        return 0
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # cleaning up must not be interrupted half-way
        display.say("taking the lab down")
        lab.down()
        display.say("done; nothing is left behind")
