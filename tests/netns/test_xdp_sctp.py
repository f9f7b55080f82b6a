"""SCTP between real sockets (RFC 9260): what the kernel's own SCTP says of the packets that the data plane made."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from lbnode.connection_filter import ConnectionFilter
from lbnode.dataplane.base import DeleteService, PutServer, PutService
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId
from tests.listed import listed
from tests.netns.cabled import Cabled, carries
from tests.netns.xdp_lab import CLIENT, CLIENT6, PORT, VIP, VIP6, until

pytestmark = [pytest.mark.root, pytest.mark.sctp]
CLIENTS = {VIP: CLIENT, VIP6: CLIENT6}
SERVERS = {VIP: "198.51.100.31", VIP6: "2001:db8:b::31"}
SERVER_PORT = 5000  # another port: the CRC changes
SIZES = 10, 100_000  # of messages: in one chunk, and in bundles of packets, which only a wire takes apart
PATIENCE_S = 10.0


@pytest.fixture(scope="module", params=["tc", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Cabled]:
    with Cabled(request.param) as lab:
        lab.addresses("client", "eth0", "192.0.2.100/24", "2001:db8:f::100/64")
        lab.addresses("gw", "front", "192.0.2.2/24", "2001:db8:f::2/64", f"{VIP}/32", f"{VIP6}/128")
        lab.addresses("gw", "back", "198.51.100.2/24", "2001:db8:b::2/64")
        lab.addresses("rs", "eth0", "198.51.100.31/24", "2001:db8:b::31/64")
        # Packets leave by this interface with their CRC, as by most NICs; by the other one without.
        lab.net.run("gw", "ethtool", "-K", "back", "tx", "off")
        # Direct routing: the server has the VIP, and its answers another way.
        lab.net.veth("rs", "side", "203.0.113.31/24", "client", "side", "203.0.113.100/24")
        lab.addresses("rs", "lo", f"{VIP}/32")
        lab.ip("rs", "route add default via 198.51.100.2", "route add default via 2001:db8:b::2",
               f"rule add from {VIP} lookup 7", f"route add {CLIENT}/32 via 203.0.113.100 table 7")  # fmt: skip
        for family in ("-4", "-6"):  # what is in this table comes first
            lab.net.run("rs", "ip", family, "rule", "add", "lookup", "6", "pref", "1")
        for name in ("client", "rs"):
            lab.net.run(name, "sysctl", "-qw", "net.sctp.rto_initial=200", "net.sctp.rto_min=200")  # ms
        yield lab


def sctp(lab: Cabled, name: str, address: str, port: int = 0) -> socket.socket:
    """Bound, so that the other end is told of one address alone: others would not pass the gateway."""

    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        sock.bind((address, port))
        sock.settimeout(PATIENCE_S)
        return sock

    return lab.net.call(name, make)


async def test_associations(lab: Cabled, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await an_association(lab, plane, VIP, "masquerade")
        await an_association(lab, plane, VIP6, "masquerade")
        await an_association(lab, plane, VIP, "direct")
        drops = (await plane.status()).drops
        assert drops == dict.fromkeys(drops, 0)


async def an_association(lab: Cabled, plane: XdpPlane, vip: str, forward: str) -> None:
    """Is set up, carries messages both ways, and is shut down."""
    at = (SERVERS[vip], SERVER_PORT) if forward == "masquerade" else (vip, PORT)
    text, server_text = (f"[{one}]" if ":" in one else one for one in (vip, SERVERS[vip]))
    service_id, server_id = ServiceId.parse(f"sctp:{text}:{PORT}"), ServerId.parse(f"{server_text}:{at[1]}")
    await plane.apply(PutService(ProgrammedService(service_id, "rr")))
    await plane.apply(PutServer(service_id, ProgrammedServer(server_id, 1, ForwardingMethod(forward))))

    async def is_in(state: str) -> bool:
        found = await listed(plane, ConnectionFilter(client=ip_network(CLIENTS[vip]), service=service_id))
        return [one.state for one in found] == [state]

    with contextlib.ExitStack() as stack:
        client = stack.enter_context(sctp(lab, "client", CLIENTS[vip]))
        listener = stack.enter_context(sctp(lab, "rs", *at))
        listener.listen()
        lab.ip("rs", f"route add blackhole {CLIENTS[vip]} table 6")
        client.setblocking(False)
        client.connect_ex((vip, PORT))
        await until(lambda: is_in("SYN_RECV"), "INIT opens a connection")
        lab.ip("rs", f"route del blackhole {CLIENTS[vip]} table 6")
        server = stack.enter_context(listener.accept()[0])
        for end in (client, server):
            end.settimeout(PATIENCE_S)
        await until(lambda: is_in("ESTABLISHED"), "COOKIE ECHO has come")
        for size in SIZES:
            carries(client, server, size)
            carries(server, client, size)
        client.close()
        assert server.recv(1) == b""
        await until(lambda: is_in("CLOSE"), "SHUTDOWN COMPLETE ends it")
    await plane.apply(DeleteService(service_id))
