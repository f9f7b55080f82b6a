"""Full NAT's local addresses: of the service's VIP group, else of the node; changes plan what they concern alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from lbnode.model import (
    Address,
    Config,
    ForwardingMethod,
    RealServer,
    ServerId,
    ServiceId,
    Settings,
    VipGroup,
    VirtualService,
)
from lbnode.plan import Desired, plan

WEB, WEB6 = ServiceId.of("tcp", "192.0.2.10", 80), ServiceId.of("tcp", "2001:db8::10", 80)
PLAIN = ServiceId.of("tcp", "192.0.2.10", 81)
SERVER, SERVER6 = ServerId.parse("198.51.100.21:8080"), ServerId.parse("[2001:db8:b::21]:8080")
GROUP4, GROUP6, OWN = (ip_address(text) for text in ("198.51.100.4", "2001:db8:b::4", "198.51.100.9"))


def config(*local: Address, own: tuple[Address, ...] = (OWN,)) -> Config:
    full = ForwardingMethod.FULLNAT
    services = {
        WEB: VirtualService(WEB, vip_group="front", servers=(RealServer(SERVER, forward=full, toa=True),)),
        WEB6: VirtualService(WEB6, vip_group="front", servers=(RealServer(SERVER6, forward=full),)),
        PLAIN: VirtualService(PLAIN, vip_group="front", servers=(RealServer(SERVER),)),
    }
    group = VipGroup("front", 51, (), {"gw1": 250}, local_addresses=local)
    return Config(1, services, {"front": group}, Settings(local_addresses={"gw1": own}))


def local_of(desired: Desired, service_id: ServiceId) -> tuple[Address, ...]:
    (server,) = desired.programmed.services[service_id].servers.values()
    return server.local_addresses


def test_the_groups_addresses_of_the_servers_family() -> None:
    desired = plan(config(GROUP4, GROUP6), {}, node="gw1")
    assert [local_of(desired, one) for one in (WEB, WEB6, PLAIN)] == [(GROUP4,), (GROUP6,), ()]
    assert desired.programmed.services[WEB].servers[SERVER].toa
    assert not desired.programmed.services[WEB6].servers[SERVER6].toa


def test_else_the_nodes() -> None:
    assert local_of(plan(config(), {}, node="gw1"), WEB) == (OWN,)
    assert local_of(plan(config(), {}, node="gw2"), WEB) == ()


def test_a_change_plans_the_services_that_it_concerns() -> None:
    before = config(GROUP4)
    first = plan(before, {}, node="gw1")
    now = replace(before, revision=2, vip_groups=config(OWN).vip_groups)
    second = plan(now, {}, previous=first, node="gw1")
    assert local_of(second, WEB) == (OWN,)
    assert second.programmed.services[PLAIN] is first.programmed.services[PLAIN]
    assert second.programmed.services[WEB6] == first.programmed.services[WEB6]
    third = replace(now, revision=3, vip_groups=config().vip_groups, settings=config(own=(GROUP4,)).settings)
    assert local_of(plan(third, {}, previous=second, node="gw1"), WEB) == (GROUP4,)
