"""Which of ip_vs's sync daemons are started and stopped, and the ledger that tells whose they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.ipvs.codec import Command, Daemon, DaemonState
from lbnode.dataplane.ipvs.ledger import Ledger
from lbnode.dataplane.ipvs.sync import commands, from_daemons, to_daemon
from lbnode.errors import DataPlaneError
from lbnode.model import SyncDaemon

DAEMONS = st.builds(
    SyncDaemon,
    st.sampled_from(["eth0", "eth1"]),
    st.integers(0, 2),
    st.sampled_from([0, 500, 1472, 65507]),
    st.sampled_from([ip_address("224.0.0.81"), ip_address("ff02::81")]),
    st.sampled_from([8848, 8849]),
    st.sampled_from([1, 2]),
)
WANTED = st.dictionaries(st.sampled_from(["master", "backup"]), DAEMONS)


def started(daemon: Daemon) -> Daemon:
    """What start_sync_thread() of Linux 6.1 makes of it, on an interface with an MTU of 1500."""
    headers = 28 if daemon.group is None or daemon.group.version == 4 else 48
    shortest = 1024 if daemon.state is DaemonState.BACKUP else 1
    length = min(max(daemon.max_len, shortest), 65535 - headers) if daemon.max_len else 1500 - headers
    return Daemon(daemon.state, daemon.interface, daemon.sync_id, length, daemon.group, daemon.port, daemon.ttl)


@given(WANTED, WANTED, st.sets(st.sampled_from(["master", "backup"])))
def test_the_commands_lead_to_what_is_wanted(
    wanted: Mapping[str, SyncDaemon], before: Mapping[str, SyncDaemon], owned: set[str]
) -> None:
    running = {daemon.state: started(daemon) for daemon in (to_daemon(*item) for item in before.items())}
    for command, daemon in commands(wanted, list(running.values()), owned):
        if command is Command.NEW_DAEMON:
            assert daemon.state not in running, "the kernel refuses a second one"
            running[daemon.state] = started(daemon)
        else:
            assert running.pop(daemon.state) == daemon
    assert list(commands(wanted, list(running.values()), owned)) == []
    found = from_daemons(running.values())
    assert set(found) == set(wanted) | (set(before) - owned)
    for state, daemon in wanted.items():
        ends = [(item.interface, item.syncid, item.group, item.port, item.ttl) for item in (found[state], daemon)]
        assert ends[0] == ends[1]


def test_a_promotion_starts_before_it_stops() -> None:
    eth1 = SyncDaemon("eth1")
    backup = started(to_daemon("backup", eth1))
    steps = list(commands({"master": eth1}, [backup], ["backup"]))
    assert steps == [(Command.NEW_DAEMON, to_daemon("master", eth1)), (Command.DEL_DAEMON, backup)]


# --- the ledger -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["tcp:192.0.2.10:80", "fwmark:7", "time-outs"]))))
def test_the_ledger_survives_its_process(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, str]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "ipvs"
    expected: set[str] = set()
    ledger = Ledger(path)
    ledger.open()
    for add, name in steps:
        (ledger.add if add else ledger.discard)(name)
        (expected.add if add else expected.discard)(name)
        later = Ledger(path)  # as after kill -9 at this moment
        later.open()
        later.close()
        assert later.names() == expected
        ledger.close()
        ledger.open()
    ledger.remove()
    assert not path.exists()


def test_a_ledger_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataPlaneError, match="nowhere/ipvs: cannot be written"):
        Ledger(tmp_path / "nowhere" / "ipvs").open()
    path = tmp_path / "ipvs"
    path.write_bytes(os.urandom(10) + b"\xff")
    with pytest.raises(DataPlaneError, match="cannot be read"):
        Ledger(path).open()
