"""`lbctl failover` and `lbctl maintenance` in a pair whose nodes have a store each: the election knows who is who."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lbnode.lab.netns import Net
from tests.netns.election_lab import VIP, Lab
from tests.node.daemon import Daemon, until

pytestmark = pytest.mark.root

GROUP = {"vrid": 51, "addresses": [f"{VIP}/24"], "priorities": {"a": 250, "b": 150}}

KEY = "k" * 32


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """a is Active, b is Backup, and both know it."""
    addresses = {"a": "192.0.2.1:8848", "b": "192.0.2.2:8848"}
    with Net(f"lbt-ws{os.getpid()}") as net, ExitStack() as stack:
        lab, daemons = Lab(net), []
        for name, other in (("a", "b"), ("b", "a")):
            sync = (
                f'[sync]\nlisten = "{addresses[name]}"\nkey = "{KEY}"\n[sync.peers]\n{other} = "{addresses[other]}"\n'
            )
            daemon = Daemon(tmp_path / name, name, sync, prefix=("nsenter", f"--net=/run/netns/{net.ns(name)}"))
            stack.callback(daemon.close)
            daemon.start()
            (tmp_path / "group.json").write_text(json.dumps({"vip-groups": {"front": GROUP}}))
            assert daemon.run("lbctl", "apply", "-f", str(tmp_path / "group.json")).returncode == 0
            until(lambda: lab.holds("a"), "a is active")
            daemons.append(daemon)
        a, b = daemons
        until(lambda: role(a)["backups"] == ["b"] and role(b)["active_node"] == "a", "they know each other")
        yield a, b


def role(daemon: Daemon) -> dict[str, object]:
    (found,) = daemon.status()["roles"]
    return dict(found)


def lbctl(daemon: Daemon, *arguments: str) -> tuple[int, str]:
    done = daemon.run("lbctl", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_whoever_is_asked_knows_who_is_active_and_who_would_be(pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    assert lbctl(a, "failover", "front", "--dry-run") == (0, "front: a -> b\n") and role(a)["state"] == "active"
    for dry in ((), ("--dry-run",)):
        code, text = lbctl(b, "failover", "front", *dry)
        assert code == 1 and "b is backup, and only the active node can hand over; a has it: run this there" in text
        assert "c is not backup now; these are: b" in lbctl(a, "failover", "front", "--to", "c", *dry)[1]
    assert lbctl(a, "failover", "front") == (0, "front: a -> b\n")
    until(lambda: role(b)["state"] == "active" and role(b)["backups"] == ["a"], "b has it")
    assert lbctl(b, "failover", "front", "--to", "a") == (0, "front: b -> a\n")
    until(lambda: role(a)["state"] == "active" and role(a)["backups"] == ["b"], "a has it again")
    code, text = lbctl(a, "maintenance", "on", "b")
    assert code == 1 and "a has a store of its own: run this on b" in text
    code, text = lbctl(a, "maintenance", "on")
    assert code == 0 and text.startswith("front: a -> b\n")
    until(lambda: role(b)["state"] == "active" and role(a)["state"] == "initialize", "a takes no part")
    until(lambda: role(b)["backups"] == [], "and says nothing")
    assert "no other node is backup now" in lbctl(b, "failover", "front")[1]
