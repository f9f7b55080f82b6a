"""The contract of lbnode.dataplane.base.DataPlane. Every data plane runs it: add a PlaneCase in plane_cases.py."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from lbnode.dataplane.base import (
    DataPlane,
    DeleteServer,
    DeleteService,
    Op,
    PutServer,
    PutService,
    SetTimeouts,
)
from lbnode.dataplane.fake import FakePlane
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.explanation import Question
from lbnode.model import (
    Access,
    Connection,
    ConnectionRate,
    ForwardingMethod,
    L4Protocol,
    OwnTimeouts,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    Timeouts,
    Tunnel,
    TunnelChecksum,
    TunnelType,
)
from tests.contracts.plane_cases import CASES, PlaneCase
from tests.listed import listed


@pytest.fixture(params=CASES.values())
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PlaneCase]:
    case: PlaneCase = request.param(tmp_path)
    yield case
    await case.cleanup()


@pytest.fixture
async def plane(case: PlaneCase) -> AsyncIterator[DataPlane]:
    plane = case.plane()
    await plane.open()
    yield plane
    await plane.close(unload=True)


WEB, DNS = ServiceId.of("tcp", "192.0.2.10", 80), ServiceId.of("udp", "192.0.2.10", 53)
IDS = [ServerId.parse(f"198.51.100.{n}:80") for n in (21, 22, 23)]
WEB_SERVICE = ProgrammedService(WEB, "wrr")
DNS_SERVICE = ProgrammedService(DNS, "rr")


def server(number: int, weight: int = 1, forward: ForwardingMethod = ForwardingMethod.MASQUERADE) -> ProgrammedServer:
    return ProgrammedServer(IDS[number], weight, forward)


async def apply(plane: DataPlane, *ops: Op) -> None:
    for op in ops:
        await plane.apply(op)


def web(*servers: ProgrammedServer, service: ProgrammedService = WEB_SERVICE) -> ProgrammedService:
    return replace(service, servers={item.id: item for item in servers})


async def services(plane: DataPlane) -> dict[ServiceId, ProgrammedService]:
    return dict((await plane.dump()).services)


BASIC: tuple[Op, ...] = (PutService(WEB_SERVICE), PutServer(WEB, server(0)), PutServer(WEB, server(1, 2)))


async def test_empty_at_first(plane: DataPlane) -> None:
    assert await plane.dump() == Programmed()
    assert dict(await plane.counters()) == {}
    assert not (await plane.status()).adopted


async def test_dump_tells_what_was_applied(plane: DataPlane) -> None:
    await apply(
        plane,
        *BASIC,
        PutService(DNS_SERVICE),
        PutServer(DNS, replace(server(2), id=ServerId.parse("198.51.100.23:53"))),
    )
    found = await services(plane)
    assert found[WEB] == web(server(0), server(1, 2))
    assert set(found) == {WEB, DNS}


@pytest.mark.parametrize("forward", list(ForwardingMethod))
async def test_each_forwarding_method(plane: DataPlane, forward: ForwardingMethod) -> None:
    if forward not in plane.capabilities().forwarding:
        pytest.skip(f"{plane.capabilities().kind} has no {forward}")
    wanted = server(0, 1, forward)
    if forward is ForwardingMethod.FULLNAT:
        wanted = replace(wanted, local_addresses=(ip_address("198.51.100.4"), ip_address("198.51.100.5")), toa=True)
    await apply(plane, PutService(WEB_SERVICE), PutServer(WEB, wanted))
    assert (await services(plane))[WEB] == web(wanted)


async def test_full_nat_where_there_is_none(plane: DataPlane) -> None:
    if ForwardingMethod.FULLNAT in plane.capabilities().forwarding:
        pytest.skip(f"{plane.capabilities().kind} has full NAT")
    await apply(plane, PutService(WEB_SERVICE))
    with pytest.raises(Unsupported, match="only the XDP/tcx data plane has"):
        await plane.apply(PutServer(WEB, server(0, 1, ForwardingMethod.FULLNAT)))


async def test_an_ipv6_service_beside_one_of_the_same_port(plane: DataPlane) -> None:
    web6 = ServiceId.of("tcp", "2001:db8::10", 80)
    real = ProgrammedServer(ServerId.parse("[2001:db8:b::21]:8080"), 3, ForwardingMethod.MASQUERADE)
    await apply(plane, *BASIC, PutService(replace(WEB_SERVICE, id=web6)), PutServer(web6, real))
    assert await services(plane) == {
        WEB: web(server(0), server(1, 2)),
        web6: web(real, service=replace(WEB_SERVICE, id=web6)),
    }
    await apply(plane, DeleteService(WEB))
    assert set(await services(plane)) == {web6}


async def test_an_sctp_service(plane: DataPlane) -> None:
    service = replace(WEB_SERVICE, id=ServiceId.of("sctp", "192.0.2.10", 80))
    await apply(plane, PutService(service), PutServer(service.id, server(0)))
    assert await services(plane) == {service.id: replace(service, servers={IDS[0]: server(0)})}


TUNNELS = (
    Tunnel(),
    Tunnel(TunnelType.GUE, 6080),
    Tunnel(TunnelType.GUE, 6080, TunnelChecksum.FULL),
    Tunnel(TunnelType.GUE, 6080, TunnelChecksum.REMOTE),
    Tunnel(TunnelType.GRE),
    Tunnel(TunnelType.GRE, 0, TunnelChecksum.FULL),
)


@pytest.mark.parametrize("real", ["198.51.100.21:80", "[2001:db8:b::21]:80"])
@pytest.mark.parametrize("virtual", ["192.0.2.10", "2001:db8::10"])
async def test_each_tunnel_between_all_families(plane: DataPlane, virtual: str, real: str) -> None:
    service_id, server_id = ServiceId.of("tcp", virtual, 80), ServerId.parse(real)
    await plane.apply(PutService(replace(WEB_SERVICE, id=service_id)))
    for tunnel in TUNNELS:
        one = ProgrammedServer(server_id, 1, ForwardingMethod.TUNNEL, tunnel=tunnel)
        await plane.apply(PutServer(service_id, one))
        assert (await services(plane))[service_id].servers == {server_id: one}


async def test_each_scheduler(plane: DataPlane) -> None:
    for scheduler in sorted(plane.capabilities().schedulers):
        await apply(plane, PutService(replace(WEB_SERVICE, scheduler=scheduler)), PutServer(WEB, server(0, 3)))
        assert (await services(plane))[WEB] == web(server(0, 3), service=replace(WEB_SERVICE, scheduler=scheduler))


WEB6, MARK = ServiceId.of("tcp", "2001:db8::10", 80), ServiceId.parse("fwmark:7")
FEATURES = {
    "persistent": (ProgrammedService(WEB, "wlc", persistent_s=300), "198.51.100.21:8080"),
    "persistent-netmask": (ProgrammedService(WEB, "rr", persistent_s=1, persistent_netmask=24), "198.51.100.21:80"),
    "persistent-mask-with-holes": (
        ProgrammedService(WEB, "rr", persistent_s=2678400, persistent_netmask=IPv4Address("255.0.255.0")),
        "198.51.100.21:80",
    ),
    "persistent-prefix": (
        ProgrammedService(WEB6, "sh", frozenset({"sh-port"}), 60, 48),
        "[2001:db8:b::21]:80",
    ),
    "all-ports": (ProgrammedService(ServiceId.of("tcp", "192.0.2.10", 0), "rr", persistent_s=60), "198.51.100.21:0"),
    "one-packet": (ProgrammedService(DNS, "rr", one_packet=True), "198.51.100.21:53"),
    "mark": (ProgrammedService(MARK, "lblcr"), "198.51.100.21:0"),
    "mark-and-port": (ProgrammedService(MARK, "dh", one_packet=True, persistent_s=60), "198.51.100.21:8080"),
    "mark-of-ipv6": (ProgrammedService(ServiceId.parse("fwmark:4294967295:inet6"), "rr"), "[2001:db8:b::21]:0"),
    "generic-flags": (ProgrammedService(WEB, "wrr", frozenset({"flag-1", "flag-3"})), "198.51.100.21:80"),
}


@pytest.mark.parametrize("name", FEATURES)
async def test_what_a_service_may_have_is_kept_over_a_restart(case: PlaneCase, name: str) -> None:
    service, address = FEATURES[name]
    one = ProgrammedServer(ServerId.parse(address), 2**31 - 1, ForwardingMethod.MASQUERADE, 100, 50)
    wanted = replace(service, servers={one.id: one})
    plain = replace(service, persistent_s=600 if service.id.port == 0 and not service.id.fwmark else 0)
    plain = replace(plain, persistent_netmask=None, one_packet=False, scheduler_flags=frozenset())
    first = case.plane()
    await first.open()
    await apply(first, PutService(service), PutServer(service.id, one))
    assert await services(first) == {service.id: wanted}
    await first.close()
    second = case.plane()
    await second.open()
    try:
        assert await services(second) == {service.id: wanted}
        await apply(
            second, PutService(plain), PutServer(service.id, replace(one, upper_threshold=0, lower_threshold=0))
        )
        (found,) = (await services(second)).values()
        assert replace(found, servers={}) == plain and found.servers[one.id].upper_threshold == 0
    finally:
        await second.close(unload=True)


NETWORK = frozenset({ip_network("203.0.113.0/24")})
LACKED = {  # by IPVS
    "allow": replace(WEB_SERVICE, access=Access(allow=NETWORK)),
    "deny": replace(WEB_SERVICE, access=Access(frozenset({ip_network("203.0.112.0/23")}), NETWORK)),
    "new_connections": replace(WEB_SERVICE, access=Access(rate=ConnectionRate(100, 200, 24))),
    "mss": replace(WEB_SERVICE, mss=1360),
}


@pytest.mark.parametrize("name", LACKED)
async def test_what_ip_vs_has_not_is_kept_over_a_restart_or_refused_by_name(case: PlaneCase, name: str) -> None:
    wanted = LACKED[name]
    first = case.plane()
    await first.open()
    try:
        if not first.capabilities().access:
            with pytest.raises(Unsupported, match=name):
                await first.apply(PutService(wanted))
            return
        await first.apply(PutService(wanted))
        assert await services(first) == {WEB: wanted}
    finally:
        await first.close()
    second = case.plane()
    await second.open()
    try:
        assert await services(second) == {WEB: wanted}
        await second.apply(PutService(WEB_SERVICE))
        assert await services(second) == {WEB: WEB_SERVICE}
    finally:
        await second.close(unload=True)


async def test_a_services_own_timeouts_are_kept_over_a_restart_or_refused_by_name(case: PlaneCase) -> None:
    wanted = replace(WEB_SERVICE, timeouts=OwnTimeouts(tcp_s=60, udp_s=7))
    first = case.plane()
    await first.open()
    try:
        if not first.capabilities().own_timeouts:
            with pytest.raises(Unsupported, match=f"{WEB}: timeouts"):
                await first.apply(PutService(wanted))
            return
        await apply(first, PutService(DNS_SERVICE), PutService(wanted))
        assert await services(first) == {WEB: wanted, DNS: DNS_SERVICE}
    finally:
        await first.close()
    second = case.plane()
    await second.open()
    try:
        assert await services(second) == {WEB: wanted, DNS: DNS_SERVICE}
        other = replace(wanted, timeouts=OwnTimeouts(tcp_fin_s=5))
        await second.apply(PutService(other))
        assert await services(second) == {WEB: other, DNS: DNS_SERVICE}
        await apply(second, DeleteService(WEB), PutService(WEB_SERVICE))
        assert await services(second) == {WEB: WEB_SERVICE, DNS: DNS_SERVICE}
    finally:
        await second.close(unload=True)


async def test_operations_are_idempotent(plane: DataPlane) -> None:
    for op in (*BASIC, DeleteServer(WEB, IDS[0]), SetTimeouts(Timeouts(60, 30, 20)), DeleteService(WEB)):
        await plane.apply(op)
        once = await plane.dump()
        await plane.apply(op)
        assert await plane.dump() == once


async def test_deleting_what_is_absent_succeeds(plane: DataPlane) -> None:
    await apply(
        plane, DeleteService(WEB), DeleteServer(WEB, IDS[0]), PutService(WEB_SERVICE), DeleteServer(WEB, IDS[0])
    )
    assert await services(plane) == {WEB: WEB_SERVICE}


async def test_a_server_without_its_service_is_an_error(plane: DataPlane) -> None:
    with pytest.raises(DataPlaneError, match=r"192\.0\.2\.10:80") as told:
        await plane.apply(PutServer(WEB, server(0)))
    assert told.value.errno == errno.ESRCH
    assert await services(plane) == {}


async def test_many_are_applied_in_their_order_and_fail_one_by_one(plane: DataPlane) -> None:
    lost, gone = PutServer(DNS, server(0)), replace(DNS_SERVICE, id=ServiceId.of("udp", "192.0.2.11", 53))
    ops = (
        *(*BASIC, lost, PutServer(WEB, server(2)), DeleteServer(WEB, IDS[2]), SetTimeouts(Timeouts(60, 30, 20))),
        *(PutServer(WEB, server(0, 7)), PutService(gone), PutServer(gone.id, server(1)), DeleteService(gone.id)),
        *(DeleteServer(WEB, IDS[1]), PutServer(WEB, server(1, 9))),
    )
    for _ in range(2):
        errors = await plane.apply_many(ops)
        assert [str(DNS) in str(error) for error in errors] == [op is lost for op in ops]
        assert [error is None for error in errors] == [op is not lost for op in ops]
        assert await plane.dump() == Programmed({WEB: web(server(0, 7), server(1, 9))}, Timeouts(60, 30, 20))
    assert list(await plane.apply_many(())) == []


async def test_each_of_many_errors_is_told(plane: DataPlane) -> None:
    ids = [ServerId(IPv4Address("198.51.100.0") + n, 80) for n in range(1, 251)]
    puts = [PutServer(WEB, replace(server(0), id=server_id)) for server_id in ids]
    errors = await plane.apply_many(puts)
    assert all(isinstance(error, DataPlaneError) and str(WEB) in str(error) for error in errors) and len(errors) == 250
    assert list(await plane.apply_many([PutService(WEB_SERVICE), *puts])) == [None] * 251
    assert set((await services(plane))[WEB].servers) == set(ids)


async def test_a_weight_changes_alone(plane: DataPlane) -> None:
    await apply(plane, *BASIC, PutServer(WEB, server(0, 0)))
    assert (await services(plane))[WEB] == web(server(0, 0), server(1, 2))
    await apply(plane, PutServer(WEB, server(0, 65535)))
    assert (await services(plane))[WEB] == web(server(0, 65535), server(1, 2))


async def test_putting_a_service_leaves_its_servers(plane: DataPlane) -> None:
    other = min(plane.capabilities().schedulers - {"wrr"})
    changed = replace(WEB_SERVICE, scheduler=other)
    await apply(plane, *BASIC, PutService(changed))
    assert (await services(plane))[WEB] == web(server(0), server(1, 2), service=changed)


async def test_deleting_a_service_takes_its_servers_and_nothing_else(plane: DataPlane) -> None:
    await apply(plane, *BASIC, PutService(DNS_SERVICE), DeleteService(WEB))
    assert await services(plane) == {DNS: DNS_SERVICE}
    await apply(plane, PutService(WEB_SERVICE))
    assert await services(plane) == {DNS: DNS_SERVICE, WEB: WEB_SERVICE}


async def test_timeouts(plane: DataPlane) -> None:
    await apply(plane, SetTimeouts(Timeouts(60, 30, 20)))
    assert (await plane.dump()).timeouts == Timeouts(60, 30, 20)


async def test_counters_exist_for_what_is_programmed_and_can_be_zeroed(plane: DataPlane) -> None:
    await apply(plane, *BASIC)
    counters = await plane.counters()
    assert set(counters[WEB].servers) == set(IDS[:2])
    assert counters[WEB].total.connections == 0
    await plane.zero(WEB)
    await plane.zero(None)
    await plane.zero(DNS)
    assert set((await plane.counters())[WEB].servers) == set(IDS[:2])


async def test_who_cannot_explain_a_packet_says_why(plane: DataPlane) -> None:
    """Nothing comes in here: the namespace has no interface. Explanations themselves: tests/packets/test_explain.py."""
    await apply(plane, *BASIC)
    before = await plane.dump(), await plane.counters()
    with pytest.raises(DataPlaneError, match=r"only the XDP/tcx data plane|no interface carries the data plane"):
        await plane.explain(Question.parse("tcp", "203.0.113.5:40000", "192.0.2.10:80", "", 0, 0))
    assert (await plane.dump(), await plane.counters()) == before


async def test_a_restart_adopts_what_is_there(case: PlaneCase) -> None:
    first = case.plane()
    await first.open()
    await apply(first, *BASIC, SetTimeouts(Timeouts(60, 30, 20)))
    before = await first.dump()
    await first.close()
    second = case.plane()
    await second.open()
    try:
        assert (await second.status()).adopted
        assert await second.dump() == before
        await apply(second, PutServer(WEB, server(2)), DeleteServer(WEB, IDS[0]))
        assert (await services(second))[WEB] == web(server(1, 2), server(2))
    finally:
        await second.close(unload=True)


async def test_what_was_put_is_owned_by_the_next_process_too(case: PlaneCase) -> None:
    first = case.plane()
    await first.open()
    await apply(first, *BASIC, PutService(DNS_SERVICE), DeleteService(DNS))
    await first.close()
    second = case.plane()
    await second.open()
    try:
        assert second.owns(WEB)
    finally:
        await second.close(unload=True)


async def test_unloading_leaves_nothing(case: PlaneCase) -> None:
    first = case.plane()
    await first.open()
    await apply(first, *BASIC)
    await first.close(unload=True)
    second = case.plane()
    await second.open()
    try:
        assert not (await second.status()).adopted
        assert await second.dump() == Programmed()
    finally:
        await second.close(unload=True)


def connection(client_port: int, state: str = "ESTABLISHED") -> Connection:
    client, virtual, real = ip_address("203.0.113.5"), ip_address("192.0.2.10"), IDS[0]
    return Connection(L4Protocol.TCP, (client, client_port), (virtual, 80), (real.address, real.port), state, 600.0)


async def tracked(plane: DataPlane) -> set[Connection]:
    return set(await listed(plane))


async def test_connections_are_listed_and_counted(case: PlaneCase, plane: DataPlane) -> None:
    await apply(plane, *BASIC)
    case.connect(plane, connection(1000))
    case.connect(plane, connection(1001, "SYN_RECV"))
    assert await tracked(plane) == {connection(1000), connection(1001, "SYN_RECV")}
    counters = (await plane.counters())[WEB]
    assert (counters.total.connections, counters.total.active, counters.total.inactive) == (2, 1, 1)
    assert (counters.servers[IDS[0]].connections, counters.servers[IDS[1]].connections) == (2, 0)
    await plane.zero(WEB)
    counters = (await plane.counters())[WEB]
    assert (counters.total.connections, counters.total.active) == (0, 1)


async def test_connection_records_go_to_a_peer_once(case: PlaneCase, plane: DataPlane) -> None:
    await apply(plane, *BASIC)
    wanted = {connection(1000), connection(1001, "FIN_WAIT")}
    for item in wanted:
        case.connect(plane, item)
    peer = FakePlane() if isinstance(plane, FakePlane) else None
    if peer is None:
        pytest.skip("needs a second kernel: see the connection synchronisation tests of this data plane")
    await apply(peer, *BASIC)
    records = await plane.changed_records(100)
    assert len(records) == 2 * plane.record_size
    assert await plane.changed_records(100) == b""
    assert await peer.import_records(records) == 2
    assert await tracked(peer) == wanted
    assert await peer.changed_records(100) == b"", "imported records are not reported back"
    bulk = b"".join([chunk async for chunk in plane.all_records()])
    assert sorted(bulk) == sorted(records)
    case.connect(plane, connection(1000, "CLOSE"))
    assert len(await plane.changed_records(100)) == plane.record_size


async def test_records_of_unknown_services_are_no_error(plane: DataPlane) -> None:
    if not isinstance(plane, FakePlane):
        assert await plane.import_records(b"") == 0
        return
    await plane.import_records(b"\xff" * plane.record_size)
    assert await tracked(plane) == set()
