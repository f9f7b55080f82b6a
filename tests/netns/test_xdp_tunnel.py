"""Real TCP and UDP through tunnels of every type and pair of families; the servers answer the client directly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lbnode.dataplane.base import DeleteServer, PutServer
from lbnode.model import ServiceId, Tunnel, TunnelChecksum, TunnelType
from tests.netns.xdp_lab import PORT, VIP, VIP6, Lab, ask, download, programmed, server, until, upload

pytestmark = pytest.mark.root
GUE_PORT = 6080  # of decap in ends.bpf.c
TUNNELS = (
    Tunnel(TunnelType.IPIP),
    Tunnel(TunnelType.GUE, GUE_PORT),
    Tunnel(TunnelType.GUE, GUE_PORT, TunnelChecksum.FULL),
    Tunnel(TunnelType.GRE),
    Tunnel(TunnelType.GRE, 0, TunnelChecksum.FULL),
)
VIPS = {4: VIP, 6: VIP6}


@pytest.fixture(params=["auto", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(servers=1, xdp=request.param == "xdp", attach=request.param) as lab:
        lab.net.plug("rs1", "front", "192.0.2.31/24", "sw", "f-rs1", "front")
        lab.net.address("rs1", "front", "2001:db8:f::31/64")
        for key in ("all.arp_ignore=1", "all.arp_announce=2", "front.rp_filter=0", "lo.rp_filter=0"):
            lab.net.run("rs1", "sysctl", "-qw", f"net.ipv4.conf.{key}")
        lab.net.address("rs1", "lo", f"{VIP}/32")
        lab.net.address("rs1", "lo", f"{VIP6}/128")
        if lab.xdp:
            lab.net.run("rs1", "ethtool", "-K", "front", "tx", "off")
        lab.attach("rs1", "eth0", "decap")
        yield lab


@pytest.mark.parametrize("inner", [4, 6])
async def test_every_tunnel_carries_traffic(lab: Lab, tmp_path: Path, inner: int) -> None:
    async with lab.plane(tmp_path) as plane:
        services = [ServiceId.of(protocol, VIPS[inner], PORT) for protocol in ("tcp", "udp")]
        await programmed(plane, "rr", vip=VIPS[inner])
        for outer in (4, 6):
            real = server(1, forward="tunnel", family=outer)
            for tunnel in TUNNELS:
                for service_id in services:
                    await plane.apply(PutServer(service_id, replace(real, tunnel=tunnel)))
                await until(lambda wanted=real.id: plane.next_hop(wanted.address) is not None, "the next hop is known")
                # Where packets are socket buffers, bundles of segments cannot get checksums over each.
                bundles = lab.xdp or tunnel.checksum is TunnelChecksum.NONE or (tunnel.type, outer) == ("gue", 4)
                with lab.connect(VIPS[inner]) as sock:
                    assert ask(sock) == "rs1", (tunnel, outer)
                    if bundles:
                        assert upload(sock, 100_000) == "rs1"
                        assert download(sock, 100_000) == 100_000
                with lab.udp(VIPS[inner]) as sock:
                    sock.send(b"x")
                    assert sock.recv(100) == b"rs1 x", (tunnel, outer)
            for service_id in services:
                await plane.apply(DeleteServer(service_id, real.id))
        status = await plane.status()
        # The client learnt from the gateway how much fits into each tunnel. The end of a connection that the test has
        # closed may come after its server was deleted.
        assert {reason for reason, count in status.drops.items() if count} - {"server-gone"} == {"too-big"}
        total = (await plane.counters())[services[0]].total
        assert total.packets_in > 0 and total.packets_out == 0, "answers bypass the gateway"


@pytest.mark.parametrize("lab", ["auto"], indirect=True)
async def test_bundles_that_cannot_get_checksums_are_dropped_and_counted(lab: Lab, tmp_path: Path) -> None:
    """The kernel cuts them behind the program, and would send each segment with the whole bundle's checksum."""
    tunnel = Tunnel(TunnelType.GRE, 0, TunnelChecksum.FULL)
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", replace(server(1, forward="tunnel"), tunnel=tunnel))
        with lab.connect() as sock:
            assert ask(sock) == "rs1"
            sock.sendall(bytes(50_000))

            async def counted() -> bool:
                return (await plane.status()).drops["bundle"] > 0

            await until(counted, "a bundle is counted")
