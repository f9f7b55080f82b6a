"""Connection records carried from one gateway's plane to another's: connections go on through the second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lbnode.dataplane.base import DeleteService
from lbnode.dataplane.xdp.plane import XdpPlane
from tests.listed import listed
from tests.netns.xdp_lab import HTTP, Lab, ask, download, programmed, server, until

pytestmark = pytest.mark.root


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(servers=2, gateways=2) as lab:
        yield lab


async def test_connection_goes_on_through_the_second_gateway(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path / "1", "gw") as first, lab.plane(tmp_path / "2", "gw2") as second:
        assert (first.record_layout, first.record_size) == (second.record_layout, second.record_size)
        # In another order, so that the second plane's indexes differ: records must name servers by address.
        await programmed(first, "rr", server(1), server(2))
        await programmed(second, "rr", server(2), server(1))
        assert await first.changed_records(1000) == b""  # from now on changes are queued
        with lab.connect() as one, lab.connect() as two, lab.udp() as datagrams:
            names = [ask(one), ask(two)]
            for _ in range(2):  # a UDP flow of one datagram is not worth a record
                datagrams.send(b"x")
                udp_name = datagrams.recv(100).split()[0]
            assert sorted(names) == ["rs1", "rs2"]
            records = await first.changed_records(1000)
            assert len(records) == 3 * first.record_size
            assert await first.changed_records(1000) == b"", "each change is handed out once"
            assert await second.import_records(records) == 3
            assert await second.changed_records(1000) == b"", "what came from a peer is not sent back"

            async def tracked(plane: XdpPlane) -> list[tuple[object, ...]]:
                return sorted((c.protocol, c.client, c.virtual, c.server, c.state) for c in await listed(plane))

            assert await tracked(first) == await tracked(second) != []
            lab.move_addresses("gw2")
            assert [ask(one, "over gw2"), ask(two, "over gw2")] == names
            assert download(one, 500_000) == 500_000
            datagrams.send(b"y")
            assert datagrams.recv(100).split()[0] == udp_name
            total = (await second.counters())[HTTP].total
            assert total.active == 2


async def test_bulk_transfer_and_state_changes(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path / "1", "gw") as first, lab.plane(tmp_path / "2", "gw2") as second:
        await programmed(first, "rr", server(1), server(2))
        await programmed(second, "rr", server(1), server(2))
        await first.changed_records(1)
        socks = [lab.connect() for _ in range(20)]
        for sock in socks:
            ask(sock)
        bulk = b"".join([chunk async for chunk in first.all_records()])
        assert len(bulk) == 20 * first.record_size
        await first.changed_records(1000)
        assert await second.import_records(bulk) == 20
        assert await second.import_records(bulk) == 20, "a record that is there already is merged"
        assert (await second.status()).connections == 20
        assert (await second.counters())[HTTP].total.active == 20
        for sock in socks:
            sock.close()

        async def inactive() -> bool:
            return (await first.counters())[HTTP].total.active == 0

        await until(inactive, "the closed connections are seen")
        records = await first.changed_records(1000)
        assert len(records) == 20 * first.record_size, "changes of one connection are merged"
        await second.import_records(records)
        total = (await second.counters())[HTTP].total
        assert (total.active, total.inactive) == (0, 20)


async def test_records_of_unknown_services_are_skipped(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path / "1", "gw") as first, lab.plane(tmp_path / "2", "gw2") as second:
        await programmed(first, "rr", server(1))
        await first.changed_records(1)
        with lab.connect() as sock:
            ask(sock)
            records = await first.changed_records(10)
            assert len(records) == first.record_size
            assert await second.import_records(records) == 0
            await programmed(second, "rr", server(1))
            await second.apply(DeleteService(HTTP))
            assert await second.import_records(records) == 0
            assert (await second.status()).connections == 0


async def test_records_that_come_before_their_service_are_taken_once_it_is_there(lab: Lab, tmp_path: Path) -> None:
    async with lab.plane(tmp_path / "1", "gw") as first, lab.plane(tmp_path / "2", "gw2") as second:
        await programmed(first, "rr", server(1))
        with lab.connect() as sock:
            ask(sock)
            bulk = b"".join([chunk async for chunk in first.all_records()])
            assert len(bulk) == first.record_size
            assert await second.import_records(bulk) == 0, "a node that just joined knows no service yet"
            await programmed(second, "rr", server(1))
            await second.changed_records(1)
            assert (await second.status()).connections == 1
            lab.move_addresses("gw2")
            assert ask(sock, "over gw2") == "rs1"
