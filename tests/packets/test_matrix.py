"""Every protocol, family and way of forwarding with every edge: options, fragments, ICMP, VLAN, cut at every length.

What must come out is worked out from the packet that went in (judge.py), to the byte.
"""

from __future__ import annotations

import pytest
from scapy.packet import Packet

from tests.packets import seeds
from tests.packets.bench import DIRECT, FULLNAT, MASQUERADE, Bench
from tests.packets.judge import Judge
from tests.packets.judge_link import Link
from tests.packets.seeds import MODES, REFUSED, TOA, Case
from tests.packets.test_fuzz import Gun
from tests.packets.traffic import ether
from tests.packets.view import view
from tests.packets.wire import VIP6

pytestmark = pytest.mark.root
WAYS = {MASQUERADE: "masquerade", DIRECT: "direct", FULLNAT: "full NAT"}
TUNNELS = {82: "ipip", 83: "gue", 84: "gue with checksum", 85: "gre", 86: "ipip, other family", 87: "gue, other family"}
NAMES = {80: "masquerade", 81: "direct", 88: "full NAT", TOA: "full NAT with TOA", REFUSED: "refused"} | TUNNELS
every_case = pytest.mark.parametrize(
    "case", seeds.CASES, ids=[f"{name}-{6 if vip == VIP6 else 4}-{NAMES[port]}" for name, vip, port in seeds.CASES]
)


def expected(case: Case, packet: Packet, interface: str) -> str:
    """What becomes of a whole packet: "pass", "drop", or what the judge calls its way."""
    seen = view(bytes(packet))
    assert seen is not None
    if seen.is_error_type:
        return "error translated"
    if interface == "back":
        return "full NAT reply" if MODES[case[2]][0] is FULLNAT else "reply"
    if case[2] in MODES:
        return WAYS.get(MODES[case[2]][0], "tunnel")
    if seen.fragment == 2 or (case[0] == "tcp" and packet.sprintf("%TCP.flags%") == "PA"):
        return "pass"  # of nothing that is known
    return "drop" if seen.family == 4 and seen.at > 20 else "own error"  # IPv4 options get no answer


def fate(judge: Judge, gun: Gun, frame: bytes, interface: str) -> str:
    before = dict(judge.seen)
    verdict, out = gun(frame, interface)
    if verdict == "send":
        complaint = judge.sent(frame, out, interface, gun.how)
    else:
        complaint = judge.untouched(frame, verdict or "pass", changed=out != frame)
    assert not complaint, f"{complaint}: {frame.hex()} became {out.hex()}"
    return next((kind for kind, count in judge.seen.items() if count != before.get(kind, 0)), verdict)


def judged(bench: Bench, case: Case) -> tuple[Judge, Gun]:
    """With a second service, by which the VIP is one also where the first has no servers."""
    targets, told = seeds.configure(bench, {case, (case[0], case[1], 80)}), seeds.connections([case])
    judge = Judge(targets, Link(bench.wire))
    bench.merge(b"".join(one.pack() for one in told))
    judge.ways.learn(told)
    return judge, Gun(bench)


@every_case
def test_whole_and_tagged(bench: Bench, case: Case) -> None:
    judge, gun = judged(bench, case)
    with bench.wire.inside():
        for packet, interface in seeds.of_service(case):
            way = expected(case, packet, interface)
            assert fate(judge, gun, ether(packet, target=bench.wire.mac(interface)), interface) == way, packet
            if interface == "front":  # at tcx a tag means that the packet is for another interface
                found = fate(judge, gun, seeds.tagged(packet, bench.wire), interface)
                assert found == (way if bench.entry == "xdp" else "pass"), packet


@every_case
def test_cut_at_every_length(bench: Bench, case: Case) -> None:
    """Nothing of it is sent, whatever was open before."""
    judge, gun = judged(bench, case)
    with bench.wire.inside():
        for packet, interface in seeds.of_service(case):
            for frame in (ether(packet, target=bench.wire.mac(interface)), seeds.tagged(packet, bench.wire)):
                for length in range(14, len(frame)):
                    assert fate(judge, gun, frame[:length], interface) in ("pass", "drop", ""), (packet, length)
                fate(judge, gun, frame, interface)
