"""Connections that the successor has changed are never overwritten by an Active that was paused, cut off or killed.

Production elections, sessions and epochs on virtual time.
"""

from __future__ import annotations

import random

import pytest

from lbnode.epochs import Epochs
from tests.sim.election import faults
from tests.sim.election.faults import Fault
from tests.sim.election.process import Settings
from tests.sim.synchronised import GROUP, Synchronised

SEEDS = range(2)
AWAY = 30.0  # intervals


def running(seed: int, priorities: tuple[int, ...] = (250, 200, 150), policy: str = "availability") -> Synchronised:
    """With an owner, and everybody in sync."""
    cluster = Synchronised(seed, Settings(priorities, dual=True, gateway=True, store=True, policy=policy))
    cluster.run(30)
    assert {peer.state for daemon in cluster.daemons for peer in daemon.peers.values()} == {"in-sync"}
    return cluster


@pytest.mark.parametrize("policy", ["availability", "consistency"])
@pytest.mark.parametrize("fault", [faults.pause, faults.isolation, faults.stun, faults.everything])
def test_a_stale_active_overwrites_nothing(fault: Fault, policy: str) -> None:
    cluster = running(1, policy=policy)
    old = cluster.owner
    epoch = old.epochs.owned(GROUP)
    end = fault(cluster, old.node, cluster.random)
    cluster.run(AWAY)
    end()
    cluster.run(AWAY)
    assert cluster.owner.epochs.owned(GROUP) > epoch, "another one, or after one the old one again"
    assert cluster.overwritten == []
    cluster.rest()
    assert cluster.behind() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_paused_active_had_not_sent_is_refused_when_it_comes_back(seed: int) -> None:
    """Its daemon alone is stopped at first, so that its kernel has changes that nobody knows."""
    cluster = running(seed)
    old = cluster.owner
    work = old._work
    old._work = lambda: None  # type: ignore[method-assign]
    cluster.run(10)
    unsent = len(old.changed)
    assert unsent
    cluster.pause(old.node)
    cluster.run(AWAY)
    old._work = work  # type: ignore[method-assign]
    cluster.resume(old.node)
    cluster.run(AWAY)
    new = cluster.owner
    assert new.peers[old.node.number].refused_records >= unsent
    assert new.refused == ["of epoch 1, the group has had epoch 2 since"]
    assert cluster.overwritten == []


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_a_stopped_machine_wins_nothing_back_by_priority(seed: int) -> None:
    """Its advertisement comes before the heartbeat that tells its old epoch. Its table lacks what happened since."""
    cluster = running(seed, (250, 150))
    old = cluster.owner
    assert old.node.number == 0, "the one with the higher priority"
    cluster.stun(old.node)
    cluster.run(AWAY)
    cluster.quiet = True
    cluster.run(3)
    new = cluster.owner
    done = {connection: entry.change for connection, entry in new.table.items()}
    cluster.wake_machine(old.node)
    cluster.run(2 * AWAY)
    now = {connection: entry.change for connection, entry in cluster.owner.table.items()}
    assert cluster.owner is new and now == done


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clean_handover_loses_no_change(seed: int) -> None:
    cluster = running(seed)
    old = cluster.owner
    cluster.hand_over(old.node)
    cluster.run(1)
    cluster.rest()
    assert cluster.owner is not old
    assert [peer.refused_records for daemon in cluster.daemons for peer in daemon.peers.values()] == [0] * 6
    assert len({str({c: e.change for c, e in sorted(daemon.table.items())}) for daemon in cluster.daemons}) == 1


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_one_after_the_other_no_owner_is_overwritten(seed: int) -> None:
    chance = random.Random(seed)
    priorities = (250, 200, 150)[: chance.randint(2, 3)]
    cluster = running(seed, priorities, chance.choice(("availability", "consistency")))
    every = {**faults.ALL, **faults.SECOND_PATH, **faults.STORES}
    for _ in range(6):
        name = chance.choice(sorted(every))
        node = cluster.owner.node if chance.random() < 0.7 else chance.choice(cluster.nodes)
        cluster.note(node, name)
        end = every[name](cluster, node, chance)
        cluster.run(chance.uniform(1, 60))
        end()
        cluster.heal()
        cluster.run_until(cluster.now + 3_000_000_000)  # the store may be noticed 2 s later
        assert cluster.overwritten == [], cluster.trace[-14:]
    cluster.rest()
    assert cluster.behind() == []


def test_without_the_fence_a_stale_active_does_overwrite(monkeypatch: pytest.MonkeyPatch) -> None:
    """So this simulation can find it."""
    monkeypatch.setattr(Epochs, "refusal", lambda *_: "")
    found = 0
    for seed in SEEDS:
        cluster = running(seed)
        old = cluster.owner
        cluster.stun(old.node)
        cluster.run(AWAY)
        cluster.wake_machine(old.node)
        cluster.run(AWAY)
        found += len(cluster.overwritten)
    assert found
