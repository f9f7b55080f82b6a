"""Frames to the MAC address of a virtual router (RFC 9568 section 7.3): for the kernel another host's at this hook."""

from __future__ import annotations

import pytest

from tests.packets.bench import Bench
from tests.packets.traffic import answer, ether, tcp
from tests.packets.wire import SERVER6, VIP, VIP6

pytestmark = pytest.mark.root
MAC = {4: "00:00:5e:00:01:33", 6: "00:00:5e:00:02:33"}


@pytest.mark.parametrize("family", [4, 6])
def test_they_are_served_in_both_directions(bench: Bench, family: int) -> None:
    vip, real = (f"[{VIP6}]", f"[{SERVER6}]") if family == 6 else (VIP, "198.51.100.11")
    bench.server(bench.service(f"tcp:{vip}:80"), f"{real}:80")
    packet = tcp(vip=vip.strip("[]"))
    out = bench.send(ether(packet, target=MAC[family]))
    assert out.verdict == "send"
    reply = bench.send(ether(answer(out.ip, "SA"), target=MAC[family]), "back")
    assert reply.verdict == "send" and reply.ip.src == vip.strip("[]")


def test_another_hosts_are_not(bench: Bench) -> None:
    """At XDP the NIC's address filter sees to that."""
    bench.server(bench.service())
    for mac in ("00:00:5e:00:03:33", "00:00:5e:00:00:33", "02:00:00:00:00:77"):
        assert bench.send(ether(tcp(), target=mac)).verdict == ("send" if bench.entry == "xdp" else "pass")
