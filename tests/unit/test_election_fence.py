"""Each row of the failure table: who may take over, who may go on, by evidence and policy."""

from __future__ import annotations

import pytest

from lbnode.election.fence import Evidence, Policy, refuses_takeover, refuses_to_hold

AVAILABILITY, CONSISTENCY = Policy.AVAILABILITY, Policy.CONSISTENCY
NOTHING = Evidence()


@pytest.mark.parametrize("policy", Policy)
def test_with_nothing_configured_silence_is_death_as_in_vrrp(policy: Policy) -> None:
    assert (refuses_takeover(policy, NOTHING), refuses_to_hold(policy, NOTHING)) == ("", "")


# situation, evidence of the node in question, holds/takes over under availability, and under consistency
ROWS = [
    ("the active dies: its backup hears nobody, the gateway and etcd answer", Evidence(False, True, True), True, True),
    ("the active dies, etcd is down as well", Evidence(False, True, False), True, False),
    ("etcd is down, the LAN is fine", Evidence(True, True, False), True, True),
    ("synchronisation network broken only: VRRP is heard, no heartbeat is", Evidence(False, True, True), True, True),
    ("LAN split, this side has no gateway", Evidence(False, False, True), False, False),
    ("LAN split, this side has the gateway but not etcd", Evidence(False, True, False), True, False),
    ("three nodes: a peer is heard, gateway and etcd are not", Evidence(True, False, False), True, True),
    ("only this node's port on the LAN is dead", Evidence(True, False, True, gateway_of="gw2"), False, False),
    ("the gateway itself is down", Evidence(True, False, True), True, True),
    ("no gateway configured, peer dead, etcd answers", Evidence(False, None, True), True, True),
    ("no gateway configured, peer dead, etcd does not answer", Evidence(False, None, False), True, False),
    ("foreign peers without heartbeats, etcd answers", Evidence(None, True, True), True, True),
]


@pytest.mark.parametrize(("evidence", "available", "consistent"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_who_holds_and_who_takes_over(evidence: Evidence, available: bool, consistent: bool) -> None:
    for policy, may in ((AVAILABILITY, available), (CONSISTENCY, consistent)):
        assert (refuses_to_hold(policy, evidence) == "") is may
        assert (refuses_takeover(policy, evidence) == "") is may


@pytest.mark.parametrize("policy", Policy)
def test_multicast_broken_only_the_active_is_heard_on_the_second_path(policy: Policy) -> None:
    assert "gw1 is active and heard" in refuses_takeover(policy, Evidence(True, True, True, active_peer="gw1"))


@pytest.mark.parametrize("policy", Policy)
def test_lan_split_with_etcd_reachable_the_owner_answers_and_nobody_takes_over(policy: Policy) -> None:
    asked = Evidence(False, True, True, owner="gw1", owner_answers=True)
    assert "gw1 is active and answers through etcd" in refuses_takeover(policy, asked)
    silent = Evidence(False, True, True, owner="gw1", owner_answers=False)
    assert refuses_takeover(policy, silent) == ""


@pytest.mark.parametrize("policy", Policy)
def test_an_active_whose_ownership_was_taken_gives_up(policy: Policy) -> None:
    assert refuses_to_hold(policy, Evidence(True, True, True, owner="gw2")) == "etcd names gw2 as the owner since then"


@pytest.mark.parametrize("policy", Policy)
def test_an_owner_that_is_not_heard_gets_the_time_to_answer_after_a_release_by_somebody_else(policy: Policy) -> None:
    assert "gw1" in refuses_takeover(policy, Evidence(True, True, True, asking="gw1"))
