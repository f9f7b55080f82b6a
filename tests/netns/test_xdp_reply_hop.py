"""Replies follow the kernel's routes at once, though programs remember next hops: here for good, so that only what user
space sees of a change can end it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.dataplane.xdp.plane import OBJECT
from tests.netns.xdp_lab import CLIENT, CLIENT6, VIP, VIP6, Lab, compile_bpf, programmed, server, until

pytestmark = pytest.mark.root
ASKED = 10


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The gateway has a second way to the client, `side`, which no route uses."""
    with Lab(servers=1) as lab:
        lab.net.plug("gw", "side", None, "sw", "s-gw", "front")
        lab.net.run("gw", "sysctl", "-qw", "net.ipv4.conf.side.arp_ignore=1")
        yield lab


@pytest.fixture
def remembering(tmp_path: Path) -> Path:
    """The object, with next hops that do not age."""
    source = tmp_path / "bpf"
    shutil.copytree(OBJECT.parent, source)
    header = source / "reply_hop.h"
    text = header.read_text()
    assert text.count("#define REPLY_HOP_MS 1000\n") == 1
    header.write_text(text.replace("REPLY_HOP_MS 1000\n", "REPLY_HOP_MS 0xffffffff\n"))
    compile_bpf(source / "lb.bpf.c", source / "lb.bpf.o", "-mcpu=v3")
    return source / "lb.bpf.o"


class Client:
    """One that asks again and again from the same port."""

    def __init__(self, lab: Lab, vip: str) -> None:
        self._lab = lab
        self.sock = lab.udp(vip)
        self.sock.settimeout(0.5)

    def _ask(self) -> bool:
        try:
            for number in range(ASKED):
                self.sock.send(b"%d\n" % number)
                while self.sock.recv(100) != b"rs1 %d\n" % number:
                    pass
        except (TimeoutError, OSError):
            return False
        return True

    def _sent_by_side(self) -> int:
        (link,) = json.loads(self._lab.net.run("gw", "ip", "-s", "-j", "link", "show", "dev", "side"))
        return int(link["stats64"]["tx"]["packets"])

    async def _answered(self, side: bool) -> bool:
        before = self._sent_by_side()
        answered = await asyncio.to_thread(self._ask)  # the data plane's own loop goes on
        return answered and (self._sent_by_side() - before >= ASKED) == side

    async def gets_answers(self, what: str, *, side: bool) -> None:
        await until(lambda: self._answered(side), f"all answers come by {'side' if side else 'front'}: {what}")


async def test_continuous_replies_follow_every_change(lab: Lab, remembering: Path, tmp_path: Path) -> None:
    async with lab.plane(tmp_path / "run", object_path=remembering) as plane:
        for family, vip in ((4, VIP), (6, VIP6)):
            await programmed(plane, "rr", server(1, family=family), vip=vip)
            asking = Client(lab, vip)
            with asking.sock:
                await follow(lab, asking, family, vip)
            lab.net.run("gw", "ip", "link", "set", "side", "up")


async def follow(lab: Lab, asking: Client, family: int, vip: str) -> None:
    client, mac = (CLIENT6, "02:00:00:00:00:76") if family == 6 else (CLIENT, "02:00:00:00:00:74")

    def gw(*words: str) -> None:
        lab.net.run("gw", "ip", f"-{family}", *words)

    await asking.gets_answers("to begin with", side=False)
    gw("route", "add", client, "dev", "side")
    await asking.gets_answers("a route", side=True)
    gw("route", "del", client, "dev", "side")
    await asking.gets_answers("the route is gone", side=False)
    gw("route", "add", client, "dev", "side", "table", "100")
    await asking.gets_answers("a route that no rule leads to", side=False)
    gw("rule", "add", "from", vip, "lookup", "100")
    await asking.gets_answers("a rule", side=True)
    gw("rule", "del", "from", vip, "lookup", "100")
    await asking.gets_answers("the rule is gone", side=False)
    gw("nexthop", "add", "id", "7", "dev", "front")
    gw("route", "add", client, "nhid", "7")
    await asking.gets_answers("a next hop object", side=False)
    gw("nexthop", "replace", "id", "7", "dev", "side")
    await asking.gets_answers("the next hop object changed", side=True)
    lab.net.run("client", "ip", "link", "set", "eth0", "address", mac)
    gw("neigh", "replace", client, "lladdr", mac, "nud", "stale", "dev", "side")
    await asking.gets_answers("the client's MAC address", side=True)
    gw("neigh", "del", client, "dev", "side")
    await asking.gets_answers("it has to be resolved again", side=True)
    lab.net.run("gw", "ip", "neigh", "flush", "dev", "front")  # the old address
    lab.net.run("gw", "ip", "link", "set", "side", "down")
    await asking.gets_answers("the interface is down", side=False)
