"""`make sim`, `make soak`: a campaign's figures, or the story of one episode."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.election.campaign import run_campaign
from tests.sim.election.episode import PROFILES, Episode
from tests.sim.election.figures import LEGEND, Figures, table


def replay(profile: str, seed: int, number: int) -> int:
    episode = Episode(PROFILES[profile], seed, number)
    figures = episode.run()
    for at, node, what in episode.cluster.trace:
        print(f"{at / episode.cluster.interval:12.3f}  node {node}  {what}")
    print(*figures.violations, f"digest {figures.digest:016x}", sep="\n")
    return bool(figures.violations)


def campaign(cluster_seconds: float, seed: int, profiles: list[str]) -> int:
    began, told = time.monotonic(), 0.0

    def progress(done: float) -> None:
        nonlocal told
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{done:.0f} of {cluster_seconds:.0f} cluster-seconds", file=sys.stderr, flush=True)

    results = run_campaign(cluster_seconds, seed, profiles, progress=progress)
    total = Figures()
    for figures in results.values():
        total.add(figures)
    print(table([*results.items(), ("all", total)]), LEGEND, sep="\n")
    elapsed = time.monotonic() - began
    print(f"seed {seed}, {total.events} events, digest {total.digest:016x}, {total.seconds / elapsed:.0f} x real time")
    if total.violations:
        print(
            f"\n{len(total.violations)} violations, the first ones (times in intervals; make sim with these replays):"
        )
        print(*total.violations[:5], sep="\n")
    return bool(total.violations)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.election", description=__doc__)
    parser.add_argument("--cluster-seconds", type=float, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", choices=PROFILES, help="only this one")
    parser.add_argument("--number", type=int, help="tell the story of this one episode of the profile")
    args = parser.parse_args()
    if args.number is not None:
        if args.profile is None:
            parser.error("--number needs --profile")
        return replay(args.profile, args.seed, args.number)
    return campaign(args.cluster_seconds, args.seed, [args.profile] if args.profile else list(PROFILES))


if __name__ == "__main__":
    sys.exit(main())
