"""The failover bench on lbnoded with its data plane: no figure is asserted, but what must hold whatever they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench.failover.run import FAULTS, Scene, scene

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def pair() -> Iterator[Scene]:
    with scene(("lbnode", "lbnode"), 0.1) as made:
        yield made


@pytest.mark.parametrize("fault", ["SIGTERM", "partition"])
def test_a_pair_of_lbnode_is_reachable_after_the_fault(pair: Scene, fault: str) -> None:
    outcome = pair.run(FAULTS[fault])
    assert not outcome.lost
    assert outcome.gap > 0
    assert (outcome.heal_gap is not None) == (fault == "partition")


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP, CONT"])
def test_whatever_happens_to_the_processes_two_gateways_never_serve_at_once(pair: Scene, fault: str) -> None:
    """What keepalived does not give: its dead or frozen node's kernel answers on."""
    outcome = pair.run(FAULTS[fault])
    assert outcome.double == 0
    assert not outcome.lost
