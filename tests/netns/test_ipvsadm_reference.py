"""lbadm answers as ipvsadm on a real lbnoded that drives XDP and tcx: the captured cases, also those under traffic."""

from __future__ import annotations

import pytest

from tests.reference import cases, traffic
from tests.reference.__main__ import run_all

pytestmark = pytest.mark.root


def test_captured_cases() -> None:
    if not (found := cases.load(*cases.CASES)):
        pytest.skip(f"no cases in {cases.FOLDER}")
    cases.check(run_all("xdp", found), found)


def test_captured_cases_under_live_traffic() -> None:
    if not (found := cases.load(traffic.TRAFFIC)):
        pytest.skip(f"no {traffic.TRAFFIC}")
    cases.check(traffic.run_all("xdp"), found)
