"""Full NAT with real TCP: the servers have no route to the client, and yet they know who it is."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.lab.netns import Net
from lbnode.model import ProgrammedServer, ProgrammedService, ServiceId
from tests.netns.xdp_lab import (
    CLIENT,
    CLIENT6,
    HTTP,
    PORT,
    VIP,
    VIP6,
    Lab,
    ask,
    download,
    programmed,
    server,
    server_address,
    upload,
)

pytestmark = pytest.mark.root
LOCAL, LOCAL6 = "198.51.100.1", "2001:db8:b::1"  # move with the VIPs
TCP_SAVE_SYN, TCP_SAVED_SYN = 27, 28  # <linux/tcp.h>


def without_routes(lab: Lab) -> None:
    for number in range(1, lab.servers + 1):
        for family in ("-4", "-6"):
            lab.net.run(f"rs{number}", "ip", family, "route", "del", "default")
            with pytest.raises(RuntimeError, match="unreachable"):
                lab.net.run(f"rs{number}", "ip", family, "route", "get", CLIENT if family == "-4" else CLIENT6)


@pytest.fixture(params=["auto", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(servers=2, xdp=request.param == "xdp", attach=request.param) as lab:
        without_routes(lab)
        yield lab


@pytest.fixture
def pair() -> Iterator[Lab]:
    with Lab(servers=2, gateways=2) as lab:
        without_routes(lab)
        yield lab


def full(number: int, *, family: int = 4, port: int = PORT) -> ProgrammedServer:
    local = ip_address(LOCAL6 if family == 6 else LOCAL)
    one = server(number, forward="fullnat", family=family, port=port)
    return replace(one, local_addresses=(local,), toa=True)


async def test_both_ways_without_a_route_to_the_client(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        for vip, family in ((VIP, 4), (VIP6, 6)):
            await programmed(plane, "rr", full(1, family=family), full(2, family=family), vip=vip)
            names = Counter[str]()
            for _ in range(4):
                with lab.connect(vip) as sock:
                    names[upload(sock, 300_000)] += 1
                    assert download(sock, 1_000_000) == 1_000_000
                    assert sock.getpeername()[:2] == (vip, PORT)
            assert names == {"rs1": 2, "rs2": 2}
            with lab.udp(vip) as sock:
                for text in (b"one", b"two"):
                    sock.send(text)
                    assert sock.recv(100).endswith(text)
            total = (await plane.counters())[ServiceId.of("tcp", vip, PORT)].total
            assert total.connections == 4 and total.packets_out > 0
            await told_who_the_client_is(lab, plane, vip, family)
        status = await plane.status()
        assert not any(status.drops.values()), status.drops


async def test_connections_that_begin_with_a_cookie(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        for vip, family in ((VIP, 4), (VIP6, 6)):
            service = ServiceId.of("tcp", vip, PORT)
            await plane.apply(PutService(ProgrammedService(service, "rr", syn_proxy=0)))
            for number in (1, 2):
                await plane.apply(PutServer(service, full(number, family=family)))
            names = Counter[str]()
            for _ in range(4):
                with lab.connect(vip) as sock:
                    names[upload(sock, 300_000)] += 1
                    assert download(sock, 1_000_000) == 1_000_000
            assert names == {"rs1": 2, "rs2": 2}
            await told_who_the_client_is(lab, plane, vip, family, syn_proxy=0)
        status = await plane.status()
        assert status.events["cookie-accepted"] >= 10 and not any(status.drops.values()), status.drops


async def told_who_the_client_is(
    lab: Lab, plane: XdpPlane, vip: str, family: int, syn_proxy: int | None = None
) -> None:
    """Out of the SYN that its kernel saved: that takes no kernel module."""
    service = ServiceId.of("tcp", vip, 8001)
    await plane.apply(PutService(ProgrammedService(service, "rr", syn_proxy=syn_proxy)))
    await plane.apply(PutServer(service, full(1, family=family, port=8001)))
    with listener(lab.net, server_address(1, family), 8001) as listening, lab.connect(vip, 8001) as sock:
        accepted, peer = listening.accept()
        with accepted:
            assert peer[0] == (LOCAL6 if family == 6 else LOCAL)
            syn = accepted.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 512)
            assert told(syn[40 if family == 6 else 20 :]) == sock.getsockname()[:2]
            accepted.sendall(b"welcome")
            assert sock.recv(100) == b"welcome"


def listener(net: Net, address: str, port: int) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
        sock.settimeout(5)
        return sock

    return net.call("rs1", make)


def told(tcp: bytes) -> tuple[str, int]:
    """The TOA option, which stands first or last."""
    options = tcp[20 : (tcp[12] >> 4) * 4]
    while options[0] != 254:
        options = options[1:] if options[0] < 2 else options[options[1] :]
    (port,) = struct.unpack_from("!H", options, 2)
    return str(ip_address(options[4 : options[1]])), port


async def test_connections_go_on_through_the_second_gateway(pair: Lab, tmp_path: Path) -> None:
    async with pair.plane(tmp_path / "1", "gw") as first, pair.plane(tmp_path / "2", "gw2") as second:
        await programmed(first, "rr", full(1), full(2))
        await programmed(second, "rr", full(2), full(1))
        await first.changed_records(1)
        with pair.connect() as one, pair.connect() as two:
            names = [ask(one), ask(two)]
            records = await first.changed_records(1000)
            assert await second.import_records(records) == 2
            pair.move_addresses("gw2")
            assert [ask(one, "over gw2"), ask(two, "over gw2")] == names
            assert download(one, 500_000) == 500_000
            with pair.connect() as fresh:
                ask(fresh)
            assert (await second.counters())[HTTP].total.active >= 2
