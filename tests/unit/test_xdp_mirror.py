"""Services between the model and the entries of the map: nothing is lost either way."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.xdp import layout, mirror
from lbnode.model import SCHEDULERS, ProgrammedService, ServiceId, flags_of

EMPTY = layout.Service(0, layout.Scheduler.RR, 1, 0, 0)


@st.composite
def services(draw: st.DrawFn) -> ProgrammedService:
    service_id = ServiceId.parse(draw(st.sampled_from(["udp:192.0.2.10:0", "udp:[2001:db8::10]:53", "fwmark:7"])))
    scheduler = draw(st.sampled_from(SCHEDULERS))
    mask = st.integers(1, 2**32 - 2).map(IPv4Address).filter(lambda one: "01" in f"{int(one):032b}")
    netmask = st.none() | (st.integers(1, 127) if service_id.family == 6 else st.integers(0, 31) | mask)
    return ProgrammedService(
        service_id,
        scheduler,
        draw(st.sets(st.sampled_from(flags_of(scheduler))).map(frozenset)),
        draw(st.integers(1, 2678400)),
        draw(netmask),
        draw(st.booleans()),
    )


@given(services())
def test_services_survive(service: ProgrammedService) -> None:
    entry = layout.Service.unpack(mirror.configured(EMPTY, service).pack())
    assert mirror.service_of(service.id, entry) == service


def test_masks_are_of_mapped_addresses() -> None:
    def mask(text: str, netmask: int | IPv4Address) -> int:
        wanted = ProgrammedService(ServiceId.parse(text), "rr", persistent_s=1, persistent_netmask=netmask)
        return mirror.configured(EMPTY, wanted).persistent_mask

    assert mask("tcp:192.0.2.10:80", 24) == layout.ALL_BITS - 0xFF
    assert mask("tcp:192.0.2.10:80", IPv4Address("255.0.255.0")) == layout.ALL_BITS - 0xFF00FF
    assert mask("tcp:[2001:db8::10]:80", 64) == (2**64 - 1) << 64
