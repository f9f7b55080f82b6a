"""The failover bench on lbnoded with its data plane: no figure is asserted, but what must hold whatever they are."""

from __future__ import annotations

import pytest

from tests.bench.failover.run import FAULTS, run_once

pytestmark = [pytest.mark.root]


@pytest.mark.parametrize("fault", ["SIGTERM", "partition"])
def test_a_pair_of_lbnode_is_reachable_after_the_fault(fault: str) -> None:
    outcome = run_once(("lbnode", "lbnode"), FAULTS[fault], 0.1)
    assert not outcome.lost
    assert outcome.gap > 0
    assert (outcome.heal_gap is not None) == (fault == "partition")


@pytest.mark.parametrize("fault", ["SIGKILL", "SIGSTOP, CONT"])
def test_whatever_happens_to_the_processes_two_gateways_never_serve_at_once(fault: str) -> None:
    """What keepalived does not give: its dead or frozen node's kernel answers on."""
    outcome = run_once(("lbnode", "lbnode"), FAULTS[fault], 0.1)
    assert outcome.double == 0
    assert not outcome.lost
