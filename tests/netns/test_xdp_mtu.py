"""Servers behind a smaller MTU than everybody believes, and than the gateway knows of."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.dataplane.base import PutService
from lbnode.model import ProgrammedService
from tests.netns.xdp_lab import HTTP, Lab, ask, download, programmed, server, until, upload

pytestmark = pytest.mark.root
SMALL = 1300
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0  # <linux/in.h>


@pytest.fixture(params=["auto", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(servers=1, xdp=request.param == "xdp", attach=request.param) as lab:
        for name in ("client", "rs1"):  # a bundle of segments would pass the small link in one piece
            lab.net.run(name, "ethtool", "-K", "eth0", "tso", "off", "gso", "off")
        yield lab


def resent(lab: Lab, name: str) -> int:
    """TCP segments (RFC 4022, tcpRetransSegs)."""
    names, values = [line.split() for line in lab.net.run(name, "cat", "/proc/net/snmp").splitlines() if "Tcp:" in line]
    return int(values[names.index("RetransSegs")])


async def test_clamping_leads_through_a_link_that_tells_nobody_what_it_loses(lab: Lab, tmp_path: Path) -> None:
    """The switch's port to the server takes 1300 bytes, and a switch sends no ICMP errors."""
    lab.net.run("sw", "ip", "link", "set", "b-rs1", "mtu", str(SMALL))
    async with lab.plane(tmp_path) as plane:
        real = server(1)
        await programmed(plane, "rr", real)
        await until(lambda: plane.next_hop(real.id.address) is not None, "the next hop is known")
        with lab.connect() as sock:
            assert ask(sock) == "rs1"
            before = resent(lab, "rs1")
            sock.sendall(b"GET 100000\n")
            await until(lambda: resent(lab, "rs1") >= before + 2, "the server resends what got lost")
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        await plane.apply(PutService(ProgrammedService(HTTP, "rr", mss=SMALL - 40)))
        with lab.connect() as sock:
            # Linux takes what was announced less the 12 bytes of its timestamps.
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == SMALL - 40 - 12
            assert upload(sock, 100_000) == "rs1"
            assert download(sock, 100_000) == 100_000


async def test_the_stack_fragments_datagrams_for_a_server_behind_a_smaller_mtu(lab: Lab, tmp_path: Path) -> None:
    for name, device in (("gw", "back"), ("rs1", "eth0")):
        lab.net.run(name, "ip", "link", "set", device, "mtu", str(SMALL))
    async with lab.plane(tmp_path) as plane:
        real = server(1)
        await programmed(plane, "rr", real)
        await until(lambda: plane.next_hop(real.id.address) is not None, "the next hop is known")
        with lab.udp() as sock:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            for size in (SMALL - 28, SMALL - 27, 1400):
                sock.send(b"x" * size)
                assert sock.recv(4096) == b"rs1 " + b"x" * size
        assert not any((await plane.status()).drops.values())
