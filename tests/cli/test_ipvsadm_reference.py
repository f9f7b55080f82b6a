"""lbadm answers as ipvsadm 1.31 did: every case of the reference, against a real lbnoded with the fake data plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.daemon import Daemon
from tests.reference import cases

CASES = cases.load()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    node = Daemon(tmp_path_factory.mktemp("reference"))
    try:
        node.start()
        yield node
    finally:
        node.close()


@pytest.mark.skipif(not CASES, reason=f"no {cases.CASES}")
@pytest.mark.parametrize("name", CASES)
def test_case(daemon: Daemon, name: str) -> None:
    outcome = cases.run_case(name, CASES[name], daemon.client)
    assert not outcome.differences, "\n".join(outcome.differences)
