"""Services by firewall mark, with real packets that get their mark in front of the data plane's program."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.links import AttachType
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.errors import Unsupported
from lbnode.model import ProgrammedService, ServiceId
from tests.listed import listed
from tests.netns.xdp_lab import AT_TC, Lab, ask, compile_bpf, server

pytestmark = pytest.mark.root
MARKED = ServiceId.parse("fwmark:7")


async def put(plane: XdpPlane) -> None:
    await plane.apply(PutService(ProgrammedService(MARKED, "rr", persistent_s=300)))
    for number in (1, 2):
        await plane.apply(PutServer(MARKED, server(number, port=0)))


async def served_together(lab: Lab, plane: XdpPlane) -> None:
    """TCP and UDP of one client go to one server, on the service's addresses' own ports."""
    with lab.connect() as sock:
        name = ask(sock)
    with lab.udp() as udp:
        udp.send(b"hello\n")
        assert udp.recv(100).decode().split()[0] == name
    found = [one for one in await listed(plane) if one.protocol is None]
    assert [(one.state, one.client[1], str(one.virtual[0])) for one in found] == [("ASSURED", 0, "0.0.0.7")]
    counters = (await plane.counters())[MARKED]
    assert (counters.total.connections, counters.total.persistent) == (2, 1)


async def test_marked_by_a_tc_filter(tmp_path: Path) -> None:
    ends = tmp_path / "ends.o"
    compile_bpf(Path(__file__).with_name("ends.bpf.c"), ends)
    with Lab(servers=2, attach="tc") as lab:
        lab.net.run("gw", "tc", "qdisc", "add", "dev", "front", "clsact")
        async with lab.plane(tmp_path) as plane:
            lab.net.run(
                "gw", "tc", "filter", "add", "dev", "front", "ingress", "prio", "10", "protocol", "all",
                "bpf", "da", "obj", str(ends), "sec", "tc",
            )  # fmt: skip
            await put(plane)
            await served_together(lab, plane)


@pytest.mark.skipif(AT_TC == "tc", reason="this kernel has no tcx (needs 6.6)")
async def test_marked_by_a_tcx_program(tmp_path: Path) -> None:
    with Lab(servers=2, attach="tcx") as lab:
        lab.attach("gw", "front", "mark", AttachType.TCX_INGRESS)
        async with lab.plane(tmp_path) as plane:
            await put(plane)
            await served_together(lab, plane)


async def test_at_xdp_such_a_service_is_refused(tmp_path: Path) -> None:
    with Lab(servers=1, xdp=True) as lab:
        async with lab.plane(tmp_path) as plane:
            with pytest.raises(Unsupported, match=r'fwmark:7: .* back, front is served at XDP: set attach = "tcx"'):
                await put(plane)
            assert MARKED not in (await plane.dump()).services
