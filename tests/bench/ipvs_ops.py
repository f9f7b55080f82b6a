"""Operations per second of the IPVS data plane, and how long it holds the event loop.

    python -m tests.bench.ipvs_ops                       on a kernel with ip_vs (root; in a namespace of its own)
    python -m tests.uml.run .venv/bin/python -m tests.bench.ipvs_ops    elsewhere

Prints one line each for filling 1000 services × 10 servers, reading them back, one weight change per server, emptying,
and filling by the reconciler.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from lbnode.dataplane.base import DeleteService, Op, PutServer, PutService
from lbnode.dataplane.ipvs.plane import IpvsPlane
from lbnode.journal import Journal
from lbnode.model import ForwardingMethod, Programmed, ProgrammedServer, ProgrammedService, ServerId, ServiceId
from lbnode.plan import Desired
from lbnode.reconcile.loop import TOGETHER, Reconciler
from lbnode.watched import Watched
from tests.uml.own_netns import own_netns

SERVICES, SERVERS = 1000, 10
IDS = [ServiceId.of("tcp", f"192.0.2.{1 + n % 250}", 1000 + n) for n in range(SERVICES)]
SERVER_IDS = [ServerId(IPv4Address("198.51.100.1") + n, 80) for n in range(SERVERS)]


def servers(weight: int) -> list[Op]:
    real = [ProgrammedServer(server_id, weight, ForwardingMethod.MASQUERADE) for server_id in SERVER_IDS]
    return [PutServer(service_id, server) for service_id in IDS for server in real]


async def run(plane: IpvsPlane, ops: Sequence[Op]) -> None:
    for at in range(0, len(ops), TOGETHER):
        assert not any(await plane.apply_many(ops[at : at + TOGETHER]))


async def reconcile(plane: IpvsPlane, wanted: Programmed) -> None:
    """As the daemon fills it: with differences, statuses and all."""
    reconciler = Reconciler(plane, Journal("bench"))
    task = asyncio.create_task(reconciler.run(Watched(Desired(1, wanted))))
    while reconciler.programmed_revision.value < 1:
        await reconciler.programmed_revision.wait_changed(0)
    task.cancel()


async def longest_hold(stop: asyncio.Event) -> float:
    """Seconds between two turns of a task that always wants the next."""
    longest, before = 0.0, time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


async def measure(name: str, count: int, work: Awaitable[object]) -> None:
    stop = asyncio.Event()
    watcher = asyncio.create_task(longest_hold(stop))
    await asyncio.sleep(0)
    begin = time.monotonic()
    await work
    elapsed = time.monotonic() - begin
    stop.set()
    print(f"{name}: {count / elapsed:,.0f}/s ({count} in {elapsed:.2f} s), loop held {await watcher * 1000:.1f} ms")


async def main(run_dir: Path) -> None:
    plane = IpvsPlane(run_dir)
    await plane.open()
    await run(plane, [PutService(ProgrammedService(IDS[0], "wlc"))])  # modprobe takes User-Mode Linux's only CPU
    gc.freeze()  # as lbnoded does
    fill: list[Op] = [PutService(ProgrammedService(service_id, "wlc")) for service_id in IDS] + servers(1)
    await measure("fill", len(fill), run(plane, fill))
    await measure("read back", SERVICES * (SERVERS + 1), plane.dump())
    await measure("change weights", SERVICES * SERVERS, run(plane, servers(2)))
    await measure("empty", SERVICES, run(plane, [DeleteService(service_id) for service_id in IDS]))
    real = {one: ProgrammedServer(one, 1, ForwardingMethod.MASQUERADE) for one in SERVER_IDS}
    wanted = Programmed({one: ProgrammedService(one, "wlc", servers=dict(real)) for one in IDS})
    await measure("reconcile", SERVICES * (SERVERS + 1), reconcile(plane, wanted))
    await plane.close(unload=True)


if __name__ == "__main__":
    with own_netns(), TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
