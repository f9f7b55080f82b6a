"""Real IPv6 traffic through the real data plane: masquerade and direct routing, TCP and UDP, ICMPv6; fragments."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest

from lbnode.dataplane.base import PutServer, PutService
from lbnode.model import ProgrammedService, ServerId, ServiceId
from tests.netns.xdp_lab import (
    CLIENT6,
    PORT,
    VIP,
    VIP6,
    Lab,
    ask,
    download,
    programmed,
    server,
    until,
    upload,
)

pytestmark = pytest.mark.root
WEB, ECHO = ServiceId.of("tcp", VIP6, PORT), ServiceId.of("udp", VIP6, PORT)


@pytest.fixture(params=["auto", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(servers=2, xdp=request.param == "xdp", attach=request.param) as lab:
        yield lab


@pytest.fixture
def tcx_lab() -> Iterator[Lab]:
    with Lab(servers=1) as lab:
        yield lab


async def test_masquerade_carries_tcp_and_udp_both_ways(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1, family=6), server(2, family=6), vip=VIP6)
        names = []
        for _ in range(4):
            with lab.connect(VIP6) as sock:
                names.append(ask(sock))
                assert sock.getpeername()[:2] == (VIP6, PORT)
        assert Counter(names) == {"rs1": 2, "rs2": 2}
        with lab.connect(VIP6) as sock:
            assert download(sock, 3_000_000) == 3_000_000
            name = upload(sock, 1_000_000)
            seen = lab.net.run(name, "ss", "-H6tn", "state", "established")
            assert f"[{CLIENT6}]:{sock.getsockname()[1]}" in seen
        with lab.udp(VIP6) as sock:
            for _ in range(2):
                sock.send(b"one\n")
                assert sock.recv(100).endswith(b" one\n")
        total = (await plane.counters())[WEB].total
        assert total.connections == 5 and total.packets_in > 0 and total.packets_out > 0


@pytest.mark.parametrize("family", [4, 6])
async def test_fragments_pass_both_ways(lab: Lab, tmp_path: Path, family: int) -> None:
    vip = VIP6 if family == 6 else VIP
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1, family=family), server(2, family=family), vip=vip)
        with lab.udp(vip) as sock:
            for size in (1473, 5000, 60000):
                data = bytes(n % 251 for n in range(size))
                sock.send(data)
                assert sock.recv(65536)[4:] == data
        assert {reason for reason, count in (await plane.status()).drops.items() if count} == set()


async def test_ping_of_the_virtual_address_is_answered(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1, family=6), vip=VIP6)
        tcx_lab.net.run("client", "ping", "-c2", "-i0.1", "-W2", VIP6)


async def test_icmp_error_of_a_server_reaches_the_client_translated(lab: Lab, tmp_path: Path) -> None:
    """Nothing listens on the server's port: its port-unreachable names the inner addresses and must be rewritten."""
    async with lab.plane(tmp_path) as plane:
        await plane.apply(PutService(ProgrammedService(ECHO, "rr")))
        await plane.apply(PutServer(ECHO, server(1, port=9, family=6)))
        with lab.udp(VIP6) as sock:
            sock.send(b"anybody there?\n")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(100)


async def test_first_packet_is_not_lost_while_the_neighbour_is_unknown(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1, family=6), server(2, family=6), vip=VIP6)
        for _ in range(4):
            lab.net.run("gw", "ip", "-6", "neigh", "flush", "all")
            with lab.udp(VIP6) as sock:  # UDP is not sent again by anybody
                sock.send(b"first\n")
                assert sock.recv(100).endswith(b"first\n")


async def test_next_hops_are_followed(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        address = IPv6Address("2001:db8:b::31")
        await programmed(plane, "rr", server(1, family=6), vip=VIP6)
        await until(lambda: plane.next_hop(address) is not None, "the next hop is known")
        hop = plane.next_hop(address)
        assert hop is not None
        words = tcx_lab.net.run("rs1", "ip", "-o", "link", "show", "dev", "eth0").split()
        assert hop.target_mac.hex(":") == words[words.index("link/ether") + 1]


async def test_a_smaller_mtu_behind_the_gateway_is_reported_to_the_client(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        tcx_lab.net.run("gw", "ip", "link", "set", "back", "mtu", "1400")
        await programmed(plane, "rr", server(1, family=6), vip=VIP6)
        await until(lambda: plane.next_hop(IPv6Address("2001:db8:b::31")) is not None, "the next hop is known")
        with tcx_lab.connect(VIP6) as sock:
            sock.settimeout(10)
            assert upload(sock, 100_000) == "rs1"
        assert "mtu 1400" in tcx_lab.net.run("client", "ip", "-6", "route", "get", VIP6)


@pytest.mark.parametrize("forward", ["direct", "masquerade"])
@pytest.mark.parametrize("vip", [VIP, VIP6])
async def test_a_server_that_is_the_gateway_itself(tcx_lab: Lab, tmp_path: Path, vip: str, forward: str) -> None:
    """IPVS's "Local": the packet goes up the gateway's own network stack, the VIP is its address."""
    family = 6 if vip == VIP6 else 4
    tcx_lab.start_server(1, at="gw")
    own = ServerId(ip_address("2001:db8:b::2" if family == 6 else "198.51.100.2"), PORT)
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", replace(server(1, forward=forward), id=own), vip=vip)
        await until(lambda: plane.is_own(own.address), "the address is known to be the gateway's own")
        with tcx_lab.connect(vip) as sock:
            assert upload(sock, 100_000) == "gw"
            assert download(sock, 100_000) == 100_000
        with tcx_lab.udp(vip) as sock:
            sock.send(b"x")
            assert sock.recv(100) == b"gw x"
        assert (await plane.counters())[ServiceId.of("tcp", vip, PORT)].total.connections == 1


async def test_direct_routing(lab: Lab, tmp_path: Path) -> None:
    """The servers hold the VIP themselves and answer the client without the gateway."""
    for number in (1, 2):
        name = f"rs{number}"
        lab.net.plug(name, "front", f"2001:db8:f::{30 + number}/64", "sw", f"f-{name}", "front")
        lab.net.address(name, "lo", f"{VIP6}/128")
        if lab.xdp:
            lab.net.run(name, "ethtool", "-K", "front", "tx", "off")
    async with lab.plane(tmp_path) as plane:
        servers = [
            replace(server(n, forward="direct", family=6), id=ServerId(IPv6Address(f"2001:db8:f::{30 + n}"), PORT))
            for n in (1, 2)
        ]
        await programmed(plane, "rr", *servers, vip=VIP6)
        names = []
        for _ in range(4):
            with lab.connect(VIP6) as sock:
                names.append(upload(sock, 100_000))
                assert download(sock, 300_000) == 300_000
        assert Counter(names) == {"rs1": 2, "rs2": 2}
        with lab.udp(VIP6) as sock:
            sock.send(b"x")
            assert sock.recv(100)
        total = (await plane.counters())[WEB].total
        assert total.packets_in > 0 and total.packets_out == 0, "answers bypass the gateway"


async def test_hop_limit_that_runs_out_is_reported_to_the_client(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1, family=6), vip=VIP6)
        with tcx_lab.udp(VIP6) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, 25, 1)  # IPV6_RECVERR, <linux/in6.h>
            sock.send(b"x")
            with pytest.raises(OSError, match="No route to host"):
                sock.recv(100)
        assert (await plane.status()).drops["ttl"] == 1
