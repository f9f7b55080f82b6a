"""The data plane outlives the process: kill -9, adoption, program swap, clean unload; interfaces come and go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.dataplane.xdp.libbpf import LoadedObject
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.errors import DataPlaneError
from tests.netns.traffic import Traffic
from tests.netns.xdp_lab import AT_TC, ECHO, HTTP, Lab, ask, compile_bpf, programmed, server, thread_in_netns, until

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(servers=2) as lab:
        yield lab


@pytest.fixture(params=["auto", "tc"])
def tc_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Both ways to the tc hook: this kernel's own choice, and clsact as on kernels before 6.6."""
    with Lab(servers=2, attach=request.param) as lab:
        yield lab


def start_process(lab: Lab, run_dir: Path, servers: str, attach: str = "auto") -> subprocess.Popen[bytes]:
    process = lab.net.popen(
        "gw",
        sys.executable,
        "-m",
        "tests.netns.plane_process",
        str(lab.uses(run_dir)),
        attach,
        servers,
        cwd=ROOT,
        stdout=-1,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("attach", ["auto", "xdp", "tc"])
async def test_kill_9_loses_nothing_and_a_restart_adopts(tmp_path: Path, attach: str) -> None:
    with Lab(servers=2, xdp=attach == "xdp", attach=attach) as lab:
        process = start_process(lab, tmp_path, "1:3,2:0", attach)
        with lab.connect() as held, Traffic(lab) as traffic:
            assert ask(held) == "rs1"
            await until(lambda: traffic.answered > 50, "traffic flows")
            process.kill()
            process.wait()
            seen = traffic.answered
            await until(lambda: traffic.answered > seen + 100, "traffic flows on without any process")
            with lab.connect() as sock:
                assert ask(sock) == "rs1", "new connections are served without any process"
            async with lab.plane(tmp_path) as plane:  # loads its own program and swaps it in, under traffic
                status = await plane.status()
                assert status.adopted
                assert status.connections >= 3
                held_by_plane = await plane.dump()
                assert set(held_by_plane.services) == {HTTP, ECHO}
                assert held_by_plane.services[HTTP].scheduler == "wrr"
                assert {str(s.id): s.weight for s in held_by_plane.services[HTTP].servers.values()} == {
                    str(server(1).id): 3,
                    str(server(2).id): 0,
                }
                counters = await plane.counters()
                assert counters[HTTP].total.connections == 3
                assert counters[ECHO].total.packets_in >= seen + 100
                seen = traffic.answered
                await until(lambda: traffic.answered > seen + 100, "traffic flows on")
                assert ask(held, "after the restart") == "rs1"
                await programmed(plane, "wrr", server(1, weight=0), server(2, weight=1))
                with lab.connect() as sock:
                    assert ask(sock) == "rs2", "the adopted tables can be changed"
                assert ask(held, "after the change") == "rs1"
                traffic.stop()
                assert (traffic.lost, traffic.broken) == ([], None)


async def test_swapping_the_program_under_traffic_loses_nothing(tc_lab: Lab, tmp_path: Path) -> None:
    async with tc_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with Traffic(tc_lab) as traffic:
            for _ in range(3):
                seen = traffic.answered
                await plane.close()
                await plane.open()
                await until(lambda seen=seen: traffic.answered > seen + 10, "traffic flows")  # type: ignore[misc]
            traffic.stop()
            assert (traffic.lost, traffic.broken) == ([], None)


async def test_the_hook_can_be_changed_by_a_restart(tmp_path: Path) -> None:
    with Lab(servers=1, xdp=True) as lab:
        async with lab.plane(tmp_path, attach=AT_TC) as plane:
            await programmed(plane, "rr", server(1))
            with lab.connect() as held:
                ask(held)
                for attach in ("xdp", "tc", "xdp", AT_TC, "tc", AT_TC):
                    await plane.close()
                    plane = XdpPlane(tmp_path, attach=attach)  # type: ignore[arg-type]
                    await plane.open()
                    try:
                        status = await plane.status()
                        assert status.adopted and {one.mode for one in status.interfaces} == {attach}
                        assert bool(lab.filters()) == ("tc" in (attach, AT_TC))
                        ask(held, f"at {attach}")
                    finally:
                        await plane.close()


async def test_unload_leaves_nothing_behind(tc_lab: Lab, tmp_path: Path) -> None:
    async with tc_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        at_clsact = {one.mode for one in (await plane.status()).interfaces} == {"tc"}
        assert ("lbnode" in tc_lab.filters()) == at_clsact
        assert bool(list((tmp_path / "bpf").glob("link-*"))) != at_clsact
    assert tc_lab.filters() == ""
    assert not (tmp_path / "bpf").exists()
    with pytest.raises(ConnectionRefusedError):
        tc_lab.connect()
    with tc_lab.udp() as sock:
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(10)
    async with tc_lab.plane(tmp_path) as plane:
        assert not (await plane.status()).adopted
        assert (await plane.dump()).services == {}


async def test_interfaces_that_come_and_go_are_followed(tc_lab: Lab, tmp_path: Path) -> None:
    async with tc_lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        tc_lab.net.veth("client", "eth9", "192.0.2.129/25", "gw", "hot", "192.0.2.130/25")

        async def names() -> set[str]:
            return {one.name for one in (await plane.status()).interfaces if not one.error}

        async def appeared() -> bool:
            return await names() == {"front", "back", "hot"}

        async def gone() -> bool:
            return await names() == {"front", "back"}

        await until(appeared, "the new interface is attached")
        tc_lab.net.run("client", "ip", "link", "del", "eth9")
        await until(gone, "the removed interface is dropped")
        with tc_lab.connect() as sock:
            ask(sock)


async def test_an_interface_that_went_down_serves_at_once_when_it_is_up(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        with lab.connect() as sock:
            ask(sock)
            pins = {pin.name for pin in (tmp_path / "bpf").glob("link-*")}
            lab.net.run("gw", "ip", "link", "set", "back", "down")
            await until(lambda: plane.next_hop(server(1).id.address) is None, "the next hop is gone")
            assert {pin.name for pin in (tmp_path / "bpf").glob("link-*")} == pins
            lab.net.run("gw", "ip", "link", "set", "back", "up")
            ask(sock, "after the interruption")


async def test_next_hops_follow_a_server_that_changes_its_mac_address(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        address = server(1).id.address
        await until(lambda: plane.next_hop(address) is not None, "the next hop is known")
        with lab.connect() as sock:
            ask(sock)
            lab.net.run("rs1", "ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
            lab.net.run("rs1", "arping", "-q", "-c1", "-U", "-I", "eth0", str(address))
            await until(
                lambda: (hop := plane.next_hop(address)) is not None and hop.target_mac[-1] == 0x99,
                "the new address is known",
            )
            lab.net.run("rs1", "ip", "route", "replace", "default", "via", "198.51.100.1")
            ask(sock, "at the new address")


async def test_named_interfaces_only(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path, interfaces=("front", "nosuch0")) as plane:
        found = {one.name: one for one in (await plane.status()).interfaces}
        assert set(found) == {"front", "nosuch0"}
        assert found["front"].mode == AT_TC and "veth" in found["front"].reason
        assert "nosuch0" in found["nosuch0"].error and found["nosuch0"].mode == "-"


async def test_native_xdp_that_is_refused_falls_back_to_tcx_with_the_reason(lab: Lab, tmp_path: Path) -> None:
    lab.net.run("gw", "ip", "link", "add", "br7", "type", "bridge")
    lab.net.run("gw", "ip", "link", "set", "br7", "up")
    with thread_in_netns(lab.net.ns("gw")):
        plane = XdpPlane(lab.uses(tmp_path), interfaces=("br7",), attach="xdp")
        await plane.open()
        try:
            (found,) = (await plane.status()).interfaces
            assert found.mode == AT_TC
            assert "native XDP" in found.reason
        finally:
            await plane.close(unload=True)


async def test_filters_of_others_are_left_alone(lab: Lab, tmp_path: Path) -> None:
    theirs = ["tc", "filter", "add", "dev", "front", "ingress", "prio", "7", "protocol", "all", "bpf", "bytecode"]
    lab.net.run("gw", "tc", "qdisc", "add", "dev", "front", "clsact")
    lab.net.run("gw", *theirs, "1,6 0 0 0")  # matches nothing
    async with lab.plane(tmp_path, attach="tc") as plane:
        await programmed(plane, "rr", server(1))
        with lab.connect() as sock:
            ask(sock)
        async with lab.plane(tmp_path / "second", attach="tc") as second:
            for one in (await second.status()).interfaces:
                assert one.mode == "-" and "tc filter show" in one.error
        with lab.connect() as sock:
            ask(sock, "after another data plane came and went")
    assert "pref 7 bpf" in lab.filters() and "lbnode" not in lab.filters()


async def test_missing_object_says_how_to_build_it(lab: Lab, tmp_path: Path) -> None:
    with thread_in_netns(lab.net.ns("gw")):
        plane = XdpPlane(lab.uses(tmp_path), object_path=tmp_path / "nothing.o")
        with pytest.raises(DataPlaneError, match=r"nothing\.o is missing.*clang"):
            await plane.open()
        await plane.close(unload=True)


def test_refused_object_carries_the_verifiers_words(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("xdp") int bad(struct xdp_md *c) { return *(char *)(long)c->data; }\nchar L[] SEC("license") = "GPL";\n'
    )
    compile_bpf(source, tmp_path / "bad.o")
    with pytest.raises(DataPlaneError, match=r"bad\.o was refused by the kernel: (?s:.*)invalid access to packet"):
        LoadedObject(tmp_path / "bad.o", pins=lambda _: None)
