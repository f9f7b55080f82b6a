"""The kernel's sync daemons: from what is wanted and what runs to the commands that make them equal. Pure.

One of each state may run at a time, and its options cannot be changed while it runs (ip_vs_sync.c). Neither runs
beside servers of another address family than their service.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from lbnode.dataplane.ipvs.codec import Command, Daemon, DaemonState
from lbnode.model import DEFAULT_SYNC_GROUP, SyncDaemon

_STATES = {"master": DaemonState.MASTER, "backup": DaemonState.BACKUP}
_NAMES = {state: name for name, state in _STATES.items()}
_SHORTEST = {DaemonState.MASTER: 1, DaemonState.BACKUP: 1024}  # start_sync_thread(): bytes of a message
_HEADERS = {4: 28, 6: 48}  # IP and UDP


def to_daemon(state: str, wanted: SyncDaemon) -> Daemon:
    """`state`: "master" or "backup"."""
    return Daemon(
        *(_STATES[state], wanted.interface, wanted.syncid, wanted.maxlen, wanted.group, wanted.port, wanted.ttl)
    )


def from_daemons(running: Iterable[Daemon]) -> dict[str, SyncDaemon]:
    return {
        state_name(daemon): SyncDaemon(
            *(daemon.interface, daemon.sync_id, daemon.max_len, daemon.group or DEFAULT_SYNC_GROUP),
            *(daemon.port, daemon.ttl),
        )
        for daemon in running
    }


def state_name(daemon: Daemon) -> str:
    return _NAMES[daemon.state]


def commands(
    wanted: Mapping[str, SyncDaemon], running: Iterable[Daemon], owned: Collection[str]
) -> Iterator[tuple[Command, Daemon]]:
    """What is started before what is stopped, so that a node that becomes active is never without either.

    owned: the states that lbnode started: another one, of ipvsadm or keepalived, goes on unless the same state is
    wanted with other options.
    """
    there = {daemon.state: daemon for daemon in running}
    for state, settings in wanted.items():
        daemon = to_daemon(state, settings)
        present = there.pop(daemon.state, None)
        if present is not None and _does(present, daemon):
            continue
        if present is not None:
            yield Command.DEL_DAEMON, present
        yield Command.NEW_DAEMON, daemon
    for daemon in there.values():
        if state_name(daemon) in owned:
            yield Command.DEL_DAEMON, daemon


def _does(present: Daemon, wanted: Daemon) -> bool:
    """The running daemon is what starting `wanted` would give; its length of messages is within the kernel's limits."""
    if wanted.max_len:
        longest = 65535 - _HEADERS[wanted.group.version if wanted.group else 4]
        if present.max_len != min(max(wanted.max_len, _SHORTEST[wanted.state]), longest):
            return False
    ends = [(item.interface, item.sync_id, item.group, item.port, item.ttl) for item in (present, wanted)]
    return ends[0] == ends[1]
