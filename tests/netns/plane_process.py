"""A process that holds an XDP plane open until it is killed: `python plane_process.py RUN_DIR ATTACH SERVERS`.

SERVERS is `number:weight,...`. Prints `ready` when everything is programmed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

from lbnode.dataplane.xdp.interfaces import Attach
from lbnode.dataplane.xdp.plane import XdpPlane
from tests.netns.xdp_lab import programmed, server


async def main(run_dir: str, attach: str, servers: str) -> None:
    plane = XdpPlane(Path(run_dir), attach=cast(Attach, attach))
    await plane.open()
    numbers = [part.split(":") for part in servers.split(",")]
    await programmed(plane, "wrr", *(server(int(number), weight=int(weight)) for number, weight in numbers))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
