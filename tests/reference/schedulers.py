"""Play the runs of ipvs-schedulers.json on the compiled data plane, and tell which differ from the real ip_vs.

A run opens and closes connections one after the other and notes the server of each (`about` and `modes` in the file).
The file lies in this folder, or in the one that LBNODE_REFERENCE names.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from lbnode.model import ServerId, ServiceId
from tests.packets.bench import Bench, Machine
from tests.packets.traffic import datagram, segment
from tests.packets.wire import Wire

FOLDER = Path(os.environ.get("LBNODE_REFERENCE") or Path(__file__).parent)
RUNS = FOLDER / "ipvs-schedulers.json"
MARK = 7  # of the services by firewall mark, whose clients go to many addresses
CLIENT = "203.0.113.9"  # of runs that do not tell theirs
VIP = "192.0.2.10"


def load(path: Path = RUNS) -> Sequence[Mapping[str, Any]]:
    """No runs if there is no such file; the caller says so by name."""
    return list(json.loads(path.read_text())["runs"]) if path.exists() else []


def name_of(run: Mapping[str, Any]) -> str:
    return "-".join(map(str, (run["id"], run["scheduler"], run["flags"], run["mode"], *run["weights"])))


def needs_mark(run: Mapping[str, Any]) -> bool:
    """Firewall marks exist in socket buffers only: such a run goes through the tc program."""
    return str(run["mode"]).startswith("dsts")


class Run:
    """Plays one run: TCP openings and closings packet by packet, or datagrams."""

    def __init__(self, bench: Bench, run: Mapping[str, Any]) -> None:
        self._bench, self._run = bench, run
        self._one_packet = run["mode"] == "ops"
        self._connections = [tuple(one[:4]) for one in run["conns_src_sport_dst_dport"] or ()] or [
            (CLIENT, 20000 + number, VIP, 80) for number in range(len(run["chosen"]))
        ]
        self._port = 53 if self._one_packet else 80  # of the servers
        self._mark = MARK if needs_mark(run) else 0
        self.service: ServiceId = bench.service(
            self._service_id(), run["scheduler"], *filter(None, run["flags"].split(",")), one_packet=self._one_packet
        )
        self._addresses = {name: address for name, address, _ in run["dests_in_order_of_adding"]}
        self._names = {IPv4Address(address).packed: name for name, address in self._addresses.items()}
        for name, _, weight in run["dests_in_order_of_adding"]:
            upper, lower = (
                int(found[1])
                if (found := re.search(rf"-{option} (\d+)", (run["thresholds"] or {}).get(name, "")))
                else 0
                for option in "xy"
            )
            bench.server(self.service, str(self._server_id(name)), weight=weight, upper=upper, lower=lower)
        self._open: deque[tuple[int, str]] = deque()  # number of the connection, server's name

    def _service_id(self) -> str:
        _, _, address, port = self._connections[0]
        return f"fwmark:{MARK}" if self._mark else f"{'udp' if self._one_packet else 'tcp'}:{address}:{port}"

    def _server_id(self, name: str) -> ServerId:
        return ServerId(IPv4Address(self._addresses[name]), self._port)

    def differences(self) -> Iterator[str]:
        """Play; what differs, in words."""
        chosen = self._play()
        if chosen != self._run["chosen"]:
            yield f"chosen {chosen}, ip_vs {self._run['chosen']}"
        gauges = self._gauges()
        if gauges != self._run["active_inactive_after"]:
            yield f"active and inactive {gauges}, ip_vs {self._run['active_inactive_after']}"

    def _play(self) -> str:
        events = self._run["events"] or {}
        chosen = ""
        for number in range(len(self._run["chosen"])):
            for command in events.get(str(number), ()):
                self._command(command)
            server = self._datagram(number) if self._one_packet else self._connect(number)
            chosen += server
            if server != "-":
                self._after(number)
        return chosen

    def _command(self, text: str) -> None:
        found = re.fullmatch(r"-([aed]) \{svc\} -r \{(\w+)\}:\d+(?: -m -w (\d+))?((?: -[xy] \d+)*)", text)
        assert found, text
        what, name, weight, thresholds = found.groups()
        limits = dict(re.findall(r"-([xy]) (\d+)", thresholds or ""))
        server_id = self._server_id(name)
        if what == "d":
            self._bench.remove(self.service, server_id)
        else:
            upper, lower = int(limits.get("x", 0)), int(limits.get("y", 0))
            self._bench.server(self.service, str(server_id), weight=int(weight), upper=upper, lower=lower)

    def _connect(self, number: int) -> str:
        server = self._packet(number, "S")
        if server is None:
            return "-"
        self._packet(number, "SA", server)
        assert self._packet(number, "A") == server
        self._open.append((number, server))
        return server[-1]

    def _datagram(self, number: int) -> str:
        client, client_port, address, port = self._connections[number]
        frame = datagram((client, client_port), (address, port), self._bench.wire.mac("front"))
        server = self._send(frame, "front")
        return "-" if server is None else server[-1]

    def _close(self, place: int) -> None:
        number, server = self._open[place]
        del self._open[place]
        self._packet(number, "FA")
        self._packet(number, "FA", server)

    def _after(self, number: int) -> None:
        """What the mode closes after connection `number` (from 0)."""
        mode = self._run["mode"]
        if (mode in ("seq", "srcs", "dsts") and self._open) or (mode == "churn" and len(self._open) > 6):
            self._close(0)
        elif mode == "churn3" and number % 3 == 2 and len(self._open) > 1:
            self._close(1)

    def _packet(self, number: int, flags: str, server: str | None = None) -> str | None:
        """From the client, or from `server`. Returns the name of the server that it went to."""
        client, client_port, address, port = self._connections[number]
        if server is None:
            frame = segment((client, client_port), (address, port), flags, self._bench.wire.mac("front"))
            return self._send(frame, "front")
        frame = segment(
            (self._addresses[server], self._port), (client, client_port), flags, self._bench.wire.mac("back")
        )
        return self._send(frame, "back")

    def _send(self, frame: bytes, interface: str) -> str | None:
        out = self._bench.send(frame, interface, check="none", mark=self._mark)
        if out.verdict != "send" or out.frame[23] != frame[23]:  # an ICMP error is an answer, too
            return None
        return self._names.get(out.frame[30:34])

    def _gauges(self) -> dict[str, list[int]]:
        servers = self._bench.tables.services[self.service].servers
        found = {
            name: self._bench.gauge(self.service, self._server_id(name))
            for name in self._addresses
            if self._server_id(name) in servers
        }
        return {name: [gauge.active, gauge.inactive] for name, gauge in found.items()}


def report() -> int:
    """Play all runs; print passed and total by scheduler, and the runs that differ. The exit status."""
    runs = load()
    if not runs:
        print(f"skipped: no {RUNS}")
        return 0
    total, passed = Counter(run["scheduler"] for run in runs), Counter[str]()
    for run, differences in _play(runs):
        passed[run["scheduler"]] += not differences
        if differences:
            print(name_of(run))
            for line in differences:
                print(f"  {line}")
    each = ", ".join(f"{name} {passed[name]}/{count}" for name, count in total.items())
    print(f"schedulers on xdp: {passed.total()}/{total.total()} runs of {RUNS} passed: {each}")
    return int(passed != total)


def _play(runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    wire = Wire(f"lbt-ref{os.getpid()}")
    try:
        machine = Machine()
        try:
            for run in runs:
                entries = ("tc",) if needs_mark(run) else ("xdp", "tc")
                played = (Run(Bench(machine, wire, entry), run) for entry in entries)
                yield run, [line for one in played for line in one.differences()]
        finally:
            machine.close()
    finally:
        wire.net.close()
