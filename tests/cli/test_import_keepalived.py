"""The importer beside Debian's keepalived: its sample configurations, and what its own parser makes of ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from lbnode.cli.lbctl.importing import included
from lbnode.config.keepalived.importer import Source, import_keepalived
from lbnode.config.parse import parse_document
from tests.unit.keepalived_conf import GATEWAY
from tests.unit.test_keepalived_lines import tree

SAMPLES = Path("/usr/share/doc/keepalived/samples")
FOUND = sorted(SAMPLES.glob("keepalived.conf.*"))
NO_SAMPLES = [pytest.param(SAMPLES, marks=pytest.mark.skip(reason=f"needs Debian's keepalived: {SAMPLES}"))]


@pytest.mark.keepalived
@pytest.mark.parametrize("sample", FOUND or NO_SAMPLES, ids=lambda path: path.name)
def test_keepaliveds_own_samples(sample: Path) -> None:
    """Each line with a word is in the document or listed, itself or the block around it; the document is valid."""
    text = sample.read_text()
    imported = import_keepalived([Source("gw1", str(sample), text)], included)
    assert not any("not looked at" in problem.message for problem in imported.problems)
    assert imported.taken + len(imported.problems) > 0
    assert parse_document(yaml.safe_dump(dict(imported.document)), "document").problems == ()
    services = len(imported.document.get("services", {}))
    groups = len(imported.document.get("vip-groups", {}))
    assert services >= (text.count("\nvirtual_server ") > 0)
    assert groups >= (text.count("\nvrrp_instance ") > 0)


def complaints(folder: Path, text: str) -> list[str]:
    """What `keepalived -t` says about a configuration."""
    (folder / "k.conf").write_text(text)
    command = ["keepalived", "-t", "-l", "-i", "gw1", "-f", str(folder / "k.conf"), "-p", str(folder / "pid")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return (answer.stdout + answer.stderr).splitlines()


@pytest.mark.keepalived
def test_keepalived_knows_each_word_of_our_gateway(tmp_path: Path) -> None:
    """The gateway of the unit tests is written in keepalived's language, not in ours."""
    here = ("doesn't exist", "Non-existent interface")  # this machine has other interfaces
    assert [line for line in complaints(tmp_path, GATEWAY) if not any(word in line for word in here)] == []


ODD = r"""
word1 {
word2 x { word3 }
word4 "a # b" word0 ! word0
} word5
@other word6
@^other word7
$D=word8
$D
$M= \
  word9 \
  word10 a
$M
x${D}y
~SEQ(N,1,2) word11${N}
~LST(L,p,q) word12${L}
word13 "{ word0 }"
"""


@pytest.mark.keepalived
def test_the_same_words_begin_lines_for_keepalived(tmp_path: Path) -> None:
    """keepalived names the line of each word that it does not know."""
    found = "\n".join(complaints(tmp_path, ODD))
    theirs = set(re.findall(r"Line (\d+)\) Unknown keyword '([^'}]+)'", found))
    ours, todo = set(), list(tree(ODD).top)
    while todo:
        directive = todo.pop()
        ours.add((directive.place.split(":")[1], directive.name))
        todo += directive.items
    assert {word for _, word in ours} == {word for _, word in theirs}
    # Of a value with several lines keepalived counts on: only the words are compared there.
    assert {item for item in theirs if int(item[0]) < 9} <= ours
