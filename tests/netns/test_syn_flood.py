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
SECONDS = 60  # at most
COOKIES, CONNECTIONS = 2000, 40  # at least


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


async def test_connections_that_begin_with_a_cookie(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        for vip in (VIP, VIP6):
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
        await put(plane, ServiceId.of("tcp", VIP, PORT + 1), 0, port=9)
        with pytest.raises(ConnectionResetError):  # it was open, as far as the client knew
            _connect_and_ask(lab, VIP, PORT + 1)
        await _the_server_may_speak_first(lab, plane)
        events = (await plane.status()).events
        assert events["cookie-sent"] >= events["cookie-accepted"] >= 12


async def _the_server_may_speak_first(lab: Lab, plane: XdpPlane) -> None:
    listening = lab.net.call("rs1", lambda: socket.create_server(("0.0.0.0", 25)))

    def greet() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listening.accept()
            sock.sendall(b"220 ready\r\n")
            sock.close()

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        mail = ServiceId.of("tcp", VIP, 25)
        await plane.apply(PutService(ProgrammedService(mail, "rr", syn_proxy=0)))
        await plane.apply(PutServer(mail, server(1, port=25)))
        with lab.connect(VIP, 25) as sock:
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

            async with asyncio.timeout(SECONDS):
                while not await flooded():
                    await asyncio.sleep(0.02)
                number = 0
                while number < CONNECTIONS or (await plane.status()).events["cookie-sent"] < COOKIES:
                    with lab.connect() as sock:
                        ask(sock, f"new {number}")
                    ask(there[number % len(there)], f"old {number}")
                    number += 1
            assert flood.poll() is None, "the flood ended too early"
            flood.terminate()
            flood.wait(5)
        status = await plane.status()
        (proxy,) = status.syn_proxies
        assert (proxy.service, proxy.threshold) == (str(HTTP), THRESHOLD)
        assert status.events["cookie-accepted"] >= CONNECTIONS
        assert status.drops["table-full"] == 0
        known = len(there) + number  # of clients
        assert status.connections <= known + THRESHOLD + 1, "the flood left nothing but what the threshold let in"
        programmed = (await plane.dump()).services[HTTP]
        assert replace(programmed, servers={}) == ProgrammedService(HTTP, "rr", syn_proxy=THRESHOLD)
