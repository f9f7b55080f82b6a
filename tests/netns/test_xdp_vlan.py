"""VLANs (802.1Q) with real traffic: clients behind a tag, servers behind others and behind none.

client 192.0.2.100 ── VLAN 10 ── front gw back ── 198.51.100.31 rs
rs30 203.0.113.31 ─── VLAN 30 ── front gw back ── VLAN 20 ── 198.51.100.131 rs20
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId
from tests.netns.cabled import Cabled, carries
from tests.netns.xdp_lab import PORT, VIP, VIP6

pytestmark = [pytest.mark.root, pytest.mark.vlan]
SIZE = 200_000
SERVERS = {
    VIP: {"rs": "198.51.100.31", "rs20": "198.51.100.131", "rs30": "203.0.113.31"},
    VIP6: {"rs": "2001:db8:b::31", "rs20": "2001:db8:c::31", "rs30": "2001:db8:d::31"},
}
GATEWAYS = {
    "rs": ("198.51.100.2", "2001:db8:b::2"),
    "rs20": ("198.51.100.130", "2001:db8:c::2"),
    "rs30": ("203.0.113.2", "2001:db8:d::2"),
}


@pytest.fixture(scope="module", params=["tc", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Cabled]:
    with Cabled(request.param) as lab:
        for name in ("rs20", "rs30"):
            lab.net.add(name)
        lab.vlan("client", "eth0", 10, "192.0.2.100/24", "2001:db8:f::100/64")
        lab.vlan("gw", "front", 10, "192.0.2.2/24", "2001:db8:f::2/64", f"{VIP}/32", f"{VIP6}/128")
        lab.addresses("rs", "eth0", "198.51.100.31/25", "2001:db8:b::31/64")
        lab.addresses("gw", "back", "198.51.100.2/25", "2001:db8:b::2/64")
        lab.vlan("rs", "eth0", 20, "198.51.100.131/25", "2001:db8:c::31/64", to="rs20")
        lab.vlan("gw", "back", 20, "198.51.100.130/25", "2001:db8:c::2/64")
        lab.vlan("client", "eth0", 30, "203.0.113.31/24", "2001:db8:d::31/64", to="rs30")
        lab.vlan("gw", "front", 30, "203.0.113.2/24", "2001:db8:d::2/64")
        for name, gateways in GATEWAYS.items():
            lab.ip(name, *(f"route add default via {one}" for one in gateways))
        yield lab


async def test_connections(lab: Cabled, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        status = await plane.status()
        at_xdp = {"front", "back"} if lab.attach == "xdp" else set()
        assert {one.name for one in status.interfaces if one.mode == "xdp"} == at_xdp
        await carries_all(lab, plane, VIP)
        await carries_all(lab, plane, VIP6)
        drops = (await plane.status()).drops
        assert drops == dict.fromkeys(drops, 0)


async def carries_all(lab: Cabled, plane: XdpPlane, vip: str) -> None:
    """One connection to each server carries data both ways."""
    service_id = ServiceId.of("tcp", vip, PORT)
    await plane.apply(PutService(ProgrammedService(service_id, "rr")))
    listeners = {}
    for name, address in SERVERS[vip].items():
        server_id = ServerId(ip_address(address), PORT + 1)
        await plane.apply(PutServer(service_id, ProgrammedServer(server_id, 1, ForwardingMethod.MASQUERADE)))
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        at = (address, PORT + 1)
        listeners[name] = lab.net.call(name, lambda at=at, family=family: socket.create_server(at, family=family))
    reached = set()
    for _ in listeners:
        with lab.net.call("client", lambda: socket.create_connection((vip, PORT), timeout=10.0)) as client:
            server, name = accepted(listeners)
            with server:
                carries(client, server, SIZE)
                carries(server, client, SIZE)
            reached.add(name)
    for one in listeners.values():
        one.close()
    assert reached == set(listeners)


def accepted(listeners: dict[str, socket.socket]) -> tuple[socket.socket, str]:
    """The handshake is over, so one of them has a connection."""
    readable, _, _ = select.select(listeners.values(), [], [], 10.0)
    (name,) = (name for name, one in listeners.items() if one in readable)
    server = listeners[name].accept()[0]
    server.settimeout(10.0)
    return server, name
