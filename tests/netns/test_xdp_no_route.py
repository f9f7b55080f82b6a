"""Routes that packets cannot take, and routes that the kernel's stack alone can: IPv6 over segments (RFC 8754)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.model import ServiceId
from tests.netns.xdp_lab import CLIENT, CLIENT6, PORT, VIP6, Lab, ask, programmed, server, server_address, until

pytestmark = pytest.mark.root


@pytest.fixture
def lab(xdp: bool) -> Iterator[Lab]:
    with Lab(servers=1, xdp=xdp) as lab:
        yield lab


@pytest.mark.parametrize("xdp", [True])
async def test_a_reply_without_a_route_is_counted_and_goes_on_with_the_route(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with lab.udp() as sock:
            sock.send(b"one\n")
            assert sock.recv(100) == b"rs1 one\n"
            lab.net.run("gw", "ip", "route", "add", "unreachable", CLIENT)

            async def dropped() -> bool:
                sock.send(b"two\n")
                return (await plane.status()).drops["no-route"] > 0

            await until(dropped, "a reply is dropped and counted")
            lab.net.run("gw", "ip", "route", "del", "unreachable", CLIENT)

            async def answered() -> bool:
                sock.send(b"three\n")
                return b"three" in sock.recv(100)

            await until(answered, "replies come again")


@pytest.mark.parametrize("xdp", [False])
async def test_both_ways_over_segments_a_hop_is_counted_once(lab: Lab, tmp_path: Path) -> None:
    """With three hops: one is for the gateway, one for the segment's end, one must be left."""
    ends = (("client", CLIENT6, "2001:db8:f::101", "front"), ("rs1", server_address(1, 6), "2001:db8:b::41", "back"))
    for name, address, segment, device in ends:
        lab.net.run(name, "ip", "addr", "add", f"{segment}/64", "dev", "eth0", "nodad", "preferred_lft", "0")
        for key in ("all.seg6_enabled=1", "eth0.seg6_enabled=1", "eth0.hop_limit=3"):
            lab.net.run(name, "sysctl", "-qw", f"net.ipv6.conf.{key}")
        way = ("encap", "seg6", "mode", "inline", "segs", segment, "dev", device)
        try:
            lab.net.run("gw", "ip", "route", "add", address, *way)
        except RuntimeError:
            pytest.skip("this kernel has no CONFIG_IPV6_SEG6_LWTUNNEL")
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1, family=6), vip=VIP6)
        with lab.connect(VIP6) as sock:
            assert ask(sock) == "rs1"
        status = await plane.status()
        assert status.events["stack"] >= 6, "three of an opening, question, answer, and what acknowledges them"
        assert {drop for drop, count in status.drops.items() if count} == set()
        served = (await plane.counters())[ServiceId.of("tcp", VIP6, PORT)].total
        assert status.events["stack"] >= served.packets_in > 0 and served.packets_out > 0
