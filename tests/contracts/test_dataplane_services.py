"""The contract of DataPlane: what services and servers may have is programmed, told and kept, or refused by name."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from lbnode.dataplane.base import DataPlane, DeleteService, PutServer, PutService
from lbnode.errors import Unsupported
from lbnode.model import (
    Access,
    ConnectionRate,
    ForwardingMethod,
    OwnTimeouts,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    Tunnel,
    TunnelChecksum,
    TunnelType,
)
from tests.contracts.plane_cases import PlaneCase
from tests.contracts.programmed import BASIC, DNS, DNS_SERVICE, IDS, WEB, WEB_SERVICE, apply, server, services, web


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
