"""Nodes on one switch for the election's tests: real supervisors and election processes, watched from outside."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

from lbnode.dataplane.xdp.maps import unmount_bpffs
from lbnode.election.messages import Setup, encode_line, groups_message, setup_message
from lbnode.election.neighbour import answered
from lbnode.election.netlink import Rtnetlink, open_monitor
from lbnode.election.placement import InterfaceAddress
from lbnode.lab.netns import Net, ip
from lbnode.model import Address, VipAddress, VipGroup

VIP = "192.0.2.10"
VIP6 = "2001:db8::10"
LINK_LOCAL_VIP = "fe80::10"
DEADLINE_S = 20.0
ROOT = Path(__file__).parents[2]
GROUP = VipGroup("front", 51, (VipAddress(ip_address(VIP), 24),), {"a": 250, "b": 150})
BOTH = replace(
    GROUP, addresses=(*GROUP.addresses, *(VipAddress(ip_address(vip), 64) for vip in (LINK_LOCAL_VIP, VIP6)))
)
ALONE = replace(GROUP, priorities={"a": 250})
RTM_DELADDR = 21
ETH_P_ALL, SO_RCVBUFFORCE = 3, 33
KEEPALIVED_CONFIG = """
global_defs {{
    vrrp_version {version}
    vrrp_rt_priority 10
    vrrp_rlimit_rttime 1000000
}}
vrrp_instance front {{
    state BACKUP
    interface front
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    {more}
    virtual_ipaddress {{
        {vip}/24
    }}
}}
"""
KEEPALIVED_CONFIG_BOTH = (
    KEEPALIVED_CONFIG
    + """
vrrp_instance front6 {{
    state BACKUP
    interface front
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        {link_local_vip}/64
        {vip6}/64
    }}
}}
vrrp_sync_group both {{
    group {{
        front
        front6
    }}
}}
"""
)


def until(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds; fails naming `what` after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.005)


class Daemon:
    """A running tests.netns.election_node."""

    def __init__(self, lab: Lab, name: str, *groups: VipGroup, setup: Setup | None = None) -> None:
        self.name = name
        self.messages: list[dict[str, Any]] = []
        self.process = lab.net.popen(
            name,
            *(sys.executable, "-m", "tests.netns.election_node", name, str(lab.run_dir(name))),
            *([json.dumps(setup_message(setup)["setup"])] if setup else []),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._read, daemon=True).start()
        if groups:
            self.configure(*groups)

    @property
    def reason(self) -> str:
        return self.roles[-1]["reason"] if self.roles else ""

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.messages.append(json.loads(line))

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode_line(message))
        self.process.stdin.flush()

    def configure(self, *groups: VipGroup, maintenance: bool = False) -> None:
        self._write({**groups_message(groups), "maintenance": maintenance})

    def handover(self, group: str, to: str = "") -> None:
        self._write({"handover": group, "to": to})

    def tell(self, message: dict[str, Any]) -> None:
        """What the shared store says."""
        self._write(message)

    def asked(self, what: str) -> list[Any]:
        """What the election process has asked of the shared store."""
        return [m["asked"][what] for m in self.messages if "asked" in m and what in m["asked"]]

    @property
    def roles(self) -> list[dict[str, Any]]:
        return [message["role"] for message in self.messages if "role" in message]

    @property
    def events(self) -> list[str]:
        return [message["event"] for message in self.messages if "event" in message]

    @property
    def state(self) -> str:
        return self.roles[-1]["state"] if self.roles else "none"

    @property
    def problem(self) -> str:
        return self.roles[-1]["problem"] if self.roles else ""

    def driver_pid(self) -> int:
        """Of the election process; 0 = there is none."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, check=False)
        return int((found.stdout.split() or [0])[0])

    def kill(self, number: int) -> None:
        """Send a signal and wait for the end of the daemon (not of its election process)."""
        self.process.send_signal(number)
        self.process.wait(DEADLINE_S)


class Keepalived:
    """A running keepalived. `both`: IPv4 and IPv6 in a sync group. `more`: lines of the IPv4 instance."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        path: Path,
        priority: int,
        interval: float = 0.1,
        *,
        version: int = 3,
        both: bool = False,
        more: str = "",
    ) -> None:
        self.log = path / "log"
        config = path / "keepalived.conf"
        text = KEEPALIVED_CONFIG_BOTH if both else KEEPALIVED_CONFIG
        vips = {"vip": VIP, "vip6": VIP6, "link_local_vip": LINK_LOCAL_VIP}
        config.write_text(text.format(priority=priority, interval=interval, version=version, more=more, **vips))
        self._command = ["keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp", "-f", str(config)]
        self._pid_files = path / "pid", path / "vrrp.pid"
        self._command += ["-p", str(self._pid_files[0]), "-r", str(self._pid_files[1])]
        self._lab, self._name = lab, name
        self.process = self._run()

    def start(self) -> None:
        """Again, if it has ended."""
        if self.process.poll() is not None:
            self.process = self._run()

    def _run(self) -> subprocess.Popen[Any]:
        for (
            left
        ) in self._pid_files:  # by one that was killed: while its child is a zombie, the next one would not start
            left.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            return self._lab.net.popen(self._name, *self._command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def says(self, text: str) -> bool:
        return text in self.log.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


class Lab:
    """Namespaces a and b (192.0.2.1, .2) and a client (192.0.2.100) on the switch sw; in 2001:db8::/64 the same."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self._directory = Path(tempfile.mkdtemp(prefix="lbt-"))
        net.at_close(lambda: shutil.rmtree(self._directory))
        net.add("sw")
        net.bridge("sw")
        self._netlink: dict[str, Rtnetlink] = {}
        for name, address in (("a", "192.0.2.1/24"), ("b", "192.0.2.2/24"), ("client", "192.0.2.100/24")):
            net.add(name)
            for key in ("accept_dad", "dad_transmits"):  # addresses are usable at once
                net.run(name, "sysctl", "-qw", f"net.ipv6.conf.default.{key}=0")
            net.plug(name, "front", address, "sw", f"to-{name}")
            host = address.removeprefix("192.0.2.").removesuffix("/24")
            net.run(name, "ip", "addr", "add", f"2001:db8::{host}/64", "dev", "front")
            self._netlink[name] = net.call(name, Rtnetlink)

    def run_dir(self, name: str) -> Path:
        """Of the daemon on this node, the same one each time; what is pinned there outlives the daemon."""
        path = self._directory / name
        if not path.exists():
            path.mkdir()
            self.net.at_close(lambda: unmount_bpffs(path / "lease"))
        return path

    def daemon(self, name: str, *groups: VipGroup, setup: Setup | None = None) -> Daemon:
        return Daemon(self, name, *groups, setup=setup)

    def pair(self) -> tuple[Daemon, Daemon]:
        """a Active, b Backup."""
        a = self.daemon("a", GROUP)
        until(lambda: self.holds("a"), "a becomes active while alone")
        b = self.daemon("b", GROUP)
        until(lambda: b.state == "backup" and b.roles[-1]["active_address"] == "192.0.2.1", "b follows a")
        return a, b

    def addresses(self, name: str) -> list[InterfaceAddress]:
        return self._netlink[name].addresses()

    def holds(self, name: str, address: str = VIP) -> bool:
        return any(str(entry.address) == address for entry in self.addresses(name))

    def mac(self, name: str, interface: str = "front") -> str:
        links = self._netlink[name].links().values()
        return next(link.mac.hex(":") for link in links if link.name == interface)

    def isolate(self, name: str) -> None:
        """Silent isolation: the switch forwards nothing, carrier stays."""
        ip("-n", self.net.ns("sw"), "link", "set", f"to-{name}", "nomaster")

    def cut_multicast(self) -> None:
        """The switch forwards no multicast any more; unicast and broadcast it does."""
        for port in ("to-a", "to-b"):
            ip("-n", self.net.ns("sw"), "link", "set", port, "type", "bridge_slave", "mcast_flood", "off")

    def deafen(self, name: str) -> None:
        """The switch forwards nothing to this node any more, but everything from it."""
        flags = [("learning", "off"), ("flood", "off"), ("mcast_flood", "off"), ("bcast_flood", "off")]
        arguments = [word for flag in flags for word in flag]
        ip("-n", self.net.ns("sw"), "link", "set", f"to-{name}", "type", "bridge_slave", *arguments, "fdb_flush")

    def heal(self, name: str) -> None:
        ip("-n", self.net.ns("sw"), "link", "set", f"to-{name}", "master", "br0")

    def client_reaches(self, name: str, address: str = VIP) -> bool:
        """The client's packets to the VIP arrive, and at this node."""
        try:
            self.net.run("client", "ping", "-c1", "-W1", address)
        except RuntimeError:
            return False
        return self.mac(name) in self.net.run("client", "ip", "neigh", "show", address)

    def send_raw(self, packets: list[bytes]) -> None:
        """IP protocol 112 payloads by multicast from the client, TTL 255."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, 112) as raw:
                raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
                raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, IPv4Address("192.0.2.100").packed)
                for packet in packets:
                    raw.sendto(packet, ("224.0.0.18", 0))

        self.net.call("client", send)

    def count_removals(self, name: str) -> Callable[[], int]:
        """From now on, how many addresses the kernel of this node removed."""
        monitor = self.net.call(name, open_monitor)
        count = 0

        def removals() -> int:
            nonlocal count
            with contextlib.suppress(BlockingIOError):
                while True:
                    count += int.from_bytes(monitor.recv(1 << 16)[4:6], sys.byteorder) == RTM_DELADDR
            return count

        return removals

    def multicast_heard(self, name: str) -> Callable[[], int]:
        """From now on, how many advertisements by multicast have reached this node."""

        def listen() -> socket.socket:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 112)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"front\0")
            return raw

        raw, count = self.net.call(name, listen), 0

        def heard() -> int:
            nonlocal count
            with contextlib.suppress(BlockingIOError):
                while True:
                    count += ip_address(raw.recv(2048)[16:20]).is_multicast
            return count

        return heard

    def heartbeats(self, name: str) -> int:
        """How many UDP datagrams this node has received."""
        header, values = (
            line.split() for line in self.net.run(name, "cat", "/proc/net/snmp").splitlines() if line.startswith("Udp:")
        )
        return int(values[header.index("InDatagrams")])

    def silent_for(self, heard: Callable[[], int], seconds: float) -> bool:
        """Nothing more is heard for so long."""
        before = heard()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if heard() != before:
                return False
            time.sleep(0.01)
        return True

    def count_announcements(self) -> Callable[[], set[Address]]:
        """From now on, the addresses whose announcements the client has heard."""

        def listen() -> socket.socket:
            packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(ETH_P_ALL))
            packets.bind(("front", 0))
            packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
            packets.setblocking(False)
            return packets

        packets, seen = self.net.call("client", listen), set[Address]()

        def heard() -> set[Address]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    if (told := answered(packets.recv(1 << 16))) is not None:
                        seen.add(told[0])
            return seen

        return heard

    @contextlib.contextmanager
    def never_both(self) -> Iterator[None]:
        """Fails at the end if both nodes held the VIP at one instant meanwhile."""
        stop, seen, polls = threading.Event(), [0], [0]
        probes = [self.net.call(name, Rtnetlink) for name in ("a", "b")]

        def held(probe: Rtnetlink) -> bool:
            return any(str(entry.address) == VIP for entry in probe.addresses())

        def watch() -> None:
            while not stop.is_set():
                polls[0] += 1
                # a before and after b: a move between two looks is no overlap
                if held(probes[0]) and held(probes[1]) and held(probes[0]):
                    seen[0] += 1
                stop.wait(0.0005)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert polls[0] > 0
        assert seen[0] == 0, f"both nodes held {VIP} in {seen[0]} of {polls[0]} looks"
