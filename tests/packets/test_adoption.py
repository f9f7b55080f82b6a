"""A restarted daemon takes over the maps: what they hold, what it may hand out, and how the schedulers go on."""

from __future__ import annotations

import asyncio
import random
from itertools import permutations
from typing import cast

import pytest

from lbnode.dataplane.xdp.layout import SCHEDULERS, Event
from lbnode.dataplane.xdp.neighbours import Neighbours
from lbnode.dataplane.xdp.tables import Tables
from lbnode.errors import DataPlaneError
from lbnode.model import ServerId, ServiceId, Timeouts
from tests.packets.bench import FULLNAT, Bench
from tests.packets.traffic import segment, tcp
from tests.packets.wire import CLIENT, VIP

pytestmark = pytest.mark.root


def restart(bench: Bench) -> None:
    before = bench.tables.programmed(Timeouts())
    bench.tables = Tables(bench.maps, bench._seconds, cast(Neighbours, bench.hops))
    asyncio.run(bench.tables.load())
    after = bench.tables.programmed(Timeouts())
    assert after == before
    assert [list(one.servers) for one in after.services.values()] == [
        list(one.servers) for one in before.services.values()
    ]


def fill(bench: Bench, scheduler: str, seed: int) -> ServiceId:
    """A service whose servers came, changed and went; its connections in all stages."""
    chance = random.Random(seed)
    service = bench.service(scheduler=scheduler)
    servers: list[ServerId] = []
    for port in range(20000, 20060):
        if port % 2 == 0:
            servers.append(bench.server(service, f"198.51.100.{port % 100 + 11}:80", weight=chance.randrange(4)))
        if port % 7 == 0:
            bench.server(service, str(chance.choice(servers)), weight=chance.randrange(4))
        if port % 9 == 0:
            bench.remove(service, servers.pop(chance.randrange(len(servers))))
        bench.send(tcp(port), check="none")
        if port % 3 == 0:
            bench.send(tcp(port, "R"), check="none")
    return service


def chosen(bench: Bench, service: ServiceId) -> list[str]:
    """The servers of the next connections, with a change of weight and a new server in between."""
    found = []
    for port in range(30000, 30040):
        if port == 30020:
            bench.server(service, next(str(key) for key in bench.tables.services[service].servers), weight=5)
            bench.server(service, "198.51.100.250:80", weight=2)
        out = bench.send(tcp(port), check="none")
        found.append(str(out.ip.dst) if out.verdict == "send" else out.verdict)
    return found


@pytest.mark.parametrize("entry", ["xdp"], indirect=True)
@pytest.mark.parametrize("scheduler", sorted({*SCHEDULERS} - {"twos"}))
def test_the_schedulers_go_on_as_if_nothing_had_been(bench: Bench, peer: Bench, scheduler: str) -> None:
    """Beside a node that was not restarted. (twos draws by chance.)"""
    for node in (bench, peer):
        fill(node, scheduler, 7)
    restart(bench)
    service = ServiceId.parse(f"tcp:{VIP}:80")
    assert chosen(bench, service) == chosen(peer, service)
    restart(bench)


@pytest.mark.parametrize("entry", ["xdp"], indirect=True)
def test_a_deleted_server_is_remembered_while_it_has_connections(bench: Bench) -> None:
    service = bench.service()
    server = bench.server(service, "198.51.100.11:80")
    bench.establish()
    index = bench.tables.services[service].servers[server].index
    bench.remove(service, server)
    restart(bench)
    assert bench.tables.services[service].servers == {}
    other = bench.server(service, "198.51.100.12:80")
    assert bench.tables.services[service].servers[other].index != index
    bench.server(service, "198.51.100.11:80")
    assert bench.gauge(service, server).active == 1
    assert bench.send(tcp(40000, "A")).ip.dst == "198.51.100.11"


@pytest.mark.parametrize("entry", ["xdp"], indirect=True)
def test_local_addresses_are_kept_and_given_back(bench: Bench) -> None:
    """Servers with the same ones share an element of the map; who gets others leaves the old ones to nobody."""
    service, two = bench.service(), ("198.51.100.4", "198.51.100.5")
    for last in (11, 12):
        bench.server(service, f"198.51.100.{last}:80", FULLNAT, local=two, toa=True)
    servers = bench.tables.services[service].servers
    assert len({one.pool for one in servers.values()}) == 1
    restart(bench)
    bench.server(service, "198.51.100.11:80", FULLNAT, local=("198.51.100.6",))
    assert bench.establish(40000).src in {"198.51.100.6", *two}
    restart(bench)
    pools = [one.pool for one in bench.tables.services[service].servers.values()]
    assert len({*pools}) == 2 and 0 not in pools
    for server in list(bench.tables.services[service].servers):
        bench.remove(service, server)
    for _ in range(3000):  # more than there are elements
        bench.server(service, "198.51.100.13:80", FULLNAT, local=two)
        bench.server(service, "198.51.100.13:80")


@pytest.mark.parametrize("entry", ["xdp"], indirect=True)
def test_the_servers_of_a_deleted_service_are_given_up(bench: Bench) -> None:
    """Nothing tells any more whose they were; the sweeper removes their connections."""
    service = bench.service()
    bench.server(service, "198.51.100.11:80")
    bench.establish()
    bench.remove(service)
    assert len(bench.records()) == 1
    restart(bench)
    assert bench.advance(0) == 1


@pytest.mark.parametrize("entry", ["xdp"], indirect=True)
def test_indexes_of_deleted_servers_are_found_when_none_is_left(bench: Bench) -> None:
    service = bench.service()
    gone = [bench.server(service, f"198.51.100.{last}:80") for last in range(11, 31)]
    for port in range(20000, 20020):
        bench.connect(port)
    bench.tables._server_indexes._end = len(gone)  # as if the maps were that small
    for server in gone:
        bench.remove(service, server)
    with pytest.raises(DataPlaneError, match="no room"):
        bench.server(service, "198.51.100.40:80")
    bench.advance(61)  # SYN_RECV runs out
    bench.server(service, "198.51.100.40:80")


@pytest.mark.parametrize("entry", ["xdp"], indirect=True)
def test_a_deletion_that_finds_no_room_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    service = bench.service(scheduler="wlc")
    server = bench.server(service, "198.51.100.11:80")
    bench.server(service, "198.51.100.12:80", weight=0)
    with monkeypatch.context() as patch:
        patch.setattr(bench.tables._scheduling._ranges, "take", lambda length, now: None)
        with pytest.raises(DataPlaneError, match="no room for 1 scheduler slots"):
            bench.remove(service, server)
    assert bench.connect().ip.dst == "198.51.100.11"
    bench.remove(service, server)
    assert bench.send(tcp(40001)).ip.src == VIP, "refused"


@pytest.mark.parametrize("entry", ["xdp"], indirect=True)
def test_every_scheduler_after_every_other(bench: Bench) -> None:
    """Lists, tables and groups of the one before are given back."""
    service = bench.service()
    for last in range(11, 31):
        bench.server(service, f"198.51.100.{last}:80", weight=last % 3)
    for port, (one, other) in enumerate(permutations(SCHEDULERS, 2), 20000):
        for scheduler in (one, other):
            bench.service(scheduler=scheduler)
            bench.send(segment((CLIENT, port), (VIP, 80), "S", bench.wire.mac("front")), check="none")
    assert bench.event(Event.DROP_SERVER_GONE) == bench.event(Event.DROP_ERROR) == 0
    restart(bench)
    bench.remove(service)
    assert bench.service(scheduler="wlc") == service
    for last in range(11, 31):
        bench.server(service, f"198.51.100.{last}:80")
    assert bench.connect(61000).ip.dst == "198.51.100.30"
