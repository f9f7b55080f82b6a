"""The compiled data plane on a bench: services by the product's own Tables, packets by BPF_PROG_TEST_RUN, time by hand.

The programs run inside a network namespace with two interfaces, because the kernel's route look-up that replies use
needs routes and neighbours:

    client 203.0.113.0/24 -- 192.0.2.254 -- [front 192.0.2.1]  gateway  [back 198.51.100.1] -- servers 198.51.100.11...
    client 2001:db8:c::/64 -- 2001:db8::fe -- [2001:db8::1]    gateway  [2001:db8:b::1]     -- servers 2001:db8:b::11...

Every packet that a program sends is checked before a test sees it: each checksum in it is summed up anew
(checksums.py), tunnels and quoted packets included.
"""

from __future__ import annotations

import asyncio
import ctypes
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, cast

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp import counts, layout, settings, syscall
from lbnode.dataplane.xdp.counts import Gauge
from lbnode.dataplane.xdp.exchange import Exchange
from lbnode.dataplane.xdp.layout import Event, Hop
from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.plane import OBJECT
from lbnode.dataplane.xdp.records import MergeResult, Record, merge_results, unpack_records
from lbnode.dataplane.xdp.tables import Tables
from lbnode.lab.netns import CLONE_NEWNET, Net
from lbnode.model import (
    IPIP,
    Address,
    Counters,
    ForwardingMethod,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    Timeouts,
    Tunnel,
)
from tests.packets.checksums import ones_complement, wrong_checksums

VIP = "192.0.2.10"
CLIENT = "203.0.113.5"
VIP6 = "2001:db8::10"
CLIENT6 = "2001:db8:c::5"
SERVER6 = "2001:db8:b::11"
GATEWAY = "192.0.2.1"  # the balancer's own address at the front
CLIENT_ROUTER_MAC = "02:00:00:00:0f:fe"
SERVER_MAC = "02:00:00:00:0b:01"
BUCKETS = 256  # 1024 connections
CHANGED = 4096
COOKIE_KEY = 0x0F0E0D0C0B0A09080706050403020100
MTU = 1500

MASQUERADE, DIRECT, TUNNEL = ForwardingMethod.MASQUERADE, ForwardingMethod.DIRECT, ForwardingMethod.TUNNEL
FULLNAT = ForwardingMethod.FULLNAT
LOCAL, LOCAL6 = "198.51.100.4", "2001:db8:b::4"  # what full NAT uses, unless a test names others

_libc = ctypes.CDLL(None, use_errno=True)
VERDICTS = {
    "xdp": {1: "drop", 2: "pass", 3: "send", 4: "send"},  # XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT
    "tc": {2: "drop", 0xFFFFFFFF: "pass", 7: "send"},  # TCX_DROP, TCX_NEXT, TCX_REDIRECT
}
HANDOVER = struct.pack("=I", 0x6C626E64)
HANDOVER_SIZE = 28


# --- the wire -------------------------------------------------------------------------------------------------------


class Wire:
    """The namespace that the programs run in."""

    def __init__(self, prefix: str) -> None:
        self.net = Net(prefix)
        try:
            self.namespace = self.net.add("gw", forward=True)
            self.net.add("far")
            for name, address, address6 in (
                ("front", f"{GATEWAY}/24", "2001:db8::1/64"),
                ("back", "198.51.100.1/24", "2001:db8:b::1/64"),
            ):
                self.net.veth("gw", name, address, "far", name, None)
                self.net.address("gw", name, address6)
            run = self.net.run
            run("gw", "ip", "neigh", "add", "192.0.2.254", "lladdr", CLIENT_ROUTER_MAC, "dev", "front")
            run("gw", "ip", "route", "add", "203.0.113.0/24", "via", "192.0.2.254")
            run("gw", "ip", "route", "add", "172.16.0.0/24", "via", "192.0.2.254")
            run("gw", "ip", "neigh", "add", "2001:db8::fe", "lladdr", CLIENT_ROUTER_MAC, "dev", "front")
            run("gw", "ip", "route", "add", "2001:db8:c::/64", "via", "2001:db8::fe")
            # .11 to .30 can be reached without a cached next hop too; further ones are on-link but resolve never
            for last in range(11, 31):
                for address in (f"198.51.100.{last}", f"2001:db8:b::{last}"):
                    run("gw", "ip", "neigh", "add", address, "lladdr", SERVER_MAC, "dev", "back")
            self.interfaces = {name: self._interface(name) for name in ("front", "back")}
        except BaseException:
            self.net.close()
            raise

    def _interface(self, name: str) -> tuple[int, str]:
        words = self.net.run("gw", "ip", "-o", "link", "show", "dev", name).split()
        return int(words[0].rstrip(":")), words[words.index("link/ether") + 1]

    def index(self, interface: str) -> int:
        return self.interfaces[interface][0]

    def mac(self, interface: str) -> str:
        return self.interfaces[interface][1]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """BPF_PROG_TEST_RUN looks interfaces up in the caller's network namespace."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{self.namespace}", "rb") as there:
            self._enter(there.fileno())
            try:
                yield
            finally:
                self._enter(home.fileno())

    @staticmethod
    def _enter(fd: int) -> None:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


class _Hops:
    """Stands where the rtnetlink follower stands in the product: next hops by hand."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.unresolved: set[Address] = set()
        self.own: set[Address] = set()
        self.mtu = MTU

    def watch(self, address: Address) -> None: ...

    def unwatch(self, address: Address) -> None: ...

    def source(self, address: Address) -> Address | None:
        if address in self.own:
            return address
        if address in self.unresolved:
            return None
        return ip_address("2001:db8:b::1" if address.version == 6 else "198.51.100.1")

    def get(self, address: Address) -> Hop | None:
        if address in self.unresolved | self.own:
            return None
        source = bytes.fromhex(self._wire.mac("back").replace(":", ""))
        target = bytes.fromhex(SERVER_MAC.replace(":", ""))
        return Hop(self._wire.index("back"), source, target, self.mtu)


# --- results --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Out:
    """What became of a packet. `frame` is the whole frame behind the program, without metadata in front of it."""

    verdict: str  # "send" | "pass" | "drop"
    frame: bytes
    handover: bool  # metadata for tc_behind_xdp stands in front of the frame
    reflected: bool  # XDP_TX

    @property
    def eth(self) -> Packet:
        return Ether(self.frame)

    @property
    def ip(self) -> Any:
        """The outermost IP packet."""
        frame = self.eth
        return frame[Dot1Q].payload if Dot1Q in frame else frame.payload


def ether(packet: Packet, source: str = "02:00:00:00:00:99", target: str = "02:00:00:00:00:98") -> bytes:
    return bytes(Ether(src=source, dst=target) / packet)


def ip(source: str, target: str, **fields: Any) -> Packet:
    """The header of the addresses' family."""
    return IPv6(src=source, dst=target, **fields) if ":" in target else IP(src=source, dst=target, **fields)


def tcp(
    port: int = 40000,
    flags: str = "S",
    *,
    client: str = "",
    vip: str = VIP,
    dport: int = 80,
    data: bytes = b"",
    **fields: Any,
) -> Packet:
    """A segment from the client to the service. `fields`: of the IP header."""
    head = ip(client or client_of(vip), vip, **fields)
    return head / TCP(sport=port, dport=dport, flags=flags, seq=1000) / Raw(data)


def udp(port: int = 40000, *, client: str = "", vip: str = VIP, dport: int = 53, data: bytes = b"query",
        **fields: Any) -> Packet:  # fmt: skip
    return ip(client or client_of(vip), vip, **fields) / UDP(sport=port, dport=dport) / Raw(data)


def with_checksum(source: str, target: str, part: bytes) -> Packet:
    """Around TCP bytes that scapy would write in its own way."""
    pseudo = b"".join(ip_address(one).packed for one in (source, target)) + struct.pack("!HH", 6, len(part))
    total = ~ones_complement(pseudo + part + bytes(len(part) % 2)) & 0xFFFF
    head = ip(source, target, **({"nh": 6} if ":" in target else {"proto": 6}))
    return head / Raw(part[:16] + total.to_bytes(2, "big") + part[18:])


def client_of(vip: str) -> str:
    return CLIENT6 if ":" in vip else CLIENT


def patched(packet: Packet, at: int, value: bytes) -> bytes:
    """Its bytes, with others from offset `at` on."""
    data = bytes(packet)
    return data[:at] + value + data[at + len(value) :]


def fragment6(packet: Packet, size: int, fragment_id: int = 77, *before: Packet) -> list[Packet]:
    """An IPv6 packet in pieces with `size` bytes each (RFC 8200 4.5); `before`: extension headers in every piece."""
    data, protocol = bytes(packet.payload), packet.nh
    pieces = []
    for at in range(0, len(data), size):
        head = IPv6(src=packet.src, dst=packet.dst, hlim=packet.hlim)
        for one in before:
            head = head / one
        more = at + size < len(data)
        header = IPv6ExtHdrFragment(nh=protocol, offset=at // 8, m=int(more), id=fragment_id)
        pieces.append(IPv6(bytes(head / header / Raw(data[at : at + size]))))
    return pieces


def answer(packet: Packet, flags: str = "SA", *, data: bytes = b"", **fields: Any) -> Packet:
    """A packet the other way round: what a server says to the packet it got."""
    layer = TCP if TCP in packet else UDP
    back = ip(packet.dst, packet.src, **fields)
    ports: dict[str, Any] = {"sport": packet[layer].dport, "dport": packet[layer].sport}
    return back / (TCP(**ports, flags=flags, seq=5000, ack=1001) if layer is TCP else UDP(**ports)) / Raw(data)


# --- the bench ------------------------------------------------------------------------------------------------------


class Machine:
    """A loaded object; `wipe` makes its maps as new, which is quicker than loading it again."""

    def __init__(
        self,
        path: Path = OBJECT,
        *,
        buckets: int = BUCKETS,
        captured: int = 4096,
        constants: Mapping[str, bytes] | None = None,
    ) -> None:
        """captured: bytes of the ring of `lbctl capture`."""
        sizes = {
            "conns": buckets,
            "replies": buckets,
            "slots": 1 << 16,
            "changed": CHANGED,
            "captured": captured,
            "services": 256,
        }
        self.object = LoadedObject(path, pins=lambda name: None, max_entries=sizes, constants=constants)
        self.maps = {name: Map(fd) for name, fd in self.object.maps.items() if "." not in name}
        self.programs = self.object.programs
        self.exchange = Exchange(self.maps["records"], self.programs)

    def close(self) -> None:
        for one in self.maps.values():
            one.close()
        self.object.close()

    def wipe(self) -> None:
        self.exchange.changed(1 << 20)
        for name in ("services", "vips", "vlans", "fragments", "leased", "affinity", "prefixes", "sources"):
            for key in [key for key, _ in self.maps[name].items()]:
                self.maps[name].delete(key)
        for name in ("conns", "replies", "events", "clock", "leases", "egress"):
            array = self.maps[name]
            array.put_range(0, bytes(array.value_size * array.info.max_entries))
        for name in (
            "servers",
            "groups",
            "gauges",
            "half_open",
            "cursors",
            "timeouts",
            "server_stats",
            "service_stats",
        ):
            array = self.maps[name]
            array.put_range(0, bytes(array.value_size * 256))  # tests have fewer servers than this
        self.maps["meta"].put_index(0, layout.pack_meta())


class Bench:
    """One node. `entry`: "xdp" or "tc", the program that packets go through."""

    def __init__(self, machine: Machine, wire: Wire, entry: str, *, seed: int = 7) -> None:
        machine.wipe()
        self.entry = entry
        self.wire = wire
        self.machine = machine
        self.maps = machine.maps
        self.hops = _Hops(wire)
        self.config = settings.Config(Timeouts(), seed, cookie_key=COOKIE_KEY)
        self._write_config()
        self._clock = 0.0
        self.tables = Tables(self.maps, self._seconds, cast(Neighbours, self.hops))
        self.now_ms = 1_000_000
        self.advance(0)

    def _seconds(self) -> float:
        self._clock += 1.0  # retired slots are free again at once: nothing runs beside the test
        return self._clock

    def _write_config(self) -> None:
        self.maps["config"].put_index(0, self.config.pack())

    # --- configuration ---

    def configure(self, **changes: Any) -> None:
        """Of settings.Config: timeouts, seed, sync, icmp_rate."""
        self.config = replace(self.config, **changes)
        self._write_config()

    def service(self, text: str = f"tcp:{VIP}:80", scheduler: str = "rr", *flags: str, **fields: Any) -> ServiceId:
        """`fields`: of ProgrammedService."""
        service_id = ServiceId.parse(text)
        self.tables.put_service(ProgrammedService(service_id, scheduler, frozenset(flags), **fields))
        self.configure(shortest=self.tables.own_timeouts.shortest)
        return service_id

    def server(
        self,
        service_id: ServiceId,
        address: str = "198.51.100.11:80",
        forward: ForwardingMethod = MASQUERADE,
        weight: int = 1,
        upper: int = 0,
        lower: int = 0,
        *,
        hop: bool = True,
        tunnel: Tunnel = IPIP,
        local: Sequence[str] = (),
        toa: bool = False,
    ) -> ServerId:
        """Add a server, or change it. Without `hop` the kernel's routes are asked per packet. `local`: addresses for
        full NAT."""
        server_id = ServerId.parse(address)
        if not hop:
            self.hops.unresolved.add(server_id.address)
        if forward is FULLNAT and not local:
            local = (LOCAL6,) if server_id.address.version == 6 else (LOCAL,)
        addresses = tuple(map(ip_address, local))
        wanted = ProgrammedServer(server_id, weight, forward, upper, lower, tunnel, addresses, toa)
        self.tables.put_server(service_id, wanted)
        return server_id

    def remove(self, service_id: ServiceId, server_id: ServerId | None = None) -> None:
        if server_id is None:
            self.tables.delete_service(service_id)
        else:
            self.tables.delete_server(service_id, server_id)

    # --- packets ---

    def send(self, packet: Packet | bytes, interface: str = "front", *, check: str = "all", mark: int = 0) -> Out:
        """Run a packet through the program. Bytes are a whole frame. `check`: "all" | "ip" (not L4) | "none"."""
        index, mac = self.wire.interfaces[interface]
        frame = packet if isinstance(packet, bytes) else ether(packet, target=mac)
        with self.wire.inside():
            if self.entry == "xdp":
                context = struct.pack("=6I", 0, len(frame), 0, index, 0, 0)
                run = syscall.prog_test_run(self.machine.programs["xdp_lb"], frame, context=context)
            else:
                context = struct.pack("=11I", 0, 0, mark, *(0,) * 6, index, index)  # struct __sk_buff: mark, interfaces
                run = syscall.prog_test_run(self.machine.programs["tc_lb"], frame, context=context)
        verdict = VERDICTS[self.entry].get(run.retval)
        assert verdict is not None, f"{self.entry} returned {run.retval}"
        handover = self.entry == "xdp" and verdict == "pass" and run.data.startswith(HANDOVER)
        result = run.data[HANDOVER_SIZE:] if handover else run.data
        if verdict == "pass" and not handover and result == frame:
            check = "none"  # untouched: the network stack's business
        if check != "none" and verdict != "drop":
            problems = wrong_checksums(result[18 if result[12:14] == b"\x81\x00" else 14 :], deep=check == "all")
            assert not problems, f"{problems} in {Ether(result)!r}"
        return Out(verdict, result, handover, self.entry == "xdp" and run.retval == 3)

    def connect(self, port: int = 40000, **fields: Any) -> Out:
        """A SYN; it must get to a server."""
        out = self.send(tcp(port, "S", **fields))
        assert out.verdict == "send"
        return out

    def establish(self, port: int = 40000, **fields: Any) -> Packet:
        """The three packets of an opening; returns the last as the server got it."""
        syn = self.connect(port, **fields)
        if syn.ip.dst != fields.get("vip", VIP) and isinstance(syn.ip.payload, TCP):  # masqueraded
            assert self.send(answer(syn.ip), "back").verdict == "send"
        out = self.send(tcp(port, "A", **fields))
        assert out.verdict == "send"
        return cast(Packet, out.ip)

    # --- time and state ---

    def advance(self, seconds: float) -> int:
        """Let time pass and the sweeper make one whole pass; returns how many connections it removed."""
        self.now_ms = self.now_ms + round(seconds * 1000) & 0xFFFFFFFF
        code, result = syscall.prog_run(self.machine.programs["sweep"], struct.pack("=II", self.now_ms, 0))
        assert code == 0
        return int(struct.unpack("=II", result)[1])

    def event(self, event: Event) -> int:
        return counts.unpack_event(self.maps["events"].get_index(event))

    def events(self) -> dict[Event, int]:
        """All but the fill, those that are not 0."""
        counts = {event: self.event(event) for event in Event if event is not Event.ENTRIES}
        return {event: count for event, count in counts.items() if count}

    def drops(self) -> int:
        return sum(count for event, count in self.events().items() if event >= layout.FIRST_DROP)

    def packed_records(self) -> list[bytes]:
        """Whole ones, some thousand in each."""
        return _collect(self.machine.exchange.walk(sync_only=False))

    def records(self) -> list[Record]:
        """The connection table; its size is compared with the fill counter."""
        found = [record for data in self.packed_records() for record in unpack_records(data)]
        assert self.event(Event.ENTRIES) == len(found)
        return found

    def record(self) -> Record:
        """The only connection."""
        (one,) = self.records()
        return one

    def export(self) -> bytes:
        """What a joining peer gets."""
        return b"".join(_collect(self.machine.exchange.walk(sync_only=True)))

    def merge(self, records: bytes) -> list[MergeResult]:
        asyncio.run(self.machine.exchange.merge(records))
        after = self.machine.exchange._view[: len(records)]
        return [MergeResult(one) for one in merge_results(after)]

    def counters(self, service_id: ServiceId, server_id: ServerId | None = None) -> Counters:
        service = self.tables.services[service_id]
        if server_id is None:
            return counts.unpack_counters(self.maps["service_stats"].get_index(service.entry.index))
        index = service.servers[server_id].index
        return counts.unpack_counters(self.maps["server_stats"].get_index(index), self.gauge(service_id, server_id))

    def gauge(self, service_id: ServiceId, server_id: ServerId) -> Gauge:
        index = self.tables.services[service_id].servers[server_id].index
        return Gauge.unpack(self.maps["gauges"].get_index(index))

    def gauges(self) -> tuple[int, int]:
        """Active and inactive connections of all servers; compared with the table."""
        found = [self.gauge(key, server) for key, service in self.tables.services.items() for server in service.servers]
        return sum(one.active for one in found), sum(one.inactive for one in found)


def _collect(chunks: Any) -> list[bytes]:
    async def run() -> list[bytes]:
        return [chunk async for chunk in chunks]

    return asyncio.run(run())


_FLAG_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def segment(source: tuple[str, int], target: tuple[str, int], flags: str, mac: str = "02:00:00:00:00:98") -> bytes:
    """A frame with a TCP segment without data; built by hand, because scapy takes half a millisecond for one."""
    bits = sum(_FLAG_BITS[flag] for flag in flags)
    addresses = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
    part = struct.pack("!HHIIBBHHH", source[1], target[1], 1, 1, 5 << 4, bits, 65535, 0, 0)
    total = ones_complement(addresses + struct.pack("!HH", 6, 20) + part)
    return _frame(addresses, 6, part[:16] + (~total & 0xFFFF).to_bytes(2, "big") + part[18:], mac)


def datagram(source: tuple[str, int], target: tuple[str, int], mac: str = "02:00:00:00:00:98") -> bytes:
    """A frame with a UDP datagram without data and checksum."""
    addresses = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
    return _frame(addresses, 17, struct.pack("!HHHH", source[1], target[1], 8, 0), mac)


def _frame(addresses: bytes, protocol: int, payload: bytes, mac: str) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses
    header = header[:10] + (~ones_complement(header) & 0xFFFF).to_bytes(2, "big") + header[12:]
    return bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\x99\x08\0" + header + payload
