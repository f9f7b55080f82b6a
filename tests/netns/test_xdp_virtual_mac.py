"""The data plane with VIPs that have the virtual router's MAC address: it attaches to the interface below alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbnode.election.lease import Leases
from lbnode.election.placement import place
from lbnode.election.vip import Vips
from lbnode.lab.netns import ip
from lbnode.model import VipAddress, VipGroup
from tests.netns.xdp_lab import AT_TC, PORT, VIP, VIP6, Lab, ask, programmed, server

pytestmark = pytest.mark.root

INNER, INNER6 = "198.51.100.1", "2001:db8:b::1"
ADDRESSES = tuple(VipAddress(ip_address(text), 64 if ":" in text else 24) for text in (VIP, INNER, VIP6, INNER6))
GROUP = VipGroup("front", 51, ADDRESSES, {"gw": 250}, virtual_mac=True)
MAC, MAC6 = "00:00:5e:00:01:33", "00:00:5e:00:02:33"


@pytest.fixture(params=["auto", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(servers=2, gateways=2, xdp=request.param == "xdp", attach=request.param) as lab:
        for device, address in (("front", VIP), ("front", VIP6), ("back", INNER), ("back", INNER6)):
            mac, length = (MAC6, 128) if ":" in address else (MAC, 32)
            ip("-n", lab.net.ns("gw"), "addr", "del", f"{address}/{length}", "dev", device)
            for name in ("client",) if device == "front" else ("rs1", "rs2"):
                known = ("neigh", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent")
                ip("-n", lab.net.ns(name), *known)  # whatever they hear
        yield lab


def hold(vips: Vips, leases: Leases, *, held: bool) -> None:
    """As an election process that becomes Active, or Backup. Where the switch has not learned the virtual router's MAC
    address both gateways get its frames: the lease alone says whose they are."""
    leases.set(GROUP, time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 600 * 10**9 if held else 0)
    vips.scan()
    places = place(GROUP, vips.links, vips.present, sole=True).places
    assert len(places) == len(ADDRESSES) and all(one.mac for one in places)
    if not held:
        vips.withdraw([one.address for one in places])
    vips.keep(places, places if held else ())
    vips.worker.finish()
    vips.scan()
    if held:
        vips.claim(places, 0)
    assert vips.problems_of([vip.address for vip in ADDRESSES]) == []


async def test_connections_reach_who_is_active_now_without_an_announcement(lab: Lab, tmp_path: Path) -> None:
    for gateway in lab.gateways:
        lab.start_server(0, PORT + 1, at=gateway)
    first, second = (lab.net.call(gateway, Vips) for gateway in lab.gateways)
    async with lab.plane(tmp_path / "1", "gw") as one, lab.plane(tmp_path / "2", "gw2") as two:
        leases = [Leases(plane.lease_map()) for plane in (one, two)]
        for plane, lease in zip((one, two), leases, strict=True):
            lease.configure(await plane.set_leases({GROUP.name: [vip.address for vip in ADDRESSES]}))
            await programmed(plane, "rr", server(1), server(2))
            await programmed(plane, "rr", *(server(n, family=6) for n in (1, 2)), vip=VIP6)
        lab.net.call("gw", lambda: hold(first, leases[0], held=True))
        for gateway, plane in (("gw", one), ("gw2", two)):
            for vip in (VIP, VIP6):
                with lab.connect(vip) as sock:
                    assert ask(sock) in ("rs1", "rs2")
                with lab.udp(vip) as sock:
                    assert ask(sock).startswith("rs")
            with lab.connect(VIP, PORT + 1) as sock:  # no service of the data plane's
                assert ask(sock) == gateway
            assert (await plane.status()).connections > 0
            attached = {(status.name, status.mode, status.error) for status in (await plane.status()).interfaces}
            assert attached == {(name, "xdp" if lab.xdp else AT_TC, "") for name in ("front", "back")}
            if gateway == "gw":
                lab.net.call("gw", lambda: hold(first, leases[0], held=False))
                lab.net.call("gw2", lambda: hold(second, leases[1], held=True))
    for vips in (first, second):
        vips.close()
