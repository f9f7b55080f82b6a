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


@pytest.mark.parametrize("name", CASES or [pytest.param("", marks=pytest.mark.skip(reason=f"no {cases.CASES}"))])
def test_case(daemon: Daemon, name: str) -> None:
    outcome = cases.run_case(name, CASES[name], daemon.client)
    assert not outcome.differences, "\n".join(outcome.differences)


def answer(daemon: Daemon, command: str, stdin: str = "") -> cases.Answer:
    return cases.run_step({"cmd": command, "stdin": stdin}, daemon.client)


def test_restore_is_all_or_nothing(daemon: Daemon) -> None:
    cases.empty(daemon.client)
    answer(daemon, "ipvsadm -A -t 192.0.2.1:80 -s rr")
    before = answer(daemon, "ipvsadm -S -n")
    for lines, rc, message in (
        ("-A -t 192.0.2.2:80\n-A -t 192.0.2.1:80\n", 255, "line 2: Service already exists\nNothing was changed.\n"),
        ("-C\n\n-A -t 192.0.2.2:80 -w 1\n", 2, "line 3: Illegal 'weight' option with the 'add-service' command"),
    ):
        failed = answer(daemon, "ipvsadm -R", lines)
        assert (failed.rc, failed.stdout) == (rc, "")
        assert failed.stderr.startswith(message)
        assert answer(daemon, "ipvsadm -S -n") == before
    assert answer(daemon, "ipvsadm -R", "-C\n-A -u 192.0.2.3:53 -s rr -o\n") == cases.Answer(0, "", "")
    assert answer(daemon, "ipvsadm -S -n").stdout == "-A -u 192.0.2.3:53 -s rr -o\n"


def test_a_step_may_need_a_shell(daemon: Daemon) -> None:
    cases.empty(daemon.client)
    shell = answer(daemon, "ipvsadm -A -t vip.example:80 -s rr && ipvsadm -S | ipvsadm -R; echo $?")
    assert (shell.stdout, shell.stderr) == ("255\n", "line 1: Service already exists\nNothing was changed.\n")
    assert answer(daemon, "ipvsadm -S").stdout == "-A -t vip.example:http -s rr\n"
