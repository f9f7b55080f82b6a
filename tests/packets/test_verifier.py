"""What the kernel's verifier makes of the programs, held to the rules of the oldest kernel that is supported (6.1)."""

from __future__ import annotations

import pytest

from lbnode.dataplane.xdp.plane import OBJECT
from tests.packets.verifier import MAX_BPF_STACK, MAX_INSTRUCTIONS, Verified, verified

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def programs() -> dict[str, Verified]:
    return verified(OBJECT)


def test_every_chain_of_calls_fits_the_stack_as_the_oldest_kernel_counts(programs: dict[str, Verified]) -> None:
    depths = {name: program.deepest() for name, program in programs.items()}
    assert "tc_lb" in depths
    assert {name: depth for name, depth in depths.items() if depth > MAX_BPF_STACK} == {}


def test_verification_stays_far_from_its_limit(programs: dict[str, Verified]) -> None:
    walked = {name: program.instructions for name, program in programs.items()}
    assert {name: count for name, count in walked.items() if count > MAX_INSTRUCTIONS} == {}


def test_no_loop_falls_through_to_its_beginning(programs: dict[str, Verified]) -> None:
    assert {name: program.bad_loops for name, program in programs.items() if program.bad_loops} == {}
