"""Maps of another size or layout take over from those that serve, under traffic: no packet is lost, no flow changes its
server, and what a killed process left half done the next one finishes."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import pytest

from lbnode.build_hook import compile_object
from lbnode.dataplane.base import PutService
from lbnode.dataplane.xdp import counts, exchange, layout, listing, records, settings, syscall
from lbnode.dataplane.xdp.counts import NOTHING_REFUSED
from lbnode.dataplane.xdp.maps import Map
from lbnode.dataplane.xdp.plane import OBJECT, XdpPlane
from lbnode.dataplane.xdp.succession.loading import Loading
from lbnode.model import Access, Connection, ConnectionRate, OwnTimeouts, ProgrammedService, ServiceId
from tests.listed import listed
from tests.netns.traffic import Traffic
from tests.netns.xdp_lab import CLIENT, HTTP, PORT, VIP, Lab, ask, programmed, server, until

pytestmark = pytest.mark.root
PACE_S = 0.003
NEXT = ("lb.h", "lb_config.h", "lb_conns.h", "maps.h", "access.h", "admission.h")  # what `next_object` changes


class NewConnections:
    """One TCP connection after the other, each used once."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.lost = 0  # segments that were sent again
        self.broken: OSError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.wait(PACE_S):
                with self._lab.connect(timeout=30.0) as sock:
                    # The kernel sends a SYN again after a second: that a packet was lost shows in the retransmissions.
                    ask(sock, str(self.done))
                    self.lost += _retransmitted(sock)
                self.done += 1
        except OSError as error:
            self.broken = error


def _retransmitted(sock: socket.socket) -> int:
    """struct tcp_info (include/uapi/linux/tcp.h): tcpi_total_retrans."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[100:104], "little")


@pytest.fixture(params=["auto", "xdp", "tc"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    xdp = request.param == "xdp"
    with Lab(servers=2, xdp=xdp, attach=request.param) as lab:
        yield lab


@pytest.fixture(scope="module")
def next_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a later version could look like: a server, a connection and a record have grown, fields have moved, and maps
    by service or source have more elements."""
    sources = tmp_path_factory.mktemp("next") / "bpf"
    shutil.copytree(OBJECT.parent, sources, ignore=shutil.ignore_patterns("*.o"))
    text = {name: (sources / name).read_text() for name in NEXT}
    text["lb.h"], versions = re.subn(r"(?<=#define LAYOUT_VERSION )\d+", "999", text["lb.h"])
    text["lb_config.h"], servers = re.subn(r"\nstruct server \{\n", r"\g<0>\t__u64 grown;\n", text["lb_config.h"])
    text["lb_conns.h"], conns = re.subn(r"\nstruct (conn|record) \{\n", r"\g<0>\t__u64 grown[2];\n", text["lb_conns.h"])
    more = r"(?<=max_entries, )[^)]+(?=\);[^}]*} (?:prefixes|sources|timeouts|admissions) SEC)"
    text["maps.h"], by_service = re.subn(more, r"2 * \g<0>", text["maps.h"])
    text["access.h"], by_source = re.subn(more, r"2 * \g<0>", text["access.h"])
    text["admission.h"], counted = re.subn(more, r"2 * \g<0>", text["admission.h"])
    assert (versions, servers, conns, by_service, by_source, counted) == (1, 1, 2, 1, 2, 1)
    for name, content in text.items():
        (sources / name).write_text(content)
    compile_object(sources / "lb.bpf.c", sources / "lb.bpf.o")
    return sources / "lb.bpf.o"


def understand(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is of the version of `next_object`."""
    pack, unpack = layout.Server.pack, layout.Server.unpack.__func__  # type: ignore[attr-defined]

    def unpack_next(cls: Any, data: bytes) -> Any:
        return unpack(cls, data[8:])

    line, grown = listing.line, 16  # records have so much in front
    size = records.RECORD_SIZE + grown
    for module in (records, exchange, listing):
        monkeypatch.setattr(module, "RECORD_SIZE", size)
    monkeypatch.setattr(records, "_RESULT_AT", records._RESULT_AT + grown)
    monkeypatch.setattr(exchange, "_IDLE_AT", exchange._IDLE_AT + grown)
    monkeypatch.setattr(listing, "line", lambda data, at: line(data, at + grown))
    monkeypatch.setattr(layout, "LAYOUT_VERSION", 999)
    monkeypatch.setattr(layout, "SERVER_SIZE", layout.SERVER_SIZE + 8)
    monkeypatch.setattr(layout, "UNUSED_SERVER", bytes(layout.SERVER_SIZE))
    monkeypatch.setattr(layout.Server, "pack", lambda self: bytes(8) + pack(self))
    monkeypatch.setattr(layout.Server, "unpack", classmethod(unpack_next))


async def change(lab: Lab, plane: XdpPlane, new: XdpPlane, before_opening: Callable[[], None] = lambda: None) -> None:
    """Another plane takes over from an open one while packets pass."""
    with lab.connect() as held, Traffic(lab) as traffic, NewConnections(lab) as connections:
        name = ask(held)
        await until(lambda: traffic.answered > 200 and connections.done > 20, "traffic flows")
        before = await plane.counters()
        await plane.close()
        before_opening()
        await new.open()
        try:
            sent, done = traffic.sent, connections.done
            await until(lambda: traffic.oldest_unanswered > sent + 200 and connections.done > done + 20, "it flows on")
            assert ask(held, "after the change") == name
            traffic.stop()
            connections.stop()
            status = await new.status()
            assert status.adopted
            assert (traffic.lost, traffic.broken, connections.lost, connections.broken) == ([], None, 0, None)
            assert status.drops == dict.fromkeys(status.drops, 0)
            # Nothing but the new set is pinned, and its counters went on.
            assert [pin.name for pin in (new._pins).glob("maps-*")] == ["maps-2"]
            counters = (await new.counters())[HTTP].total
            assert counters.connections >= before[HTTP].total.connections + connections.done - done
            assert counters.active + counters.inactive >= 2
        finally:
            await new.close()


async def test_a_table_of_another_size_takes_over_without_a_lost_packet(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path, connections=8192) as plane:
        await programmed(plane, "wlc", server(1), server(2))
        new = XdpPlane(tmp_path, attach=lab.plane_attach, connections=65536)  # type: ignore[arg-type]
        await change(lab, plane, new)
        await plane.open()  # and back again
        assert (await plane.status()).connections_max == 8192
        assert (await plane.status()).problem == ""


@pytest.mark.parametrize("lab", ["auto"], indirect=True)
async def test_a_later_version_takes_over_without_a_lost_packet(
    lab: Lab, tmp_path: Path, next_object: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "wlc", server(1, weight=3), server(2))
        held = await plane.dump()
        new = XdpPlane(tmp_path, attach=lab.plane_attach, object_path=next_object)  # type: ignore[arg-type]
        await change(lab, plane, new, lambda: understand(monkeypatch))
        await new.open()
        assert await new.dump() == held
        await new.close()


@pytest.mark.parametrize("lab", ["auto"], indirect=True)
async def test_who_may_connect_and_for_how_long_goes_on_in_a_later_version(
    lab: Lab, tmp_path: Path, next_object: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists, rates with what each source has left, and services' own time-outs."""
    clients, others = (frozenset({ip_network(text)}) for text in (f"{CLIENT}/32", "203.0.113.0/24"))
    rate = ConnectionRate(1, 1000, 32)
    async with lab.plane(tmp_path) as plane:
        await programmed(plane, "rr", server(1))
        tcp = ProgrammedService(HTTP, "rr", access=Access(clients, others, rate), timeouts=OwnTimeouts(tcp_s=5000))
        denied = ServiceId.of("udp", VIP, PORT)
        udp = ProgrammedService(denied, "rr", access=Access(deny=clients), timeouts=OwnTimeouts(udp_s=7))
        await plane.apply(PutService(tcp))
        await plane.apply(PutService(udp))
        with lab.connect() as sock, lab.udp() as shut_out:
            ask(sock)
            shut_out.send(b"hello")
            await until(lambda: _denied(plane) == 1, "the list keeps it out")
            assert [4990 < one.expires_s <= 5000 for one in await _established(plane)] == [True]
            tcp = replace(tcp, timeouts=OwnTimeouts(tcp_s=50))
            await plane.apply(PutService(tcp))  # less than the cluster's: also the programs must hear of it
            assert [40 < one.expires_s <= 50 for one in await _established(plane)] == [True]
            soonest = plane._maps["config"].get_index(0)[layout.CONFIG_SIZE - layout.TIMEOUTS_SIZE :]
            assert settings.unpack_own(soonest) == OwnTimeouts(50, 120, 7)
            left = dict(plane._maps["sources"].items())
            assert len(left) == 1
            held, (tracked,) = await plane.dump(), await _established(plane)
            await plane.close()
            understand(monkeypatch)
            new = XdpPlane(tmp_path, attach=lab.plane_attach, object_path=next_object)  # type: ignore[arg-type]
            await new.open()
            try:
                assert await new.dump() == held
                assert dict(new._maps["sources"].items()) == left
                (carried,) = await _established(new)
                assert replace(carried, expires_s=tracked.expires_s) == tracked and carried.expires_s > 40
                ask(sock, "goes on")
                with lab.connect() as another:
                    ask(another)
                    shut_out.send(b"hello")
                    await until(lambda: _denied(new) == 2, "the list keeps it out")
                found = {key: one.admission for key, one in (await new.counters()).items()}
                before_and_after = {**NOTHING_REFUSED.refused, "denied": 2}
                assert found[denied] == replace(NOTHING_REFUSED, refused=before_and_after)
                assert found[HTTP] == NOTHING_REFUSED
                assert dict(new._maps["sources"].items()) != left
            finally:
                await new.close()


async def _established(plane: XdpPlane) -> list[Connection]:
    return [one for one in await listed(plane) if one.state == "ESTABLISHED"]


def _denied(plane: XdpPlane) -> int:
    return counts.unpack_event(plane._maps["events"].get_index(layout.Event.DROP_DENIED))


async def test_a_smaller_table_must_have_room_for_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lab(servers=1) as lab:
        async with lab.plane(tmp_path, connections=1024) as plane:
            await programmed(plane, "rr", server(1))
            held = [lab.connect() for _ in range(60)]
            await plane.close()
            new = XdpPlane(tmp_path, connections=16)
            with monkeypatch.context() as patch:
                # As if they were fewer: that they have no room where they belong shows when they are copied.
                patch.setattr("lbnode.dataplane.xdp.succession.pins.PinnedSet.connections", 16)
                await new.open()
                assert "connections have no room in one of 16" in (await new.status()).problem
                await new.close()
            await new.open()
            status = await new.status()
            await new.close()
            assert status.connections_max == 1024 and status.connections >= 60
            assert (
                "keeps its 1024 entries" in status.problem
                and "too many for one of 16" in status.problem
                and status.problem in caplog.text
            )
            for sock in held:
                ask(sock)
                sock.close()
            assert [pin.name for pin in (tmp_path / "bpf").glob("maps-*")] == ["maps-1"]


async def test_a_table_without_memory_for_it_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab(servers=1) as lab:
        async with lab.plane(tmp_path, connections=1024) as plane:
            await programmed(plane, "rr", server(1))
            await plane.close()
            monkeypatch.setattr("lbnode.dataplane.xdp.succession.loading._available", lambda: 1 << 20)
            new = XdpPlane(tmp_path, connections=1 << 20)
            await new.open()
            status = await new.status()
            await new.close()
            assert status.connections_max == 1024
            assert "takes 136 MB, and 1 MB of memory are available: write a smaller number" in status.problem


@pytest.mark.parametrize("step", ["take_over", "finish"])
async def test_what_a_killed_process_left_half_done_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It ended before this step."""
    with Lab(servers=2) as lab:
        async with lab.plane(tmp_path, connections=8192) as plane:
            await programmed(plane, "rr", server(1), server(2))
            with lab.connect() as held, Traffic(lab) as traffic:
                name = ask(held)
                await until(lambda: traffic.answered > 100, "traffic flows")
                await plane.close()
                with monkeypatch.context() as patch:
                    patch.setattr(Loading, step, _killed)
                    with pytest.raises(KeyboardInterrupt):
                        await XdpPlane(tmp_path, connections=65536).open()
                sent = traffic.sent
                await until(lambda: traffic.oldest_unanswered > sent + 100, "it flows on without a process")
                with lab.connect() as sock:
                    ask(sock, "also to new connections")
                assert len(list((tmp_path / "bpf").glob("maps-*"))) == 2
                # The next one wants yet another size.
                new = XdpPlane(tmp_path, connections=16384)
                await new.open()
                status = await new.status()
                await new.close()
                assert status.adopted and status.connections_max == 16384
                assert [pin.name for pin in (tmp_path / "bpf").glob("maps-*")] == ["maps-3"]
                sent = traffic.sent
                await until(lambda: traffic.oldest_unanswered > sent + 100, "it flows on")
                assert ask(held, "after the change") == name
                traffic.stop()
                assert (traffic.lost, traffic.broken) == ([], None)


async def _killed(self: Loading) -> None:
    raise KeyboardInterrupt


async def test_maps_of_a_version_before_these_sets_are_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Lab(servers=2) as lab:
        async with lab.plane(tmp_path) as plane:
            await programmed(plane, "rr", server(1))
            await plane.close()
            pinned = Map.pinned(tmp_path / "bpf" / "maps-1" / "meta")
            pinned.put_index(0, layout.pack_meta())
            syscall.obj_pin(pinned.fd, str(tmp_path / "bpf" / "meta"))
            pinned.close()
            shutil.rmtree(tmp_path / "bpf" / "maps-1")
            await plane.open()
            assert not (await plane.status()).adopted
            assert f"layout {layout.LAYOUT_VERSION}" in caplog.text and "connections are lost" in caplog.text
            await programmed(plane, "rr", server(2))
            with lab.connect() as sock:
                assert ask(sock) == "rs2"
