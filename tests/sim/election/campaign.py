"""Many episodes on all cores, until a number of cluster-seconds is reached: `python -m tests.sim.election --help`.

Episodes are numbered and dealt to the profiles in turn, in batches of a fixed size: the figures and the digest depend
on the seed and the number of cluster-seconds alone, not on the machine.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial

from tests.cores import cores
from tests.sim.election.episode import PROFILES, Episode
from tests.sim.election.figures import Figures

BATCH = 4  # episodes of each profile; half as many of those with a second path, which cost four times the time
MAX_VIOLATIONS = 20  # a campaign that found so many has found enough


def run_number(seed: int, job: tuple[str, int]) -> Figures:
    profile, number = job
    return Episode(PROFILES[profile], seed, number).run()


def run_campaign(
    cluster_seconds: float,
    seed: int,
    profiles: Sequence[str] = tuple(PROFILES),
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Figures]:
    """Figures by profile; the cluster-seconds are those of all profiles together."""
    results = {name: Figures() for name in profiles}
    done, first = 0.0, 0
    with multiprocessing.get_context("fork").Pool(cores()) as pool:
        while done < cluster_seconds and sum(len(f.violations) for f in results.values()) < MAX_VIOLATIONS:
            jobs = [(name, first + n) for n in range(BATCH) for name in profiles if not (PROFILES[name].dual and n % 2)]
            for (name, _), figures in zip(jobs, pool.imap(partial(run_number, seed), jobs, 5), strict=True):
                results[name].add(figures)
                done += figures.seconds
            first += BATCH
            progress(done)
    return results
