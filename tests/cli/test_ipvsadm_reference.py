"""lbadm answers as ipvsadm 1.31 did: every case of the reference, against a real lbnoded with the fake data plane."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NEEDS
from tests.reference import cases
from tests.reference.lbadm import OnNode, needs_root, target

CASES = cases.load(*cases.CASES)


@pytest.fixture(scope="module")
def node() -> Iterator[OnNode]:
    with target("fake") as found:
        assert isinstance(found, OnNode)
        yield found


@pytest.mark.parametrize(
    "name", CASES or [pytest.param("", marks=pytest.mark.skip(reason=f"no cases in {cases.FOLDER}"))]
)
def test_case(node: OnNode, name: str) -> None:
    if needs_root(CASES[name]) and (missing := NEEDS["root"]()):
        pytest.skip(missing)
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


def test_installed_as_ipvsadm(tmp_path: Path) -> None:
    lbadm = Path(sys.executable).with_name("lbadm")
    done = subprocess.run([lbadm, "--install-as-ipvsadm", tmp_path], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    environment = {**os.environ, "LBNODE_SOCKET": "/nonexistent"}
    for program, arguments, rc in (("ipvsadm", ["-v"], 0), ("ipvsadm-save", ["-x"], 1), ("ipvsadm", ["-Ln"], 2)):
        ran = subprocess.run([tmp_path / program, *arguments], env=environment, capture_output=True, check=False)
        assert ran.returncode == rc
    (tmp_path / "ipvsadm-save").unlink()
    (tmp_path / "ipvsadm-save").write_text("#!/bin/sh\n")
    again = subprocess.run([lbadm, "--install-as-ipvsadm", tmp_path], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr[:7]) == (1, "lbadm: ") and "ipvsadm-save: File exists" in again.stderr
    assert (tmp_path / "ipvsadm-save").read_text() == "#!/bin/sh\n"


def test_direct_without_ip_vs_says_so_as_ipvsadm() -> None:
    """Whatever the command is; on a kernel with ip_vs the tests of tests/uml/ compare the answers."""
    if not NEEDS["ipvs"]():
        pytest.skip("this kernel has ip_vs")
    for arguments in (["-L"], ["-A", "nonsense"], []):
        lbadm = [sys.executable, "-m", "lbnode.cli.ipvsadm", "--direct", *arguments]
        done = subprocess.run(lbadm, capture_output=True, text=True, check=False)
        reason = "Protocol not available" if os.geteuid() == 0 else "Permission denied (you must be root)"
        second = "Are you sure that IP Virtual Server is built in the kernel or as module?"
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"Can't initialize ipvs: {reason}\n{second}\n"
