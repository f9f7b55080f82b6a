"""May this node take a VIP group over, may it go on holding it: what VRRP alone cannot know. Pure.

VRRP takes silence for death. Here silence is weighed with what else is known: P, a member is heard (VRRP or heartbeat);
G, the gateway of the network answers; E, the shared store answers, and whom it names as owner. What is None is not
configured and decides nothing: with nothing configured this is VRRP.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Policy(StrEnum):
    """What to do when it cannot be known whether another node serves."""

    AVAILABILITY = "availability"  # serve: fit for direct routing and tunnels, where two Actives harm little
    CONSISTENCY = "consistency"  # stay dark: two Actives would masquerade one connection differently


@dataclass(frozen=True, slots=True)
class Evidence:
    peer: bool | None = None  # P
    gateway: bool | None = None  # G
    store: bool | None = None  # E
    active_peer: str = ""  # a member whose heartbeats say that it is Active, while its advertisements do not arrive
    owner: str = ""  # another node that the store names as owner, later than us
    owner_answers: bool = False  # and it has answered a question through the store just now
    asking: str = (
        ""  # an owner that is not heard and has just been asked: a release by somebody else left no time before
    )
    gateway_of: str = ""  # a member that the gateway still answers, long after it stopped to answer us


def refuses_takeover(policy: Policy, evidence: Evidence) -> str:
    """Why a Backup whose Active_Down_Timer has fired stays Backup; "" = it takes over."""
    if evidence.active_peer:
        return f"{evidence.active_peer} is active and heard, but its advertisements do not arrive"
    if evidence.owner_answers:
        return f"{evidence.owner} is active and answers through etcd, but its advertisements do not arrive"
    if evidence.asking:
        return f"etcd names {evidence.asking} as the owner, which is not heard and has just been asked"
    return _misplaced(policy, evidence)


def refuses_to_hold(policy: Policy, evidence: Evidence) -> str:
    """Why an Active gives the group up; "" = it goes on."""
    if evidence.owner:
        return f"etcd names {evidence.owner} as the owner since then"
    return _misplaced(policy, evidence)


def _misplaced(policy: Policy, evidence: Evidence) -> str:
    if evidence.gateway is False and evidence.gateway_of:
        return f"the gateway answers {evidence.gateway_of}, but not this node"
    if evidence.peer is False and evidence.gateway is False:
        return "cut off: neither a peer nor the gateway is reachable"
    if policy is Policy.CONSISTENCY and evidence.store is False and not evidence.peer:
        return "neither a peer nor etcd is reachable, and the policy is consistency"
    return ""
