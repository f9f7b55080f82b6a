"""overview(): what people see of a service, joined from configuration, data plane and statuses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from healthcheck.spec import CheckSpec, CheckType, DnsSpec, Health, HttpSpec, ScriptSpec, UdpSpec, Verdict
from lbnode.control import AccessLimits
from lbnode.model import (
    Access,
    Admission,
    Config,
    ConnectionRate,
    Counters,
    ForwardingMethod,
    ObjectStatus,
    Programmed,
    ProgrammedServer,
    ProgrammedService,
    RealServer,
    ServerId,
    ServiceCounters,
    ServiceId,
    VirtualService,
    WhenDown,
)
from lbnode.overview import Facts, describe_access, describe_check, overview

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


def test_a_server_that_is_not_programmed_says_why() -> None:
    waiting = facts(in_data_plane=False)
    alone = replace(waiting, statuses={str(WEB): REFUSAL})
    assert overview(alone)[0].servers[0].status == "waiting for its service"
    config = Config(9, {WEB: replace(waiting.config.services[WEB], when_down=WhenDown.REMOVE)})
    down = Verdict(Health.DOWN, "connect refused", 0.0, 0.0)
    removed = replace(waiting, config=config, statuses={}, verdicts={f"{WEB}/{SERVER}": down})
    assert overview(removed)[0].servers[0].status == "removed while down"


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (None, ""),
        (CheckSpec(port=8080), "tcp port 8080 every 2s, rise 2, fall 3"),
        (CheckSpec(CheckType.HTTP, http=HttpSpec(host="a", path="/b")), "http GET a/b every 2s, rise 2, fall 3"),
        (CheckSpec(CheckType.DNS, dns=DnsSpec("example.net", "A")), "dns example.net A every 2s, rise 2, fall 3"),
        (
            CheckSpec(CheckType.SCRIPT, script=ScriptSpec("/etc/lbnode/checks/db", ("-x", "1"))),
            "script /etc/lbnode/checks/db -x 1 every 2s, rise 2, fall 3",
        ),
        (CheckSpec(CheckType.UDP, udp=UdpSpec("00", "")), "udp reply any every 2s, rise 2, fall 3"),
        (CheckSpec(CheckType.PING, rise=1), "ping every 2s, rise 1, fall 3"),
    ],
)
def test_a_check_in_one_line(check: CheckSpec | None, text: str) -> None:
    assert describe_check(check) == text


@pytest.mark.parametrize(
    ("access", "syn_proxy", "text"),
    [
        (Access(), None, ""),
        (Access(rate=ConnectionRate(10, 20, 32)), 0, "10 new/s per /32, burst 20, SYN cookies always"),
        (
            Access(frozenset({ip_network("192.0.2.0/24")}), frozenset({ip_network("203.0.113.5/32")})),
            1000,
            "allow 192.0.2.0/24, deny 203.0.113.5/32, SYN cookies from 1000 half-open on",
        ),
        (
            Access(deny=frozenset(ip_network(f"203.0.113.{last}/32") for last in range(5))),
            None,
            "deny 203.0.113.0/32 203.0.113.1/32 203.0.113.2/32 and 2 more",
        ),
    ],
)
def test_who_may_connect_in_one_line(access: Access, syn_proxy: int | None, text: str) -> None:
    assert describe_access(access, syn_proxy) == text


def test_who_may_connect_is_told_of_configured_and_foreign_services() -> None:
    found = facts(in_data_plane=True)
    denied = Access(deny=frozenset({ip_network("203.0.113.0/24")}))
    config = Config(9, {WEB: replace(found.config.services[WEB], access=denied, syn_proxy=7)})
    line = "deny 203.0.113.0/24, SYN cookies from 7 half-open on"
    actual = Programmed({WEB: replace(found.actual.services[WEB], access=denied, syn_proxy=7)})
    counted = Admission({"denied": 3}, cookies_sent=2)
    counters = {WEB: ServiceCounters(Counters(), {}, admission=counted)}
    for one in (replace(found, config=config, counters=counters), Facts(actual=actual, counters=counters)):
        (service,) = overview(one)
        assert (service.access, service.limits) == (line, AccessLimits(deny=1, syn_proxy=7))
        assert service.admission == counted
