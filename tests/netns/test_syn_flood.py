"""Real TCP through the SYN proxy at both hooks, and while the service is under a SYN flood."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.model import ProgrammedService, ServiceId
from tests.netns.xdp_lab import HTTP, PORT, VIP, VIP6, Lab, ask, download, server, upload

pytestmark = pytest.mark.root
THRESHOLD = 50
SECONDS = 15


@pytest.fixture(params=["auto", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(servers=2, xdp=request.param == "xdp", attach=request.param) as lab:
        yield lab


async def put(plane: XdpPlane, service_id: ServiceId, threshold: int, *, port: int = PORT) -> None:
    await plane.apply(PutService(ProgrammedService(service_id, "rr", syn_proxy=threshold)))
    for number in (1, 2):
        await plane.apply(PutServer(service_id, server(number, family=service_id.family, port=port)))


def _connect_and_ask(lab: Lab, vip: str, port: int) -> None:
    with lab.connect(vip, port) as sock:
        ask(sock)


@pytest.mark.parametrize("vip", [VIP, VIP6])
async def test_connections_that_begin_with_a_cookie(lab: Lab, tmp_path: Path, vip: str) -> None:
    async with lab.plane(tmp_path) as plane:
        await put(plane, ServiceId.of("tcp", vip, PORT), 0)
        names = set()
        for _ in range(4):
            with lab.connect(vip) as sock:
                names.add(ask(sock))
                assert sock.getpeername()[:2] == (vip, PORT)
        assert names == {"rs1", "rs2"}
        with lab.connect(vip) as sock:
            assert download(sock, 3_000_000) == 3_000_000
            upload(sock, 3_000_000)
        await put(plane, ServiceId.of("tcp", vip, PORT + 1), 0, port=9)
        with pytest.raises(ConnectionResetError):  # it was open, as far as the client knew
            _connect_and_ask(lab, vip, PORT + 1)
        events = (await plane.status()).events
        assert events["cookie-sent"] >= events["cookie-accepted"] >= 6


async def test_a_server_that_speaks_first(lab: Lab, tmp_path: Path) -> None:
    def listen() -> socket.socket:
        return socket.create_server(("0.0.0.0", 25))

    listening = lab.net.call("rs1", listen)

    def greet() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listening.accept()
            sock.sendall(b"220 ready\r\n")
            sock.close()

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        async with lab.plane(tmp_path) as plane:
            await plane.apply(PutService(ProgrammedService(HTTP, "rr", syn_proxy=0)))
            await plane.apply(PutServer(HTTP, server(1, port=25)))
            with lab.connect() as sock:
                assert sock.recv(100) == b"220 ready\r\n"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        listening.close()


async def test_clients_get_through_a_flood_and_those_that_are_there_stay(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path, connections=1024) as plane:
        await put(plane, HTTP, THRESHOLD)
        with contextlib.ExitStack() as stack:
            there = [stack.enter_context(lab.connect()) for _ in range(20)]
            for sock in there:
                ask(sock)
            mac = lab.net.run("gw", "ip", "-o", "link", "show", "front").split("link/ether ")[1].split()[0]
            flood = lab.net.popen(
                "client", sys.executable, "-m", "tests.netns.flood", "eth0", mac, VIP, str(PORT), str(SECONDS), "20000",
                stdout=-1,
            )  # fmt: skip
            assert flood.stdout is not None and flood.stdout.readline() == b"ready\n"

            async def flooded() -> bool:
                return (await plane.status()).syn_proxies[0].flooded

            async with asyncio.timeout(10):
                while not await flooded():
                    await asyncio.sleep(0.02)
            for number in range(40):
                with lab.connect() as sock:
                    ask(sock, f"new {number}")
                ask(there[number % len(there)], f"old {number}")
            assert flood.poll() is None, "the flood ended too early"
            flood.terminate()
            assert int(flood.stdout.readline()) > 1000
            flood.wait(5)
        status = await plane.status()
        (proxy,) = status.syn_proxies
        assert (proxy.service, proxy.threshold) == (str(HTTP), THRESHOLD)
        assert status.events["cookie-accepted"] >= 40
        assert status.events["cookie-sent"] > 500 and status.drops["table-full"] == 0
        assert status.connections < 400, "the flood left nothing but what the threshold let in"
        programmed = (await plane.dump()).services[HTTP]
        assert replace(programmed, servers={}) == ProgrammedService(HTTP, "rr", syn_proxy=THRESHOLD)
