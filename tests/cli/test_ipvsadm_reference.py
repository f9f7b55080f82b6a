"""lbadm answers as ipvsadm 1.31 did: every case of the reference, against a real lbnoded with the fake data plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.reference import cases
from tests.reference.lbadm import OnNode, target

CASES = cases.load()


@pytest.fixture(scope="module")
def node() -> Iterator[OnNode]:
    with target("fake") as found:
        assert isinstance(found, OnNode)
        yield found


@pytest.mark.parametrize(
    "name", CASES or [pytest.param("", marks=pytest.mark.skip(reason=f"no cases in {cases.FOLDER}"))]
)
def test_case(node: OnNode, name: str) -> None:
    with node.case():
        outcome = cases.run_case(name, CASES[name], node.run, transactions=True)
    assert not outcome.differences, "\n".join(outcome.differences)


def answer(node: OnNode, command: str, stdin: str = "") -> cases.Answer:
    return node.run({"cmd": command, "stdin": stdin})


def test_restore_is_all_or_nothing(node: OnNode) -> None:
    with node.case():
        pass
    answer(node, "ipvsadm -A -t 192.0.2.1:80 -s rr")
    before = answer(node, "ipvsadm -S -n")
    for lines, rc, message in (
        ("-A -t 192.0.2.2:80\n-A -t 192.0.2.1:80\n", 255, "line 2: Service already exists\nNothing was changed.\n"),
        ("-C\n\n-A -t 192.0.2.2:80 -w 1\n", 2, "line 3: Illegal 'weight' option with the 'add-service' command"),
    ):
        failed = answer(node, "ipvsadm -R", lines)
        assert (failed.rc, failed.stdout) == (rc, "")
        assert failed.stderr.startswith(message)
        assert answer(node, "ipvsadm -S -n") == before
    assert answer(node, "ipvsadm -R", "-C\n-A -u 192.0.2.3:53 -s rr -o\n") == cases.Answer(0, "", "")
    assert answer(node, "ipvsadm -S -n").stdout == "-A -u 192.0.2.3:53 -s rr -o\n"


def test_a_step_may_need_a_shell(node: OnNode) -> None:
    with node.case():
        pass
    shell = answer(node, "ipvsadm -A -t vip.example:80 -s rr && ipvsadm -S | ipvsadm -R; echo $?")
    assert (shell.stdout, shell.stderr) == ("255\n", "line 1: Service already exists\nNothing was changed.\n")
    assert answer(node, "ipvsadm -S").stdout == "-A -t vip.example:http -s rr\n"
