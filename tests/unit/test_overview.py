"""overview(): what people see of a service, joined from configuration, data plane and statuses."""

from __future__ import annotations

from ipaddress import ip_address

from lbnode.model import (
    Config,
    ForwardingMethod,
    ObjectStatus,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    RealServer,
    ServerId,
    ServiceId,
    VirtualService,
)
from lbnode.overview import Facts, overview

WEB = ServiceId.of("tcp", "192.0.2.10", 80)
SERVER = ServerId(ip_address("198.51.100.1"), 80)
REFUSAL = ObjectStatus(7, "the data plane has no scheduler lblc")


def facts(*, in_data_plane: bool) -> Facts:
    wanted = VirtualService(WEB, scheduler="lblc", servers=(RealServer(SERVER),))
    found = ProgrammedService(WEB, "wrr", servers={SERVER: ProgrammedServer(SERVER, 1, ForwardingMethod.MASQUERADE)})
    return Facts(
        config=Config(9, {WEB: wanted}),
        actual=Programmed({WEB: found} if in_data_plane else {}),
        statuses={str(WEB): REFUSAL, f"{WEB}/{SERVER}": ObjectStatus(7)},
    )


def test_a_service_that_goes_on_with_its_former_parameters_is_not_down() -> None:
    (service,) = overview(facts(in_data_plane=True))
    assert (service.state, service.scheduler, service.effective_scheduler) == ("degraded", "lblc", "wrr")
    assert service.status.startswith("error")


def test_a_service_that_never_came_into_the_data_plane_is_down() -> None:
    (service,) = overview(facts(in_data_plane=False))
    assert (service.state, service.effective_scheduler) == ("down", None)
