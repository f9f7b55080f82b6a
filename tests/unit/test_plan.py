"""Effective weights: health, drain, all down, restart; and that what did not change stays the same object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healthcheck.spec import CheckSpec, Health, Verdict
from lbnode.model import (
    Access,
    Config,
    ConnectionRate,
    ForwardingMethod,
    OwnTimeouts,
    Programmed,
    RealServer,
    Role,
    ServerId,
    ServiceId,
    Settings,
    SyncDaemon,
    Timeouts,
    VirtualService,
    VrrpState,
    WhenAllDown,
    WhenDown,
)
from lbnode.plan import Desired, plan, plan_service, server_name, sync_daemons, targets

WEB = ServiceId.of("tcp", "192.0.2.10", 80)
SERVERS = [ServerId.parse(f"198.51.100.{n}:80") for n in (21, 22, 23)]
DOWN = Verdict(Health.DOWN, since=10.0)
UP = Verdict(Health.UP, since=5.0)


def service(**changes: object) -> VirtualService:
    servers = tuple(RealServer(server, weight=n + 1) for n, server in enumerate(SERVERS))
    base = VirtualService(WEB, "wrr", check=CheckSpec(), servers=servers, revision=1)
    return replace(base, **changes)  # type: ignore[arg-type]


def verdicts(*found: Verdict | None) -> dict[str, Verdict]:
    return {server_name(WEB, server): verdict for server, verdict in zip(SERVERS, found, strict=True) if verdict}


def weights(of: VirtualService, found: Mapping[str, Verdict], left: Programmed | None = None) -> list[int | None]:
    """Effective weight of each server; None = not in the data plane."""
    programmed = plan(Config(1, {WEB: of}), found, left or Programmed()).programmed.services[WEB]
    return [programmed.servers[server].weight if server in programmed.servers else None for server in SERVERS]


@pytest.mark.parametrize(
    ("changes", "found", "expected"),
    [
        ({}, verdicts(None, None, None), [1, 2, 3]),
        ({}, verdicts(UP, Verdict(Health.UNKNOWN), DOWN), [1, 2, 0]),
        ({"when_down": WhenDown.REMOVE}, verdicts(UP, UP, DOWN), [1, 2, None]),
        ({"check": None}, verdicts(DOWN, DOWN, DOWN), [1, 2, 3]),
        ({}, verdicts(DOWN, DOWN, DOWN), [0, 0, 0]),
        ({"when_down": WhenDown.REMOVE}, verdicts(DOWN, DOWN, DOWN), [None, None, None]),
        ({"when_all_down": WhenAllDown.KEEP_LAST}, verdicts(DOWN, DOWN, Verdict(Health.DOWN, since=20.0)), [0, 0, 3]),
        ({"when_all_down": WhenAllDown.KEEP_LAST}, verdicts(DOWN, DOWN, DOWN), [1, 2, 3]),
        ({"when_all_down": WhenAllDown.KEEP_LAST}, verdicts(DOWN, UP, DOWN), [0, 2, 0]),
    ],
)
def test_effective_weights(changes: dict[str, object], found: dict[str, Verdict], expected: list[int | None]) -> None:
    assert weights(service(**changes), found) == expected


def test_drained_servers_stay_with_weight_0_and_are_not_counted_on() -> None:
    first, *rest = service().servers
    drained = (replace(first, drain=True), *rest)
    assert weights(service(servers=drained), {}) == [0, 2, 3]
    assert weights(service(servers=drained, when_down=WhenDown.REMOVE), verdicts(DOWN, UP, DOWN)) == [0, 2, None]
    keep = service(servers=drained, when_all_down=WhenAllDown.KEEP_LAST)
    assert weights(keep, verdicts(UP, DOWN, DOWN)) == [0, 2, 3]


def test_a_restart_leaves_down_servers_down_until_they_were_checked() -> None:
    left = plan(Config(1, {WEB: service()}), verdicts(UP, UP, DOWN)).programmed
    assert weights(service(), {}, left) == [1, 2, 0]
    assert weights(service(), verdicts(DOWN, Verdict(Health.UNKNOWN), UP), left) == [0, 2, 3]
    removed = service(when_down=WhenDown.REMOVE)
    left = plan(Config(1, {WEB: removed}), verdicts(UP, UP, DOWN)).programmed
    assert weights(removed, {}, left) == [1, 2, None]
    assert weights(service(check=None), {}, left) == [1, 2, 3]


def test_everything_of_the_service_is_carried_over() -> None:
    full = service(
        scheduler="mh",
        scheduler_flags=frozenset({"mh-port"}),
        persistent_s=300,
        persistent_netmask=24,
        persistence_engine="sip",
        one_packet=True,
        syn_proxy=1000,
        mss=1360,
        access=Access(deny=frozenset({ip_network("203.0.113.0/24")}), rate=ConnectionRate(10, 20, 24)),
        timeouts=OwnTimeouts(60, None, 7),
        servers=(RealServer(SERVERS[0], 7, ForwardingMethod.TUNNEL, False, 9, 3),),
    )
    programmed = plan_service(full, {})
    for name in (
        "id",
        "scheduler",
        "scheduler_flags",
        "persistent_s",
        "persistent_netmask",
        "one_packet",
        "syn_proxy",
        "mss",
        "access",
        "timeouts",
    ):
        assert getattr(programmed, name) == getattr(full, name)
    assert programmed.persistence_engine == "sip"
    server = programmed.servers[SERVERS[0]]
    assert (server.weight, server.forward, server.upper_threshold, server.lower_threshold) == (7, "tunnel", 9, 3)


@pytest.mark.parametrize(
    ("address", "netmask", "planned"),
    [
        ("192.0.2.10", 32, None),
        ("192.0.2.10", 24, 24),
        ("2001:db8::10", 128, None),
        ("2001:db8::10", 32, 32),
    ],
)
def test_a_netmask_of_one_host_is_none(address: str, netmask: int, planned: int | None) -> None:
    """Else a data plane, which cannot tell the two apart, would be programmed again and again."""
    wanted = service(id=ServiceId.of("tcp", address, 80), persistent_s=60, persistent_netmask=netmask)
    found = plan(Config(1, {wanted.id: wanted}), {}, Programmed()).programmed.services[wanted.id]
    assert found.persistent_netmask == planned


def test_settings_reach_the_data_plane() -> None:
    desired = plan(Config(1, {}, {}, Settings(Timeouts(1, 2, 3), foreign_services="remove")), {})
    assert desired.programmed.timeouts == Timeouts(1, 2, 3)
    assert desired.remove_foreign


ETH1 = SyncDaemon("eth1", 7)
BOTH = {"master": ETH1, "backup": ETH1}


@pytest.mark.parametrize(
    ("states", "running"),
    [
        ([], []),
        ([VrrpState.INITIALIZE], []),
        ([VrrpState.ACTIVE], ["master"]),
        ([VrrpState.BACKUP, VrrpState.INITIALIZE], ["backup"]),
        ([VrrpState.BACKUP, VrrpState.ACTIVE], ["master", "backup"]),
    ],
)
def test_sync_daemons_follow_the_roles(states: list[VrrpState], running: list[str]) -> None:
    roles = [Role(f"group{n}", state, 100, 0.0, "") for n, state in enumerate(states)]
    by_role = Settings(sync_daemons=BOTH, sync_by_role=True)
    assert list(sync_daemons(by_role, roles)) == running
    assert list(sync_daemons(Settings(), roles, ETH1)) == running
    assert sync_daemons(Settings(), roles) == {}
    assert sync_daemons(Settings(sync_daemons=BOTH), roles, SyncDaemon("eth2")) == BOTH


def test_a_role_alone_is_a_reason_to_plan_anew() -> None:
    config = Config(1, {WEB: service()})
    first = plan(config, {}, sync_daemons={})
    second = plan(config, {}, previous=first, sync_daemons={"master": ETH1})
    assert second.sync_daemons == {"master": ETH1} and second.programmed.services is first.programmed.services
    assert plan(config, {}, previous=second, sync_daemons={"master": ETH1}) is second


def test_only_what_changed_is_planned_again() -> None:
    other = replace(service(), id=ServiceId.of("tcp", "192.0.2.11", 80))
    config = Config(1, {WEB: service(), other.id: other})
    first = plan(config, verdicts(UP, UP, UP))
    assert plan(config, verdicts(replace(UP, last_checked=99.0), UP, UP), previous=first) is first
    second = plan(config, verdicts(UP, UP, DOWN), previous=first)
    assert second.programmed.services[other.id] is first.programmed.services[other.id]
    assert second.programmed.services[WEB].servers[SERVERS[2]].weight == 0
    third = plan(Config(2, {WEB: service()}), verdicts(UP, UP, DOWN), previous=second)
    assert set(third.programmed.services) == {WEB}
    assert third.revision == 2


VERDICTS = [None, UP, DOWN, Verdict(Health.DOWN, since=20.0), Verdict(Health.UNKNOWN)]
STATES = st.lists(st.sampled_from(VERDICTS), min_size=3, max_size=3)
CONFIGS = st.builds(
    service,
    when_down=st.sampled_from(WhenDown),
    when_all_down=st.sampled_from(WhenAllDown),
    check=st.sampled_from([None, CheckSpec()]),
    servers=st.lists(
        st.builds(RealServer, st.sampled_from(SERVERS), st.integers(0, 2), drain=st.booleans()),
        max_size=3,
        unique_by=lambda server: server.id,
    ).map(tuple),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.none() | CONFIGS, STATES), min_size=1, max_size=6))
def test_planning_step_by_step_equals_planning_at_once(
    steps: list[tuple[VirtualService | None, list[Verdict]]],
) -> None:
    desired: Desired | None = None
    checked = None
    for revision, (wanted, states) in enumerate(steps, start=1):
        config = Config(revision, {WEB: wanted} if wanted else {})
        found = verdicts(*states)
        desired = plan(config, found, previous=desired)
        assert desired.programmed == plan(config, found).programmed
        checked = targets(config, checked)
        assert tuple(checked) == tuple(targets(config))


def test_targets_name_every_server_of_checked_services() -> None:
    config = Config(1, {WEB: service(check=CheckSpec(port=8080))})
    first = targets(config)
    assert [target.key for target in first] == [f"tcp:192.0.2.10:80/{server}" for server in SERVERS]
    assert {target.port for target in first} == {8080}
    heavier = service(check=CheckSpec(port=8080), servers=tuple(replace(s, weight=9) for s in service().servers))
    assert targets(Config(2, {WEB: heavier}), first).by_service is first.by_service
    assert len(targets(Config(3, {WEB: service(check=None)}), first)) == 0
