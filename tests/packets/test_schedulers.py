"""The sequences of servers are those of the real IPVS (tests/reference, or the folder that LBNODE_REFERENCE names).

Two differences are meant:
- mh: IPVS leaves a server whose weight became 0 in the table, and refuses (or looks further for) the clients that hash
  to it. Here the table is filled anew without it: a drained server costs no client its service. Such runs are compared
  up to that event.
- A server that is deleted and added again starts with no connections; IPVS finds the old ones in its trash.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from lbnode.dataplane.xdp.layout import Gauge
from lbnode.model import ServerId, ServiceId
from tests.packets.bench import VIP, Bench, segment

pytestmark = pytest.mark.root

FOLDER = Path(os.environ.get("LBNODE_REFERENCE", Path(__file__).parents[1] / "reference"))
OURS = {"rr", "wrr", "wlc", "sh", "mh"}
MODES = {"seq", "held", "churn", "churn3", "srcs", "srcs-held"}
PORT = 80


def runs() -> list[Any]:
    found = json.loads((FOLDER / "ipvs-schedulers.json").read_text())["runs"]
    return [
        pytest.param(
            run, id="-".join(map(str, (run["id"], run["scheduler"], run["flags"], run["mode"], *run["weights"])))
        )
        for run in found
        if run["scheduler"] in OURS and run["mode"] in MODES
    ]


class Run:
    """Plays one run: real TCP openings and closings, packet by packet."""

    def __init__(self, bench: Bench, run: dict[str, Any]) -> None:
        self.bench, self.run = bench, run
        self.service: ServiceId = bench.service(
            f"tcp:{VIP}:{PORT}", run["scheduler"], *filter(None, run["flags"].split(","))
        )
        self.addresses = {name: address for name, address, _ in run["dests_in_order_of_adding"]}
        self.names = {bytes(map(int, address.split("."))): name for name, address in self.addresses.items()}
        for name, _, weight in run["dests_in_order_of_adding"]:
            upper, lower = (
                int(found.group(1))
                if (found := re.search(rf"-{option} (\d+)", (run["thresholds"] or {}).get(name, "")))
                else 0
                for option in "xy"
            )
            bench.server(self.service, f"{self.addresses[name]}:{PORT}", weight=weight, upper=upper, lower=lower)
        self.open: deque[tuple[str, int, str]] = deque()  # client, port, server's name
        self.commands: list[str] = []

    def command(self, text: str) -> None:
        found = re.fullmatch(r"-([aed]) \{svc\} -r \{(\w+)\}:80(?: -m -w (\d+))?", text)
        assert found, text
        self.commands.append(text)
        what, name, weight = found.groups()
        if what == "d":
            self.bench.remove(self.service, ServerId.parse(f"{self.addresses[name]}:{PORT}"))
        else:
            self.bench.server(self.service, f"{self.addresses[name]}:{PORT}", weight=int(weight))

    def packet(self, client: str, port: int, flags: str, server: str | None = None) -> str | None:
        """From the client, or from `server`. Returns the name of the server that it went to."""
        if server is None:
            frame = segment((client, port), (VIP, PORT), flags, self.bench.wire.mac("front"))
            out = self.bench.send(frame, check="none")
        else:
            frame = segment((self.addresses[server], PORT), (client, port), flags, self.bench.wire.mac("back"))
            out = self.bench.send(frame, "back", check="none")
        if out.verdict != "send" or out.frame[23] != 6:
            return None
        return self.names.get(out.frame[30:34])

    def connect(self, client: str, port: int) -> str:
        server = self.packet(client, port, "S")
        if server is None:
            return "-"
        self.packet(client, port, "SA", server)
        assert self.packet(client, port, "A") == server
        self.open.append((client, port, server))
        return server[-1]

    def close(self, place: int) -> None:
        client, port, server = self.open[place]
        del self.open[place]
        self.packet(client, port, "FA")
        self.packet(client, port, "FA", server)

    def after(self, number: int) -> None:
        """What the mode closes after connection `number` (from 0)."""
        mode = self.run["mode"]
        if (mode in ("seq", "srcs") and self.open) or (mode == "churn" and len(self.open) > 6):
            self.close(0)
        elif mode == "churn3" and number % 3 == 2 and len(self.open) > 1:
            self.close(1)

    def play(self) -> str:
        events = self.run["events"] or {}
        clients = self.run["conns_src_sport_dst_dport"] or []
        chosen = ""
        for number in range(len(self.run["chosen"])):
            for command in events.get(str(number), ()):
                self.command(command)
            client, port = clients[number][:2] if number < len(clients) else ("203.0.113.9", 20000 + number)
            chosen += self.connect(client, port)
            self.after(number)
        return chosen

    def gauges(self) -> dict[str, list[int]]:
        found: dict[str, Gauge] = {}
        for name, address in self.addresses.items():
            server_id = ServerId.parse(f"{address}:{PORT}")
            if server_id in self.bench.tables.services[self.service].servers:
                found[name] = self.bench.gauge(self.service, server_id)
        return {name: [gauge.active, gauge.inactive] for name, gauge in found.items()}


@pytest.mark.parametrize("run", runs())
def test_as_ipvs(bench: Bench, run: dict[str, Any]) -> None:
    played = Run(bench, run)
    chosen = played.play()
    drained = [int(at) for at, commands in (run["events"] or {}).items() if any("-w 0" in text for text in commands)]
    if run["scheduler"] == "mh" and drained:
        assert chosen[: min(drained)] == run["chosen"][: min(drained)]
        return
    assert chosen == run["chosen"]
    again = {text.split("{")[2].split("}")[0] for text in played.commands if text.startswith("-a")}
    for name, gauges in played.gauges().items():
        if name not in again:
            assert gauges == run["active_inactive_after"][name]
