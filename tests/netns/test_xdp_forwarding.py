"""Real TCP and UDP through the real data plane: masquerade, direct, tunnel; schedulers; counters."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lbnode.dataplane.base import DeleteServer, DeleteService, PutServer, PutService
from lbnode.model import ProgrammedService, ServerId, ServiceId
from tests.listed import listed
from tests.netns.xdp_lab import (
    AT_TC,
    CLIENT,
    ECHO,
    HTTP,
    PORT,
    VIP,
    Lab,
    ask,
    download,
    programmed,
    server,
    server_address,
    until,
    upload,
)

pytestmark = pytest.mark.root
IP_RECVERR = 11  # <linux/in.h>


@pytest.fixture(params=["auto", "xdp", "tc"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(servers=2, xdp=request.param == "xdp", attach=request.param) as lab:
        yield lab


@pytest.fixture
def tcx_lab() -> Iterator[Lab]:
    with Lab(servers=3) as lab:
        yield lab


async def test_masquerade_carries_tcp_and_udp_both_ways(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1), server(2))
        names = []
        for _ in range(4):
            with lab.connect() as sock:
                names.append(ask(sock))
        assert Counter(names) == {"rs1": 2, "rs2": 2}
        with lab.connect() as sock:
            assert download(sock, 3_000_000) == 3_000_000
            upload(sock, 1_000_000)
        with lab.udp() as sock:
            sock.send(b"one\n")
            first = sock.recv(100)
            sock.send(b"two\n")
            assert sock.recv(100).split()[0] == first.split()[0], "a UDP flow stays with its server"
        modes = {one.name: one for one in (await plane.status()).interfaces}
        assert modes["front"].mode == modes["back"].mode == (AT_TC if lab.plane_attach == "auto" else lab.plane_attach)
        assert modes["front"].reason and not modes["front"].error


async def test_server_sees_the_client_and_client_sees_the_vip(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with tcx_lab.connect() as sock:
            ask(sock)
            assert sock.getpeername() == (VIP, PORT)
            seen = tcx_lab.net.run("rs1", "ss", "-Htn", "state", "established")
            assert f"{CLIENT}:{sock.getsockname()[1]}" in seen
            assert f"{server_address(1)}:{PORT}" in seen


async def test_weights_share_connections(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "wrr", server(1, weight=3), server(2, weight=1))
        names: Counter[str] = Counter()
        for _ in range(40):
            with tcx_lab.connect() as sock:
                names[ask(sock)] += 1
        assert names == {"rs1": 30, "rs2": 10}


async def test_wlc_prefers_the_server_with_fewer_connections(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "wlc", server(1), server(2))
        with contextlib.ExitStack() as stack:
            names = []
            for _ in range(6):
                sock = stack.enter_context(tcx_lab.connect())
                names.append(ask(sock))
            assert Counter(names) == {"rs1": 3, "rs2": 3}


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
async def test_source_hashing_keeps_a_client_on_its_server(tcx_lab: Lab, tmp_path: Path, scheduler: str) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, scheduler, server(1), server(2), server(3))
        names = set()
        for _ in range(8):
            with tcx_lab.connect() as sock:
                names.add(ask(sock))
        assert len(names) == 1


async def test_weight_zero_keeps_established_connections(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with tcx_lab.connect() as old:
            assert ask(old) == "rs1"
            await plane.apply(PutServer(HTTP, server(2)))
            await plane.apply(PutServer(HTTP, server(1, weight=0)))
            for _ in range(4):
                with tcx_lab.connect() as sock:
                    assert ask(sock) == "rs2"
            assert ask(old, "still here") == "rs1"


async def test_removed_server_gets_no_new_connections(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1), server(2))
        await plane.apply(DeleteServer(HTTP, server(1).id))
        for _ in range(4):
            with tcx_lab.connect() as sock:
                assert ask(sock) == "rs2"
        await plane.apply(PutServer(HTTP, server(3)))
        names = set()
        for _ in range(4):
            with tcx_lab.connect() as sock:
                names.add(ask(sock))
        assert names == {"rs2", "rs3"}, "a new server must not inherit what belonged to the removed one"


async def test_deleted_service_leaves_its_address_to_the_kernel(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with tcx_lab.connect() as sock:
            ask(sock)
        await plane.apply(DeleteService(HTTP))
        with pytest.raises(ConnectionRefusedError):
            tcx_lab.connect()
        with tcx_lab.udp() as sock:
            sock.send(b"the other service works\n")
            assert sock.recv(100).startswith(b"rs1")


async def test_two_services_do_not_disturb_each_other(tcx_lab: Lab, tmp_path: Path) -> None:
    other = ServiceId.of("tcp", VIP, 8001)
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        await plane.apply(PutService(ProgrammedService(other, "rr")))
        await plane.apply(PutServer(other, server(2)))
        with tcx_lab.connect(port=8001) as sock:
            assert ask(sock) == "rs2"
        with tcx_lab.connect() as sock:
            assert ask(sock) == "rs1"


async def test_ping_of_the_virtual_address_is_answered(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        lab.net.run("client", "ping", "-c2", "-i0.1", "-W2", VIP)


async def test_icmp_error_of_a_server_reaches_the_client_translated(lab: Lab, tmp_path: Path) -> None:
    """Nothing listens on the server's port: its port-unreachable names the inner addresses and must be rewritten."""
    async with lab.plane(tmp_path) as plane:
        await plane.apply(PutService(ProgrammedService(ECHO, "rr")))
        await plane.apply(PutServer(ECHO, server(1, port=9)))
        with lab.udp() as sock:
            sock.send(b"anybody there?\n")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(100)


async def test_first_packet_is_not_lost_while_the_neighbour_is_unknown(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1), server(2))
        for _ in range(4):
            lab.net.run("gw", "ip", "neigh", "flush", "all")
            with lab.udp() as sock:  # UDP is not sent again by anybody
                sock.send(b"first\n")
                assert sock.recv(100).endswith(b"first\n")


async def test_counters_equal_the_real_traffic(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1), server(2))
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                sock = stack.enter_context(lab.udp())
                for _ in range(5):
                    sock.send(b"0123456789")
                    sock.recv(100)
            counters = await plane.counters()
            one = counters[ECHO].servers[server(1).id]
            # UDP payload 10 (answer: + "rs1 "), UDP header 8, IPv4 header 20: bytes are those of IP packets, as in IPVS
            assert (one.connections, one.packets_in, one.packets_out) == (2, 10, 10)
            assert (one.bytes_in, one.bytes_out) == (10 * 38, 10 * 42)
            total = counters[ECHO].total
            assert (total.connections, total.packets_in, total.packets_out) == (4, 20, 20)
            assert (total.bytes_in, total.bytes_out) == (20 * 38, 20 * 42)
            assert counters[HTTP].total.packets_in == 0
        with lab.connect() as sock:
            ask(sock)
            tcp = (await plane.counters())[HTTP]
            assert (tcp.total.connections, tcp.total.active) == (1, 1)
            assert sum(c.active for c in tcp.servers.values()) == 1
            sock.shutdown(socket.SHUT_RDWR)

        async def closed() -> bool:
            total = (await plane.counters())[HTTP].total
            return total.active == 0 and total.inactive == 1

        await until(closed, "the closed connection counts as inactive")
        await plane.zero(ECHO)
        after = (await plane.counters())[ECHO]
        assert after.total.packets_in == 0 and after.servers[server(1).id].packets_out == 0
        assert after.total.inactive == 4, "zeroing keeps the gauges"


async def test_connections_are_listed_with_both_ends_and_state(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with tcx_lab.connect() as sock, tcx_lab.udp() as datagrams:
            ask(sock)
            datagrams.send(b"x")
            datagrams.recv(10)
            found = {one.protocol: one for one in await listed(plane)}
            tcp, udp = found["tcp"], found["udp"]  # type: ignore[index]
            assert len(found) == 2
            assert (str(tcp.client[0]), tcp.client[1]) == sock.getsockname()
            assert (str(tcp.virtual[0]), tcp.virtual[1]) == (VIP, PORT)
            assert (str(tcp.server[0]), tcp.server[1]) == (server_address(1), PORT)
            assert tcp.state == "ESTABLISHED" and 890 <= tcp.expires_s <= 900
            assert udp.state == "UDP" and 290 <= udp.expires_s <= 300


async def test_full_table_keeps_what_is_established_and_counts_what_it_refuses(tcx_lab: Lab, tmp_path: Path) -> None:
    async with tcx_lab.plane(tmp_path, connections=1024) as plane:
        await programmed(plane, "rr", server(1), server(2))
        flows = 2048

        def flood() -> None:
            """Each waits a moment for its answer: a flow that has one does not give way to a new one."""
            for port in range(20000, 20000 + flows):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                    one.bind((CLIENT, port))
                    one.sendto(b"x\n", (VIP, PORT))
                    one.settimeout(1.0 if port < 20400 else 0.001)  # the first ones certainly find room
                    with contextlib.suppress(TimeoutError):
                        one.recv(10)

        with tcx_lab.connect() as sock:
            name = ask(sock)
            tcx_lab.net.call("client", flood)
            assert ask(sock, "after the flood") == name
        status = await plane.status()
        assert status.connections_max == 1024
        assert 1000 <= status.connections <= 1024
        assert 900 <= status.drops["table-full"] <= flows - 1000
        assert {drop for drop, count in status.drops.items() if count} == {"table-full"}


async def test_time_to_live_that_runs_out_is_reported_to_the_client(lab: Lab, tmp_path: Path) -> None:
    """As traceroute sees the gateway: ICMP time exceeded (RFC 792) names the client's own packet."""
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with lab.udp() as sock:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            sock.send(b"x")
            with pytest.raises(OSError, match="No route to host"):
                sock.recv(100)
            _, ancillary, _, _ = sock.recvmsg(100, 200, socket.MSG_ERRQUEUE)
            error = ancillary[0][2]  # struct sock_extended_err, then the address of who reports
            assert error[4:7] == bytes([2, 11, 0]), "origin ICMP, type time exceeded, code in transit"
            assert socket.inet_ntoa(error[20:24]) in ("192.0.2.2", VIP)
        assert (await plane.status()).drops["ttl"] == 1


async def test_a_smaller_mtu_behind_the_gateway_is_reported_to_the_client(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        lab.net.run("gw", "ip", "link", "set", "back", "mtu", "1400")
        await programmed(plane, "rr", server(1))
        await until(lambda: plane.next_hop(server(1).id.address) is not None, "the next hop is known")
        with lab.connect() as sock:
            sock.settimeout(10)
            assert upload(sock, 100_000) == "rs1"
        cached = lab.net.run("client", "ip", "route", "get", VIP)
        assert "mtu 1400" in cached


class TestBesideTheClient:
    """Direct routing and tunnels: the servers hold the VIP themselves and answer the client without the gateway."""

    @pytest.fixture(params=["auto", "xdp", "tc"])
    def lab(self, request: pytest.FixtureRequest) -> Iterator[Lab]:
        with Lab(servers=2, xdp=request.param == "xdp", attach=request.param) as lab:
            for number in (1, 2):
                name = f"rs{number}"
                lab.net.plug(name, "front", f"192.0.2.{30 + number}/24", "sw", f"f-{name}", "front")
                for key in ("all.arp_ignore=1", "all.arp_announce=2", "front.rp_filter=0", "lo.rp_filter=0"):
                    lab.net.run(name, "sysctl", "-qw", f"net.ipv4.conf.{key}")
                lab.net.run(name, "ip", "addr", "add", f"{VIP}/32", "dev", "lo")
                if lab.xdp:
                    lab.net.run(name, "ethtool", "-K", "front", "tx", "off")
            yield lab

    async def test_direct_routing(self, lab: Lab, tmp_path: Path) -> None:
        async with lab.plane(tmp_path) as plane:
            servers = [
                replace(server(n, forward="direct"), id=ServerId.parse(f"192.0.2.{30 + n}:{PORT}")) for n in (1, 2)
            ]
            await programmed(plane, "rr", *servers)
            names = []
            for _ in range(4):
                with lab.connect() as sock:
                    names.append(upload(sock, 100_000))
                    assert download(sock, 300_000) == 300_000
            assert Counter(names) == {"rs1": 2, "rs2": 2}
            with lab.udp() as sock:
                sock.send(b"x")
                assert sock.recv(100)
            total = (await plane.counters())[HTTP].total
            assert total.packets_in > 0 and total.packets_out == 0, "answers bypass the gateway"

    async def test_ipip_tunnel(self, lab: Lab, tmp_path: Path) -> None:
        for number in (1, 2):
            lab.attach(f"rs{number}", "eth0", "decap")
        async with lab.plane(tmp_path) as plane:
            await programmed(plane, "rr", server(1, forward="tunnel"), server(2, forward="tunnel"))
            names = []
            for _ in range(4):
                with lab.connect() as sock:
                    names.append(upload(sock, 100_000))
                    assert download(sock, 300_000) == 300_000
            assert Counter(names) == {"rs1": 2, "rs2": 2}
            with lab.udp() as sock:
                sock.send(b"x")
                assert sock.recv(100)
