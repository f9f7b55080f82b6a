"""MSS clamping: what either side announces becomes the service's `mss`, if it is more; judged by scapy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, IPOption_NOP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet, Raw

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import IPIP, ForwardingMethod, Tunnel, TunnelType
from tests.packets.bench import DIRECT, FULLNAT, MASQUERADE, TUNNEL, Bench
from tests.packets.traffic import answer, client_of, ip
from tests.packets.wire import SERVER6, VIP, VIP6

pytestmark = pytest.mark.root

LIMIT = 1307  # 0x051b: both bytes of 1460, 0x05b4, and of 9000 change, one by one
TUNNELS = (IPIP, Tunnel(TunnelType.GUE, 6080), Tunnel(TunnelType.GRE))
METHODS = [(MASQUERADE, IPIP, False), (DIRECT, IPIP, False), *((TUNNEL, one, False) for one in TUNNELS),
           (FULLNAT, IPIP, False), (FULLNAT, IPIP, True)]  # fmt: skip
SHOWN = ["masquerade", "direct", "ipip", "gue", "gre", "fullnat", "fullnat-toa"]


@pytest.fixture(params=[4, 6])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def mss(value: int) -> bytes:
    return b"\x02\x04" + value.to_bytes(2, "big")


NOP, END, SACK, SCALE = b"\x01", b"\x00", b"\x04\x02", b"\x03\x03\x07"
STAMP = b"\x08\x0a" + bytes(range(8))
# The options of a SYN -> what becomes of them; the same: nothing.
CHANGED = {
    "alone": (mss(1460), mss(LIMIT)),
    "first": (mss(9000) + NOP + SCALE + SACK + NOP + NOP, mss(LIMIT) + NOP + SCALE + SACK + NOP + NOP),
    "last": (SACK + STAMP + mss(1460), SACK + STAMP + mss(LIMIT)),
    "at an odd place": (NOP + mss(1460) + SCALE, NOP + mss(LIMIT) + SCALE),
    "at another odd place": (SCALE + mss(0xFFFF) + NOP, SCALE + mss(LIMIT) + NOP),
    "in the last bytes that options have": (NOP * 36 + mss(9000), NOP * 36 + mss(LIMIT)),
    "twice, and the last counts": (mss(536) + mss(1460), mss(536) + mss(LIMIT)),
    "one more": (mss(LIMIT + 1), mss(LIMIT)),
}
KEPT = {
    "no options": b"",
    "without it": SACK + NOP * 3 + SCALE,
    "just as much": mss(LIMIT),
    "less": mss(536),
    "zero": mss(0),
    "its length is 3": b"\x02\x03\x05\xb4"[:3] + NOP,
    "inside of another option": b"\xfd\x08" + b"\x05\xb4" + mss(1460),
}
BROKEN = {  # full NAT makes NOPs of them (toa.h)
    "behind the end": END + NOP * 3 + mss(1460),
    "cut off": NOP * 2 + mss(1460)[:2],
    "cut off behind its kind": NOP * 3 + b"\x02",
    "longer than what is left": b"\x02\x05\x05\xb4",
    "its length is 0": b"\x02\x00\x05\xb4",
    "its length is 1": b"\x02\x01\x05\xb4",
    "behind an option whose length is 0": b"\x08\x00" + NOP * 2 + mss(1460),
}
OPTIONS = {**CHANGED, **{name: (options, options) for name, options in (KEPT | BROKEN).items()}}


def head(source: str, target: str, sport: int, dport: int, flags: str, options: bytes, **fields: Any) -> Packet:
    """A segment with options that scapy would not write."""
    assert len(options) % 4 == 0
    segment = TCP(sport=sport, dport=dport, flags=flags, seq=1000, dataofs=5 + len(options) // 4)
    return ip(source, target, **fields) / segment / Raw(options)


def options_of(packet: Packet) -> bytes:
    """Of the innermost TCP header, as they are on the wire."""
    data = bytes(packet[TCP])
    return data[20 : (data[12] >> 4) * 4]


def setting(
    bench: Bench, family: int, method: ForwardingMethod = MASQUERADE, tunnel: Tunnel = IPIP, *, toa: bool = False
) -> str:
    vip, server = (f"[{VIP6}]", f"[{SERVER6}]") if family == 6 else (VIP, "198.51.100.11")
    service = bench.service(f"tcp:{vip}:80", mss=LIMIT)
    bench.server(service, f"{server}:80", method, tunnel=tunnel, toa=toa)
    return VIP6 if family == 6 else VIP


def inner(packet: Packet) -> Packet:
    """The packet in the tunnel, if it is in one; scapy does not look into GUE."""
    while TCP not in packet:
        packet = IP(bytes(packet.lastlayer())[4:]) if packet.lastlayer().load[4] >> 4 == 4 else IPv6(
            bytes(packet.lastlayer())[4:])  # fmt: skip
    return packet


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("method", "tunnel", "toa"), METHODS, ids=SHOWN)
def test_the_clients_syn(
    bench: Bench, family: int, method: ForwardingMethod, tunnel: Tunnel, toa: bool, options: tuple[bytes, bytes]
) -> None:
    vip = setting(bench, family, method, tunnel, toa=toa)
    given, wanted = options
    if method is FULLNAT and given in BROKEN.values():
        wanted = NOP * len(given)
    for flags in ("S", "SEC"):  # the second is the first again: its connection is known
        out = bench.send(head(client_of(vip), vip, 40000, 80, flags, given))
        assert out.verdict == "send"
        found = options_of(inner(out.ip))
        told = 0 if not toa or len(given) + (20 if family == 6 else 8) > 40 else 20 if family == 6 else 8
        kept = found[told:] if bench.entry == "xdp" else found[: len(found) - told]
        assert (kept, len(found)) == (wanted, len(wanted) + told)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("method", [MASQUERADE, FULLNAT])
def test_the_servers_syn_ack(bench: Bench, family: int, method: ForwardingMethod, options: tuple[bytes, bytes]) -> None:
    vip = setting(bench, family, method)
    syn = bench.connect(vip=vip).ip
    given, wanted = options
    reply = head(syn.dst, syn.src, 80, syn[TCP].sport, "SA", given)
    out = bench.send(reply, "back")
    assert (out.verdict, out.ip.src, out.ip.dst) == ("send", vip, client_of(vip))
    assert options_of(out.ip) == wanted


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "RA"])
def test_other_segments_are_not_looked_at(bench: Bench, family: int, flags: str) -> None:
    vip = setting(bench, family)
    bench.establish(vip=vip)
    out = bench.send(head(client_of(vip), vip, 40000, 80, flags, mss(1460)))
    assert out.verdict == "send" and options_of(out.ip) == mss(1460)


def test_behind_headers_of_ip(bench: Bench, family: int) -> None:
    vip = setting(bench, family)
    segment = TCP(sport=40000, dport=80, flags="S", options=[("NOP", None), ("MSS", 1460)])
    before = (
        IPv6(src=client_of(vip), dst=vip) / IPv6ExtHdrDestOpt()
        if family == 6
        else IP(src=client_of(vip), dst=vip, options=[IPOption_NOP()] * 4)
    )
    out = bench.send(before / segment)
    assert out.verdict == "send" and out.ip[TCP].options[1] == ("MSS", LIMIT)


def test_a_syn_with_data(bench: Bench, family: int) -> None:
    vip = setting(bench, family)
    segment = TCP(sport=40000, dport=80, flags="S", options=[("MSS", 1460)])
    out = bench.send(ip(client_of(vip), vip) / segment / Raw(b"fast open"))
    assert out.ip[TCP].options == [("MSS", LIMIT)] and bytes(out.ip[TCP].payload) == b"fast open"


def test_a_service_without_it_leaves_them_alone(bench: Bench) -> None:
    bench.server(bench.service())
    out = bench.send(head(client_of(VIP), VIP, 40000, 80, "S", mss(9000)))
    assert options_of(out.ip) == mss(9000)
    reply = answer(out.ip)
    reply[TCP].options = [("MSS", 9000)]
    assert bench.send(reply, "back").ip[TCP].options == [("MSS", 9000)]


def test_it_follows_its_service(bench: Bench) -> None:
    """Also for servers that are there already, and of a firewall mark."""
    text = f"tcp:{VIP}:80" if bench.entry == "xdp" else "fwmark:7"
    service = bench.service(text)
    bench.server(service)

    def announced(port: int) -> bytes:
        out = bench.send(head(client_of(VIP), VIP, port, 80, "S", mss(1460)), mark=7)
        assert out.verdict == "send"
        return options_of(out.ip)

    assert announced(40000) == mss(1460)
    now = bench.tables.services[service].programmed
    bench.tables.put_service(replace(now, mss=LIMIT))
    assert announced(40000) == announced(40001) == mss(LIMIT)
    bench.tables.put_service(replace(now, mss=88))
    assert announced(40000) == mss(88)
    bench.tables.put_service(now)
    assert announced(40000) == mss(1460)


def test_cookies_announce_it_too(bench: Bench, family: int) -> None:
    """The gateway's SYN-ACK to the client, and the SYN that it makes for the server, also when it sends that again."""
    vip, server = (f"[{VIP6}]", f"[{SERVER6}]") if family == 6 else (VIP, "198.51.100.11")
    service = bench.service(f"tcp:{vip}:80", mss=LIMIT, syn_proxy=0)
    bench.server(service, f"{server}:80")
    vip = vip.strip("[]")
    announced = bench.send(head(client_of(vip), vip, 40000, 80, "S", mss(1460))).ip[TCP]
    assert str(announced.flags) == "SA" and announced.options[0] == ("MSS", LIMIT)
    ack = ip(client_of(vip), vip) / TCP(sport=40000, dport=80, flags="A", seq=1001, ack=announced.seq + 1 & 0xFFFFFFFF)
    for _ in range(2):
        syn = bench.send(ack).ip[TCP]
        assert str(syn.flags) == "S" and syn.options[0] == ("MSS", LIMIT)
    assert bench.event(Event.COOKIE_ACCEPTED) == 1
    bench.tables.put_service(replace(bench.tables.services[service].programmed, mss=9000))
    assert bench.send(ack).ip[TCP].options[0] == ("MSS", 1440 if family == 6 else 1460)


def test_a_syn_in_fragments_stays_as_it_is(bench: Bench) -> None:
    setting(bench, 4)
    whole = head(client_of(VIP), VIP, 40000, 80, "S", mss(1460)) / Raw(bytes(64))
    first, second = fragment(IP(bytes(whole)), 64)
    out = bench.send(first, check="ip")
    assert out.verdict == "send" and options_of(out.ip) == mss(1460)
    assert bench.send(second, check="ip").verdict == "send"


def test_sctp_has_no_such_options(bench: Bench) -> None:
    """Of a firewall mark's service, say; its INIT counts as a SYN."""
    service = bench.service(f"sctp:{VIP}:80", mss=LIMIT)
    bench.server(service)
    init = SCTPChunkInit(init_tag=0x02040000 | 9000)
    packet = ip(client_of(VIP), VIP) / SCTP(sport=40000, dport=80, tag=0) / init
    assert bytes(bench.send(packet).ip[SCTPChunkInit]) == bytes(init)
