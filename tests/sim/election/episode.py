"""One seeded cluster through rounds of faults. (profile, seed, number) name an episode and replay it."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.sim.election import faults
from tests.sim.election.cluster import Cluster
from tests.sim.election.faults import Fault
from tests.sim.election.figures import MS, Figures, Limits
from tests.sim.election.process import Settings

INTERVALS_CS = (1, 2, 3, 5, 10, 20, 50, 100)
SETTLED = 5.0  # intervals after the last fault's end
LEASE = 2.51  # intervals; clocks may differ by 0.2 %
SPACED = (250, 200, 150, 100, 50)


@dataclass(frozen=True)
class Profile:
    """Which faults, one after the other or (`storm`) several at once, and what must hold meanwhile."""

    name: str
    faults: Mapping[str, Fault]
    limits: Limits
    storm: bool = False
    preempt: bool = False
    dual: bool = False  # with the second path and a gateway to ask
    store: bool = False  # with a shared store that names the owner
    policy: str = "availability"
    signed: bool = False  # with authentication trailers
    rounds: int = 12

    @property
    def settled(self) -> float:
        """Intervals after the last fault's end. Nodes that preempt do so one after the other, until the best has it."""
        return SETTLED * (2 if self.preempt else 1)


class Episode:
    def __init__(self, profile: Profile, seed: int, number: int) -> None:
        self.profile = profile
        self.name = f"{profile.name} SEED={seed} NUMBER={number}"
        self.chance = chance = random.Random(f"{profile.name} {seed} {number}")
        count = chance.randint(2, 5)
        close = tuple(range(100, 100 + count)), (100,) * count
        self._priorities = chance.choice((SPACED[:count], SPACED[-count:], *close))
        dual, preempt = profile.dual, profile.preempt
        interval_cs = chance.choice(INTERVALS_CS)
        settings = Settings(
            self._priorities, interval_cs, preempt, dual, dual, profile.store, profile.policy, profile.signed
        )
        self.cluster = Cluster(chance.getrandbits(63), settings)
        self.figures = Figures()

    def run(self) -> Figures:
        cluster, figures = self.cluster, self.figures
        cluster.run(self.profile.settled + 1)
        for _ in range(self.profile.rounds):
            self._quiet()
            self._storm() if self.profile.storm else self._single()
        figures.seconds = cluster.now / 1e9
        figures.intervals = cluster.now / cluster.interval
        figures.events, figures.takeovers, figures.digest = cluster.events, cluster.takeovers, cluster.digest
        return figures

    # --- rounds -------------------------------------------------------------------------------------------------

    def _quiet(self) -> None:
        """Nothing is wrong, so nothing may happen."""
        cluster, judge = self.cluster, self.cluster.judge
        judge.reset()
        before = len(cluster.trace)
        cluster.run(self.chance.uniform(1, 10))
        judge.close()
        if len(cluster.trace) > before or judge.unsettled.total:
            self.figures.flaps += 1
            self._violation("roles moved while nothing was wrong")

    def _single(self) -> None:
        cluster = self.cluster
        cluster.judge.reset()
        end = self._begin_fault()
        cluster.run(self._duration())
        end()
        self._recover()

    def _storm(self) -> None:
        cluster, chance = self.cluster, self.chance
        cluster.judge.reset()
        for _ in range(chance.randint(2, 5)):
            end = self._begin_fault()
            if chance.random() < 0.7:
                cluster.at(int(self._duration() * cluster.interval), end)
            cluster.run(chance.uniform(0.1, 8))
        cluster.heal()
        self._recover()

    def _begin_fault(self) -> faults.End:
        """On any node, but on the Active one more often."""
        cluster, chance = self.cluster, self.chance
        self.figures.faults += 1
        name = chance.choice(list(self.profile.faults))
        active = cluster.actives()
        node = (
            cluster.nodes[chance.choice(active)] if active and chance.random() < 0.6 else chance.choice(cluster.nodes)
        )
        cluster.note(node, name)
        return self.profile.faults[name](cluster, node, chance)

    def _duration(self) -> float:
        """0.1 to 100 intervals: half of them up to 8, where timers and leases end, the others on a log scale."""
        chance = self.chance
        if chance.random() < 0.5:
            return chance.uniform(0.1, 8)
        return math.exp(chance.uniform(math.log(0.1), math.log(100)))

    def _recover(self) -> None:
        cluster, judge, figures, limits = self.cluster, self.cluster.judge, self.figures, self.profile.limits
        healed, interval = cluster.now, cluster.interval
        cluster.trace.append((cluster.now, -1, "healed"))
        cluster.run(self.profile.settled)
        settled, astray = judge.unsettled.since is None, judge.astray.since is not None
        judge.close()
        double, dark = judge.double.longest / interval, judge.dark.longest / interval
        heal = max(0, judge.unsettled.ended - healed) / interval
        figures.double, figures.dark = max(figures.double, double), max(figures.dark, dark)
        figures.heal = max(figures.heal, heal)
        figures.astray += astray
        figures.double_over_1 += double > 1
        figures.double_total += judge.double.total / interval
        figures.dark_total += judge.dark.total / interval
        if limits.double is not None and double > self._double_limit(limits.double):
            self._violation(f"two nodes served for {double:.3f} intervals")
        skew = max(256 - priority for priority in self._priorities) / 256
        if (
            limits.dark is not None
            and dark > limits.dark + (skew if limits.dark else 0) + limits.dark_ms * MS / interval
        ):
            self._violation(f"dark for {dark:.2f} intervals")
        if not settled:
            self._violation(f"{len(cluster.serving())} nodes serve {self.profile.settled} intervals after the heal")
        if astray and not limits.astray:
            self._violation(
                f"clients look for the VIP at the wrong node {self.profile.settled} intervals after the heal"
            )
        figures.needless += len(judge.needless)
        for wrong in (*judge.wrong, *(() if limits.needless else judge.needless)):
            self._violation(wrong)
        judge.wrong.clear()
        judge.needless.clear()

    def _double_limit(self, goal: float) -> float:
        """Where two nodes may claim within a datagram's way, because their priorities are next to each other or both
        preempt, a second fault in that moment can leave both serving until a lease ends."""
        spaced = self._priorities in (SPACED[: len(self._priorities)], SPACED[-len(self._priorities) :])
        return max(goal, LEASE) if self.profile.storm and (self.profile.preempt or not spaced) else goal

    def _violation(self, what: str) -> None:
        cluster = self.cluster
        recent = [f"{at / cluster.interval:10.3f} {node} {text}" for at, node, text in cluster.trace[-14:]]
        setting = f"{cluster.interval // MS} ms, priorities {[*self._priorities]}"
        self.figures.violations.append("\n    ".join([f"{self.name} ({setting}): {what}", *recent]))


EVERY = {**faults.ALL, **faults.SECOND_PATH}
HARMLESS = Limits(double=0.1, needless=False)
UNNOTICED = Limits(double=0.0, dark=0.0, dark_ms=0.0, needless=False)
AT_HEAL = 1.05  # intervals in which two Actives that meet again find out
# A node that alone has no gateway gives up after 4.5 questions, each 100 ms or an interval apart.
WITHOUT_GATEWAY = Limits(double=AT_HEAL, dark=7.0, dark_ms=500.0)
VRRP_ALONE = (
    Profile("local", faults.LOCAL, HARMLESS),
    Profile("preempt", faults.LOCAL, Limits(double=0.1), preempt=True),
    Profile("local-storm", faults.LOCAL, Limits(double=0.1, dark=None, needless=False), storm=True),
    Profile("preempt-storm", faults.LOCAL, Limits(double=0.1, dark=None), storm=True, preempt=True),
    Profile("stun", {"stun": faults.stun}, Limits(double=AT_HEAL)),
    Profile("duplication", {"duplication": faults.duplication}, UNNOTICED),
    Profile("reordering", {"reordering": faults.reordering}, UNNOTICED),
    Profile("isolation", {"isolation": faults.isolation}, Limits(double=AT_HEAL)),
    Profile("partition", {"partition": faults.partition}, Limits(double=AT_HEAL)),
    Profile("multicast", {"multicast": faults.multicast}, Limits(double=None)),
    Profile("one-way", {"one-way": faults.one_way}, Limits(double=None)),
    Profile("loss", {"loss": faults.loss}, Limits(double=None, astray=True)),
    Profile("storm", faults.ALL, Limits(double=None, dark=None, astray=True), storm=True),
)
SECOND_PATH = (
    Profile("2-local", faults.LOCAL, HARMLESS, dual=True),
    Profile("2-local-storm", faults.LOCAL, Limits(double=0.1, dark=None, needless=False), storm=True, dual=True),
    Profile("2-stun", {"stun": faults.stun}, Limits(double=AT_HEAL), dual=True),
    Profile("2-duplication", {"duplication": faults.duplication}, UNNOTICED, dual=True),
    Profile("2-reordering", {"reordering": faults.reordering}, UNNOTICED, dual=True),
    Profile("2-multicast", {"multicast": faults.multicast}, UNNOTICED, dual=True),
    Profile("2-one-way", {"one-way": faults.one_way}, UNNOTICED, dual=True),
    Profile("2-sync", {"sync isolation": faults.sync_isolation}, UNNOTICED, dual=True),
    Profile("2-isolation", {"isolation": faults.isolation}, Limits(double=AT_HEAL), dual=True),
    Profile("2-one-way-both", {"one-way both": faults.one_way_both}, Limits(double=0.1), dual=True),
    Profile("2-deafness", {"deafness": faults.deafness}, WITHOUT_GATEWAY, dual=True),
    Profile("2-lan", {"LAN isolation": faults.lan_isolation}, WITHOUT_GATEWAY, dual=True),
    Profile("2-partition", {"partition": faults.partition}, WITHOUT_GATEWAY, dual=True),
    Profile("2-loss", {"loss": faults.loss}, Limits(double=None, dark=None, astray=True), dual=True),
    Profile("2-storm", EVERY, Limits(double=None, dark=None, astray=True), storm=True, dual=True),
)
ANYTHING = {**EVERY, **faults.STORES}
# An owner that answers through the store is asked again after a second only, should it fail then.
ASKED_BEFORE = Limits(double=AT_HEAL, dark=7.0, dark_ms=1500.0)
STORM = Limits(double=None, dark=None, astray=True)
WITH_STORE = (
    Profile("3-local", faults.LOCAL, HARMLESS, dual=True, store=True),
    Profile("3-store", faults.STORES, UNNOTICED, dual=True, store=True),
    Profile("3-isolation", {"isolation": faults.isolation}, Limits(double=AT_HEAL), dual=True, store=True),
    Profile("3-one-way-both", {"one-way both": faults.one_way_both}, Limits(double=0.1), dual=True, store=True),
    Profile("3-deafness", {"deafness": faults.deafness}, ASKED_BEFORE, dual=True, store=True),
    Profile("3-lan", {"LAN isolation": faults.lan_isolation}, ASKED_BEFORE, dual=True, store=True),
    Profile("3-partition", {"partition": faults.partition}, ASKED_BEFORE, dual=True, store=True),
    Profile("3-loss", {"loss": faults.loss}, STORM, dual=True, store=True),
    Profile("3-storm", ANYTHING, STORM, storm=True, dual=True, store=True),
    Profile("3-consistency", ANYTHING, STORM, storm=True, dual=True, store=True, policy="consistency"),
)
UPGRADE = {"upgrade": faults.upgrade}
UPGRADES = (
    Profile("upgrade", UPGRADE, UNNOTICED),
    Profile("2-upgrade", UPGRADE, UNNOTICED, dual=True, signed=True),
    Profile("2-signed", faults.LOCAL, HARMLESS, dual=True, signed=True),
    Profile("2-signed-reordering", {"reordering": faults.reordering}, UNNOTICED, dual=True, signed=True),
    Profile("3-upgrade", UPGRADE, UNNOTICED, dual=True, store=True),
    Profile("2-authentication", {"authentication": faults.authentication}, UNNOTICED, dual=True, signed=True),
    Profile("2-changes", faults.CHANGES, UNNOTICED, dual=True, signed=True),
    Profile("3-changes", faults.CHANGES, UNNOTICED, dual=True, store=True),
    Profile("3-upgrade-storm", {**ANYTHING, **UPGRADE}, STORM, storm=True, dual=True, store=True, signed=True),
)
PROFILES = {profile.name: profile for profile in (*VRRP_ALONE, *SECOND_PATH, *WITH_STORE, *UPGRADES)}
