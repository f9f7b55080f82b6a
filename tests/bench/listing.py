"""A million connections listed by the data plane, the API and lbadm: seconds, and how long the event loop was held.

Held: how much later than asked a task of the same loop wakes up, in wall time; a busy machine adds its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from pathlib import Path

from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.layout import State
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.dataplane.xdp.records import Record, Tuple
from lbnode.model import ForwardingMethod, L4Protocol, ProgrammedService
from tests.netns.xdp_lab import HTTP, PORT, VIP, Lab, server, server_address
from tests.web.fake_control import FakeControl
from web.app import make_app, serve

CONNECTIONS = 1_000_000
CLIENTS = ip_network("203.0.113.0/24")
PORTS = range(1024, 1024 + CONNECTIONS // CLIENTS.num_addresses + 1)
TABLE = 1 << 21  # entries
SOME = "203.0.113.0/28"
PAUSE_S = 0.001


class Held:
    """The longest time that the loop did not come round, since it was last asked."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(PAUSE_S)
            self.longest_s = max(self.longest_s, time.monotonic() - begun - PAUSE_S)


class Control(FakeControl):
    """Everything is made up but the connections."""

    def __init__(self, plane: XdpPlane) -> None:
        super().__init__()
        self._plane = plane

    def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[list[str]]:  # type: ignore[override]
        return self._plane.connections(wanted)  # type: ignore[return-value]


async def fill(plane: XdpPlane) -> None:
    await plane.apply(PutService(ProgrammedService(HTTP, "rr")))
    await plane.apply(PutServer(HTTP, server(1)))
    vip, real = ip_address(VIP), ip_address(server_address(1))
    for port in PORTS:
        records = bytearray()
        for client in CLIENTS:
            inward = Tuple(client, port, vip, PORT, L4Protocol.TCP)
            outward = Tuple(real, PORT, client, port, L4Protocol.TCP)
            records += Record(inward, outward, 0, State.ESTABLISHED, 0, ForwardingMethod.MASQUERADE).pack()
        await plane.import_records(bytes(records))


async def lines_of(*command: str, socket_path: Path) -> tuple[int, int]:
    """What a program writes: (lines, its largest resident set in MB)."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "LBNODE_SOCKET": str(socket_path)}
    )
    assert process.stdout is not None
    lines = resident_kb = 0
    while block := await process.stdout.read(1 << 16):
        lines += block.count(b"\n")
        resident_kb = max(resident_kb, resident(process.pid))
    assert await process.wait() == 0
    return lines, resident_kb // 1024


def resident(pid: int) -> int:
    """kB; 0 of a process that has ended."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) if found else 0
    return 0


def row(what: str, lines: int, seconds: float, held: Held, note: str = "") -> None:
    held_ms = held.longest_s * 1000
    print(f"{what:34}{lines:>9} lines {seconds:>7.2f} s   loop held {held_ms:>5.1f} ms  {note}", flush=True)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory, Lab(servers=1) as lab:
        path = Path(directory) / "api.sock"
        async with lab.plane(Path(directory) / "run", connections=TABLE) as plane:
            await fill(plane)
            web = await serve(None, make_app(Control(plane), token=None, metrics=None), unix_path=path)
            held = Held()
            watch = asyncio.create_task(held.run())
            try:
                await measure(plane, path, held)
            finally:
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch
                await web.close()


async def measure(plane: XdpPlane, path: Path, held: Held) -> None:
    for what, wanted in (("data plane", EVERY), (f"data plane, of {SOME}", ConnectionFilter.parse(client=SOME))):
        held.longest_s, begun, lines = 0.0, time.monotonic(), 0
        async for chunk in plane.connections(wanted):
            lines += len(chunk)
        row(what, lines, time.monotonic() - begun, held)
    api = ("curl", "-s", "--unix-socket", str(path))
    lbadm = (sys.executable, "-m", "lbnode.cli.ipvsadm", "-Lnc")
    for what, command in (
        ("API", (*api, "http://node/api/v1/connections")),
        (f"API, of {SOME}", (*api, f"http://node/api/v1/connections?client={SOME}")),
        ("lbadm -Lnc", lbadm),
    ):
        held.longest_s, begun = 0.0, time.monotonic()
        lines, megabytes = await lines_of(*command, socket_path=path)
        row(what, lines, time.monotonic() - begun, held, f"{megabytes} MB in the client")


if __name__ == "__main__":
    asyncio.run(main())
