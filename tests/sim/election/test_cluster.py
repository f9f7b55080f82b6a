"""The election under faults, one story each. The many random ones are in test_campaign."""

from __future__ import annotations

import pytest

from tests.sim.election.cluster import Cluster
from tests.sim.election.faults import (
    Fault,
    isolation,
    lan_isolation,
    multicast,
    one_way,
    one_way_both,
    store_cut,
    store_outage,
    sync_isolation,
)
from tests.sim.election.network import CLIENT, GATEWAY, Path
from tests.sim.election.node import Node
from tests.sim.election.process import Settings

SETTLED = 5.0  # intervals
LEASE = 2.5  # intervals
SEEDS = range(10)


def settled(
    seed: int,
    priorities: tuple[int, ...] = (250, 200, 150),
    interval_cs: int = 10,
    *,
    preempt: bool = False,
    dual: bool = False,
) -> tuple[Cluster, Node]:
    """A cluster and its Active node. `dual`: with the second path and a gateway to ask."""
    cluster = Cluster(seed, Settings(priorities, interval_cs, preempt=preempt, dual=dual, gateway=dual))
    cluster.run(SETTLED + 1)
    (active,) = cluster.actives()
    assert cluster.serving() == [active] and cluster.arp == active
    cluster.judge.reset()
    return cluster, cluster.nodes[active]


def others(cluster: Cluster, node: Node) -> list[Node]:
    """Best first."""
    return sorted((n for n in cluster.nodes if n is not node), key=lambda n: -cluster.settings.priorities[n.number])


@pytest.mark.parametrize("seed", SEEDS)
def test_without_faults_the_role_never_moves(seed: int) -> None:
    cluster = Cluster(seed)
    cluster.run(1000)
    assert [what.split(":")[0] for _, _, what in cluster.trace] == ["backup", "backup", "backup", "active"]


@pytest.mark.parametrize("seed", SEEDS)
def test_single_lost_and_doubled_datagrams_move_nothing(seed: int) -> None:
    cluster, _ = settled(seed)
    cluster.network.loss[Path.LAN], cluster.network.duplicates = 0.01, 0.3  # three lost in a row: one in a million
    before = len(cluster.trace)
    cluster.run(1000)
    assert cluster.trace[before:] == [] and cluster.judge.unsettled.total == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stopped_node_hands_over_within_a_datagrams_time(seed: int) -> None:
    cluster, active = settled(seed)
    cluster.kill_daemon(active)
    cluster.run(0.03)
    assert cluster.actives() == cluster.serving() == [others(cluster, active)[0].number]


@pytest.mark.parametrize("seed", SEEDS)
def test_power_loss_is_taken_over_within_three_intervals_and_skew(seed: int) -> None:
    cluster, active = settled(seed)
    cluster.power_off(active)
    cluster.run(1.9)
    assert cluster.serving() == []
    cluster.run(1.6)
    assert len(cluster.serving()) == 1


@pytest.mark.parametrize("kill", ["pause", "kill_everything"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_paused_or_killed_node_stops_serving_before_another_starts(seed: int, kill: str) -> None:
    cluster, active = settled(seed)
    getattr(cluster, kill)(active)
    assert cluster.serving() == [active.number] and active.holds  # its kernel goes on
    cluster.run(LEASE + 0.1)
    assert active.number not in cluster.serving() and active.holds
    cluster.run(1.5)
    assert len(cluster.serving()) == 1
    assert cluster.judge.double.total == 0 and cluster.judge.dark.longest < 1.5 * cluster.interval


@pytest.mark.parametrize("seed", SEEDS)
def test_a_late_active_gives_way_instead_of_fighting(seed: int) -> None:
    cluster, active = settled(seed)
    cluster.pause(active)
    cluster.run(10)
    cluster.resume(active)
    (successor,) = cluster.actives()
    assert successor != active.number
    cluster.run(50)
    assert cluster.actives() == [successor] and not active.holds  # it does not take back what it lost


@pytest.mark.parametrize("seed", SEEDS)
def test_a_late_backup_hears_what_waits_in_its_socket_before_it_acts(seed: int) -> None:
    cluster, active = settled(seed)
    for late in (3.3, 4.0, 50):
        for backup in others(cluster, active):
            cluster.pause(backup)
        cluster.run(late)
        for backup in others(cluster, active):
            cluster.resume(backup)
        cluster.run(1)
    assert cluster.takeovers == 1 and cluster.judge.unsettled.total == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_after_an_isolation_heals_clients_reach_the_winner(seed: int) -> None:
    """keepalived issue 166: the loser's gratuitous ARP was the last one that clients heard."""
    cluster, old = settled(seed, (250, 150))
    end = isolation(cluster, old, cluster.random)
    cluster.run(20)
    assert cluster.actives() == [0, 1] and cluster.arp == 1 - old.number
    end()
    cluster.run(2)
    assert cluster.actives() == cluster.serving() == [0] and cluster.arp == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_an_active_whose_multicast_is_lost_meets_the_other_one_only_at_the_heal(seed: int) -> None:
    """What plain VRRP cannot know."""
    cluster, old = settled(seed, (250, 150))
    end = multicast(cluster, old, cluster.random)
    cluster.run(20)
    assert cluster.serving() == [0, 1]
    end()
    cluster.run(2)
    assert cluster.serving() == [0] and cluster.arp == 0


@pytest.mark.parametrize("fault", [multicast, one_way, sync_isolation])
@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_second_path_what_breaks_one_of_both_moves_nothing(seed: int, fault: Fault) -> None:
    cluster, old = settled(seed, dual=True)
    end = fault(cluster, old, cluster.random)
    cluster.run(20)
    end()
    cluster.run(SETTLED)
    assert cluster.takeovers == 1 and cluster.judge.unsettled.total == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_an_active_that_alone_does_not_reach_the_gateway_gives_up(seed: int) -> None:
    """Its peers hear it on the second path, so that they would not take over from it."""
    cluster, old = settled(seed, dual=True)
    end = lan_isolation(cluster, old, cluster.random)
    cluster.run(8)
    (new,) = cluster.serving()
    assert new != old.number
    assert "the gateway answers n" in next(what for _, node, what in reversed(cluster.trace) if node == old.number)
    end()
    cluster.run(20)
    assert cluster.serving() == [new] and cluster.arp == new and cluster.judge.double.longest < 0.1 * cluster.interval


@pytest.mark.parametrize("seed", SEEDS)
def test_an_active_that_reaches_the_gateway_again_does_not_give_up_on_what_it_knew_before(seed: int) -> None:
    """It gives up 450 ms after the last answer, and asks each 100 ms: in between the heal was ten intervals ago."""
    cluster, old = settled(seed, interval_cs=1, dual=True)
    cluster.run(seed)
    end = lan_isolation(cluster, old, cluster.random)
    cluster.run(34)
    end()
    cluster.run(20)
    assert cluster.serving() == [old.number] and cluster.judge.unsettled.total == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_when_the_gateway_answers_nobody_the_role_stays(seed: int) -> None:
    cluster, old = settled(seed, dual=True)
    cluster.cut_links(frozenset((Path.LAN, GATEWAY, node.number) for node in cluster.nodes))
    cluster.run(50)
    assert cluster.takeovers == 1 and cluster.serving() == [old.number]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_active_that_is_not_heard_on_any_path_yields_to_the_one_that_took_over(seed: int) -> None:
    cluster, old = settled(seed, (250, 150), dual=True)
    end = one_way_both(cluster, old, cluster.random)
    cluster.run(8)
    assert cluster.serving() == [1 - old.number]
    end()
    cluster.run(SETTLED)
    assert cluster.judge.double.longest < 0.1 * cluster.interval


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_preempts_a_paused_active_while_its_kernel_serves(seed: int) -> None:
    """The returning node's time to preempt comes while the Active is paused, within its lease."""
    cluster, best = settled(seed, (200, 100), preempt=True)
    cluster.power_off(best)
    cluster.run(SETTLED)
    (other,) = (cluster.nodes[n] for n in cluster.serving())
    cluster.power_on(best)
    cluster.run(2.9)
    cluster.pause(other)
    cluster.run(2.3)
    cluster.resume(other)
    cluster.run(SETTLED)
    assert cluster.serving() == [best.number]
    assert cluster.judge.double.longest <= 0.02 * cluster.interval


def preempted(seed: int, interval_cs: int = 10) -> Cluster:
    """The better of two returns and takes the role from the other one. The judge saw that alone."""
    cluster, best = settled(seed, (200, 100), interval_cs, preempt=True)
    cluster.power_off(best)
    cluster.run(SETTLED)
    cluster.judge.reset()
    cluster.power_on(best)
    cluster.run(2 * SETTLED)
    assert cluster.serving() == [best.number]
    return cluster


@pytest.mark.parametrize("interval_cs", [1, 10])
@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_preempts_serves_after_the_other_and_not_one_nanosecond_beside_it(seed: int, interval_cs: int) -> None:
    cluster = preempted(seed, interval_cs)
    assert cluster.judge.double.total == 0 and 0 < cluster.judge.dark.total < 0.1 * cluster.interval


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stopped_virtual_machine_serves_for_less_than_an_interval_when_it_goes_on(seed: int) -> None:
    """Its clock stood still, so its lease still runs."""
    cluster, old = settled(seed)
    cluster.stun(old)
    cluster.run(10)
    assert old.number not in cluster.serving()
    cluster.wake_machine(old)
    assert old.number in cluster.serving()
    cluster.run(1.02)
    assert len(cluster.serving()) == 1


def test_equal_seeds_replay_bit_by_bit() -> None:
    def run(seed: int) -> tuple[int, list[tuple[int, int, str]]]:
        cluster, active = settled(seed)
        cluster.pause(active)
        cluster.run(20)
        return cluster.digest, cluster.trace

    assert run(1) == run(1) != run(2)


def with_store(seed: int, priorities: tuple[int, ...] = (250, 200, 150)) -> tuple[Cluster, Node]:
    cluster = Cluster(seed, Settings(priorities, dual=True, gateway=True, store=True))
    cluster.run(20)
    (active,) = cluster.actives()
    assert cluster.store.owner is not None and cluster.store.owner.number == active
    cluster.judge.reset()
    cluster.takeovers = 0  # two may have begun at once
    return cluster, cluster.nodes[active]


@pytest.mark.parametrize("fault", [store_outage, store_cut])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_store_is_not_needed_while_all_is_well(seed: int, fault: Fault) -> None:
    cluster, old = with_store(seed)
    end = fault(cluster, old, cluster.random)
    cluster.run(50)
    end()
    cluster.run(50)
    assert cluster.takeovers == 0 and cluster.judge.unsettled.total == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_an_owner_that_is_not_heard_but_answers_through_the_store_is_left_alone(seed: int) -> None:
    cluster, old = with_store(seed, (250, 150))
    one_way_both(cluster, old, cluster.random)
    cluster.run(50)
    assert cluster.takeovers == 0 and cluster.serving() == [old.number]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_isolated_owner_does_not_vouch_for_itself(seed: int) -> None:
    """It reaches the store only, and does not know yet that it is cut off from everybody else."""
    cluster, old = with_store(seed)
    everybody = {CLIENT, GATEWAY, *range(3)} - {old.number}
    ends = {(old.number, other) for other in everybody} | {(other, old.number) for other in everybody}
    cluster.cut_links(frozenset((path, *each) for path in (Path.LAN, Path.SYNC) for each in ends))
    cluster.run(4.2)
    assert len(set(cluster.serving()) - {old.number}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_after_simultaneous_takeovers_the_store_names_the_one_that_stays(seed: int) -> None:
    """The claim of one that has yielded already may be written last, and must not fence the other."""
    cluster, old = with_store(seed, (100,) * 5)
    cluster.power_off(old)
    cluster.run(5)
    (active,) = cluster.serving()
    cluster.run(40)
    assert cluster.serving() == [active] and cluster.store.owner is not None
    assert cluster.store.owner.number == active
