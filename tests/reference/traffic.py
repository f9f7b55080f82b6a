"""The cases of ipvsadm/traffic.json: what lbadm shows while connections of every kind pass the gateway.

The lab, in network namespaces: client 172.16.0.100 and the servers of direct routing and tunnels 172.16.0.11, .12 in
front of the gateway 172.16.0.1, which holds 172.16.0.50; the masqueraded servers 10.1.0.11, .12 behind it. Firewall
mark 1 stands for 10.99.0.0/24.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from lbnode.lab.netns import Net
from tests.netns.xdp_lab import thread_in_netns
from tests.reference.cases import FOLDER, Outcome, load
from tests.reference.host import TrafficHost
from tests.reference.lbadm import target
from tests.reference.shapes import compare

TRAFFIC = FOLDER / "ipvsadm" / "traffic.json"
VIP, VIP6 = "172.16.0.50", "2001:db8:1::50"
GATEWAY = "gw"
MASQUERADED = {"rs1": ("10.1.0.11", "2001:db8:2::11"), "rs2": ("10.1.0.12", "2001:db8:2::12")}
IN_FRONT = {"rd1": "172.16.0.11", "rd2": "172.16.0.12"}
SETUP = """\
-A -t 172.16.0.50:80 -s rr
-a -t 172.16.0.50:80 -r 10.1.0.11:80 -m
-a -t 172.16.0.50:80 -r 10.1.0.12:80 -m -w 2
-A -t 172.16.0.50:81 -s rr
-a -t 172.16.0.50:81 -r 172.16.0.11 -g
-a -t 172.16.0.50:81 -r 172.16.0.12 -g
-A -t 172.16.0.50:82 -s rr -p 60 -M 255.255.255.0
-a -t 172.16.0.50:82 -r 10.1.0.11:80 -m
-a -t 172.16.0.50:82 -r 10.1.0.12:80 -m
-A -t 172.16.0.50:83 -s rr
-a -t 172.16.0.50:83 -r 172.16.0.11 -i
-a -t 172.16.0.50:83 -r 172.16.0.12 -i
-A -t 172.16.0.50:84 -s rr
-a -t 172.16.0.50:84 -r 10.1.0.99:80 -m
-A -u 172.16.0.50:53 -s rr
-a -u 172.16.0.50:53 -r 10.1.0.11 -m
-a -u 172.16.0.50:53 -r 10.1.0.12 -m
-A -u 172.16.0.50:54 -s rr -o
-a -u 172.16.0.50:54 -r 10.1.0.11:53 -m
-A -u 172.16.0.50:5060 -s rr -p 60 --pe sip
-a -u 172.16.0.50:5060 -r 10.1.0.11 -m
-A --sctp-service 172.16.0.50:9999 -s rr
-a --sctp-service 172.16.0.50:9999 -r 10.1.0.11 -m
-A -t [2001:db8:1::50]:80 -s rr
-a -t [2001:db8:1::50]:80 -r [2001:db8:2::11]:80 -m
-a -t [2001:db8:1::50]:80 -r [2001:db8:2::12]:80 -m
-A -f 1 -s rr -p 50
-a -f 1 -r 10.1.0.11 -m
-a -f 1 -r 10.1.0.12 -m
"""
SCTP = 132  # IPPROTO_SCTP
PATIENCE_S = 10.0
# XDP has no persistence engine, and firewall marks only behind a program of the user's that sets them. Tunnel devices,
# for the servers: not every kernel has them.
NOT_ON_XDP = ("--pe", "5060", "-f 1")


# --- the lab -------------------------------------------------------------------------------------------------


class Lab:
    """`with Lab() as lab: ...; lab.talk()` leaves connections of every kind; without `everything` those of XDP."""

    def __init__(self, *, everything: bool) -> None:
        self._everything = everything
        self.net = Net(f"lbt-traffic{os.getpid()}")
        self._open = contextlib.ExitStack()
        self._listeners: dict[tuple[str, int], list[socket.socket]] = {}

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.net.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.net.close()

    def _build(self) -> None:
        net = self.net
        net.add("sw")
        for bridge in ("front", "back"):
            net.bridge("sw", bridge)
        net.add(GATEWAY, forward=True)
        net.plug(GATEWAY, "front", "172.16.0.1/24", "sw", "f-gw", "front")
        net.plug(GATEWAY, "back", "10.1.0.254/24", "sw", "b-gw", "back")
        addresses = (("front", f"{VIP}/32"), ("front", "2001:db8:1::1/64"), ("front", f"{VIP6}/128"))
        for interface, address in (*addresses, ("back", "2001:db8:2::254/64")):
            net.address(GATEWAY, interface, address)
        if self._everything:
            self._mark()
        net.add("client")
        net.plug("client", "eth0", "172.16.0.100/24", "sw", "f-client", "front")
        net.address("client", "eth0", "2001:db8:1::100/64")
        net.run("client", "ip", "route", "add", "10.99.0.0/24", "via", "172.16.0.1")
        for name, (address, address6) in MASQUERADED.items():
            net.add(name)
            net.plug(name, "eth0", f"{address}/24", "sw", f"b-{name}", "back")
            net.address(name, "eth0", f"{address6}/64")
            net.run(name, "ip", "route", "add", "default", "via", "10.1.0.254")
            net.run(name, "ip", "route", "add", "default", "via", "2001:db8:2::254")
        for name, address in IN_FRONT.items():
            net.add(name)
            net.run(name, "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
            net.plug(name, "eth0", f"{address}/24", "sw", f"f-{name}", "front")
            net.address(name, "lo", f"{VIP}/32")
            if self._everything:
                net.run(name, "ip", "link", "add", "tun", "type", "ipip", "local", address, "remote", "any")
                net.run(name, "ip", "link", "set", "tun", "up")
                net.run(name, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.tun.rp_filter=0")
        for name in MASQUERADED:
            self._listen(name, 80)
        for name in IN_FRONT:
            self._listen(name, 81)
            self._listen(name, 83)

    def _mark(self) -> None:
        run = self.net.run
        run(GATEWAY, "ip", "route", "add", "local", "10.99.0.0/24", "dev", "lo")
        run(GATEWAY, "tc", "qdisc", "add", "dev", "front", "clsact")
        marked = ("protocol", "ip", "u32", "match", "ip", "dst", "10.99.0.0/24", "action", "skbedit", "mark", "1")
        run(GATEWAY, "tc", "filter", "add", "dev", "front", "ingress", *marked)

    def _listen(self, name: str, port: int) -> None:
        def make() -> socket.socket:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)

        self._listeners.setdefault((name[:2], port), []).append(self._open.enter_context(self.net.call(name, make)))

    # --- traffic ---------------------------------------------------------------------------------------------

    def talk(self) -> None:
        for port, servers, closed, held in ((80, ("rs", 80), 5, 3), (81, ("rd", 81), 4, 2), (82, ("rs", 80), 3, 1)):
            self._connections(VIP, port, servers, closed, held)
        self._connections(VIP6, 80, ("rs", 80), 4, 1)
        for port in (53, 53):
            self._datagram(port, {"rs1": 53, "rs2": 53}, b"question")
        self._datagram(54, {"rs1": 53}, b"question", answered=False)
        self._association()
        if not self._everything:
            return
        self._connections(VIP, 83, ("rd", 83), 4, 0)
        for last in (1, 2, 3, 4):
            self._connections(f"10.99.0.{last}", 80, ("rs", 80), 1, 0)
        self._connections("10.99.0.9", 80, ("rs", 80), 0, 1)
        call = (
            b"OPTIONS sip:a@example SIP/2.0\r\nCall-ID: 3848276298220188511@client.example\r\nContent-Length: 0\r\n\r\n"
        )
        self._datagram(5060, {"rs1": 5060}, call)
        self._association()

    def _connections(self, address: str, port: int, servers: tuple[str, int], closed: int, held: int) -> None:
        for number in range(closed + held):
            client, server = self._connect(address, port, servers)
            client.sendall(b"ping")
            assert server.recv(10) == b"ping"
            server.sendall(b"pong")
            assert client.recv(10) == b"pong"
            if number < closed:
                client.shutdown(socket.SHUT_WR)
                assert server.recv(10) == b""
                server.close()
                assert client.recv(10) == b""
                client.close()

    def _connect(self, address: str, port: int, servers: tuple[str, int]) -> tuple[socket.socket, socket.socket]:
        def make() -> socket.socket:
            return socket.create_connection((address, port), timeout=PATIENCE_S)

        client = self._open.enter_context(self.net.call("client", make))
        ready, _, _ = select.select(self._listeners[servers], [], [], PATIENCE_S)
        assert len(ready) == 1, f"{address}:{port}: no server has the connection"
        server = self._open.enter_context(ready[0].accept()[0])
        server.settimeout(PATIENCE_S)
        return client, server

    def _datagram(self, port: int, servers: Mapping[str, int], data: bytes, *, answered: bool = True) -> None:
        def bound(port: int) -> Callable[[], socket.socket]:
            def make() -> socket.socket:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.settimeout(PATIENCE_S)
                sock.bind(("", port))
                return sock

            return make

        with contextlib.ExitStack() as stack:
            listening = [stack.enter_context(self.net.call(name, bound(at))) for name, at in servers.items()]
            client = stack.enter_context(self.net.call("client", bound(0)))
            client.sendto(data, (VIP, port))
            ready, _, _ = select.select(listening, [], [], PATIENCE_S)
            assert len(ready) == 1, f"udp {port}: no server has the datagram"
            _, sender = ready[0].recvfrom(2000)
            if answered:
                ready[0].sendto(b"answer", sender)
                assert client.recv(100) == b"answer"

    def _association(self) -> None:
        """SCTP, where this kernel has it."""

        def listener() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP)
            sock.bind(("", 9999))
            sock.listen()
            return sock

        try:
            listening = self._open.enter_context(self.net.call("rs1", listener))
        except OSError:
            return

        def make() -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(PATIENCE_S), 0))
            sock.connect((VIP, 9999))
            return sock

        with self.net.call("client", make) as client:
            client.sendall(b"ping")
            with listening.accept()[0] as server:
                assert server.recv(10) == b"ping"


def run_all(plane: str) -> Sequence[Outcome]:
    """plane: of an lbnoded ("xdp", "ipvs"), or "direct". The cases follow each other: each finds what the last left."""
    everything = plane != "xdp"
    setup = [line for line in SETUP.splitlines() if everything or not any(word in line for word in NOT_ON_XDP)]
    with Lab(everything=everything) as lab, thread_in_netns(lab.net.ns(GATEWAY)), contextlib.ExitStack() as stack:
        lbadm = stack.enter_context(target(plane, TrafficHost, own_netns=False))
        done = lbadm.run({"cmd": "ipvsadm -R", "stdin": "\n".join(setup)})
        assert (done.rc, done.stderr) == (0, ""), done
        lab.talk()
        return [compare(name, case, lbadm.run, complete=everything) for name, case in load(TRAFFIC).items()]
