"""The daemon's side of the election: starts the election process, watches it, passes configuration and roles.

The process outlives a daemon that dies, for some seconds: the process of the next daemon takes over from it without an
election. If the process dies, the daemon takes the addresses off at once and starts another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lbnode
from lbnode.election.figures import AdvertFigures
from lbnode.election.lease import Leases
from lbnode.election.messages import LEAVE, Setup, encode_line, groups_message, role_from, setup_message
from lbnode.election.predecessor import Predecessor
from lbnode.election.vip import fence
from lbnode.errors import DataPlaneError, LbError
from lbnode.journal import Journal, Kind
from lbnode.model import Role, VipGroup, VrrpState
from lbnode.watched import Watched

STOP_TIMEOUT_S = 2.0
HANDOVER_TIMEOUT_S = 2.0
LIVED_LONG_S = 10.0  # a process that ran this long is started again without delay
MAX_BACKOFF_S = 5.0
LINE_LIMIT = 1 << 20


class Election:
    """`roles`: this node's role in each VIP group that names it. `dropped`: invalid packets by (interface, reason)."""

    def __init__(self, node: str, journal: Journal, run_dir: Path, setup: Setup | None = None) -> None:
        self.roles: Watched[Mapping[str, Role]] = Watched({})
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.figures: tuple[AdvertFigures, ...] = ()
        self.not_realtime = ""  # why advertisements may be late, see realtime
        self._node = node
        self._journal = journal
        self._socket_path = run_dir / "election.sock"
        self._setup = setup or Setup()
        self.on_request: Callable[[Mapping[str, Any]], None] = lambda _: (
            None
        )  # hears what the process asks of the store
        self._before: Predecessor | None = None
        self._burial: asyncio.Task[None] | None = None
        self._keep = False
        self._wanted: Watched[tuple[Mapping[str, VipGroup], Mapping[str, int], bool] | None] = Watched(None)
        self._failing: Mapping[str, Mapping[str, str]] = {}
        self._lease_map: int | None = None
        self._leases = Leases(None)
        self._writer: asyncio.StreamWriter | None = None

    @property
    def _groups(self) -> Mapping[str, VipGroup]:
        """Those that name this node; none before the configuration is known."""
        return self._wanted.value[0] if self._wanted.value else {}

    def use_leases(self, lease_map: int | None) -> None:
        """Have the data plane serve a group only while its lease in this map runs; to be called before `run`."""
        self._lease_map, self._leases = lease_map, Leases(lease_map)

    def claim(self) -> None:
        """Have an earlier daemon's process, which serves still, wait for this one, as long as `progressed` is called
        while the data plane opens: millions of connections may have to be carried over."""
        self._before = Predecessor.find(self._socket_path)

    def progressed(self) -> None:
        if self._before is not None:
            self._before.progress()

    def set_groups(
        self, groups: Mapping[str, VipGroup], leases: Mapping[str, int] = {}, *, maintenance: bool = False
    ) -> None:
        """Take part in those groups whose priorities name this node, and leave all others.

        `leases`: index of each group that needs a lease in the data plane's map. `maintenance`: hold nothing that
        another node could hold.

        Not to be called before the configuration is known: until the first call, addresses that an earlier run left
        on the interfaces stay untouched; from then on, those of no group are removed.
        """
        mine = {name: group for name, group in groups.items() if self._node in group.priorities}
        known = self.roles.value
        self._leases.configure(leases)
        self._wanted.set((mine, leases, maintenance))
        self.roles.set({name: known.get(name) or self._waiting(group) for name, group in mine.items()})

    async def run(self) -> None:
        """Keep an election process running until cancelled; then stop it cleanly (it hands over), or `keep` it. `claim`
        comes before."""
        backoff_s = 0.0
        clock = asyncio.get_running_loop().time
        try:
            while True:
                started = clock()
                why = await self._run_process()
                self._process_died(why)
                backoff_s = 0.0 if clock() - started > LIVED_LONG_S else min(MAX_BACKOFF_S, backoff_s * 2 or 0.05)
                await asyncio.sleep(backoff_s)
        finally:
            if self._before is not None and not self._keep:
                self._before.dismiss()
            if self._burial is not None:
                self._burial.cancel()

    def keep(self) -> None:
        """Let the process go on when `run` is cancelled: another lbnoded takes over from it in a moment."""
        self._keep = True

    async def handover(self, group: str, to: str = "") -> None:
        """Give the Active role to a peer, the best one or `to`, and return once it is given up.

        See lbnode.handover for what comes before.
        """
        if self._writer is None:
            raise LbError(f"VIP group {group}: the election process is not running; try again in a moment")
        self._journal.record(Kind.ELECTION, group, f"handover to {to} requested" if to else "handover requested")
        self._writer.write(encode_line({"handover": group, "to": to}))
        try:
            async with asyncio.timeout(HANDOVER_TIMEOUT_S):
                seen = self.roles.version
                while (now := self.roles.value.get(group)) is not None and now.state is VrrpState.ACTIVE:
                    seen = await self.roles.wait_changed(seen)
        except TimeoutError:
            raise LbError(f"VIP group {group}: no answer to the handover within {HANDOVER_TIMEOUT_S:g} s") from None

    # --- the process ------------------------------------------------------------------------------------------

    async def _run_process(self) -> str:
        """Start one process and serve it until it ends; returns how it ended."""
        ours, theirs = socket.socketpair()
        try:
            process = self._start_process(theirs)
        except OSError as error:
            ours.close()
            return f"could not be started: {error}"
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        ready = asyncio.Event()
        sender = asyncio.create_task(self._send_groups(self._writer, ready))
        try:
            with contextlib.suppress(ConnectionError):  # it died with something unread
                while (line := await reader.readline()).endswith(b"\n"):
                    message = json.loads(line)
                    ready.set()  # whatever it says
                    self._receive(message)
            return f"exit status {await _end_of(process)}"
        finally:
            sender.cancel()
            if not self._keep:
                self._writer.write(encode_line(LEAVE))
            self._writer.close()
            self._writer = None
            if not self._keep:
                await self._reap(process)

    def _start_process(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        """Not by asyncio, which kills what still runs when its loop ends."""
        leases = [] if self._lease_map is None else [self._lease_map]
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "lbnode.election.driver"),
                *("--fd", str(theirs.fileno()), "--node", self._node, "--socket", str(self._socket_path)),
                *(f"--lease-map={descriptor}" for descriptor in leases),
            ],
            pass_fds=[theirs.fileno(), *leases],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(lbnode.__file__).parents[1])},
        )

    async def _send_groups(self, writer: asyncio.StreamWriter, ready: asyncio.Event) -> None:
        """The first time when the process can serve: then the one before it, if any, steps aside."""
        await ready.wait()
        writer.write(encode_line(setup_message(self._setup)))
        async for wanted in self._wanted.changes():
            if wanted is not None:
                groups, leases, maintenance = wanted
                held = await self._succeed()
                message = {**groups_message(groups.values(), leases), "maintenance": maintenance, **held}
                writer.write(encode_line(message) + encode_line({"failing": self._failing}))

    async def _succeed(self) -> dict[str, Any]:
        """Have the process of an earlier daemon step aside; what it held, as part of the message of the groups."""
        before, self._before = self._before, None
        if before is None:
            return {}
        held, problem = await before.abdicate()
        self._burial = asyncio.create_task(before.gone())
        why = problem or f"it held {', '.join(sorted(held)) or 'no group'}"
        self._journal.record(Kind.ELECTION, "election process", "follows one of an earlier lbnoded", why)
        return {"held": held}

    async def _reap(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await _end_of(process)
        except TimeoutError:
            process.kill()
            await _end_of(process)
            self._fence()

    def _process_died(self, why: str) -> None:
        self._fence()
        self._journal.record(Kind.ELECTION, "election process", "died, starting another one", why)
        groups = self._groups
        problem = f"the election process died ({why})"
        self.roles.set(
            {
                name: replace(role, problem=problem)
                if len(groups[name].priorities) == 1
                else replace(self._waiting(groups[name]), problem=problem)
                for name, role in self.roles.value.items()
            }
        )

    def _fence(self) -> None:
        """End the leases and take off the addresses that a peer will claim now. A sole member's stay for the next
        process to adopt."""
        shared = [group for group in self._groups.values() if len(group.priorities) > 1]
        for group in shared:
            self._leases.set(group, 0)
        addresses = {vip.address for group in shared for vip in group.addresses}
        if not addresses:
            return
        try:
            problems = fence(addresses)
        except (DataPlaneError, OSError) as error:
            problems = [str(error)]
        for problem in problems:
            self._journal.record(Kind.ELECTION, "election process", "left addresses that could not be removed", problem)

    # --- what it says -----------------------------------------------------------------------------------------

    def set_failing(self, failing: Mapping[str, Mapping[str, str]]) -> None:
        """What of the things that groups track fails: group -> str(track) -> reason."""
        if failing != self._failing:
            self._failing = failing
            self.tell({"failing": failing})

    def tell(self, message: dict[str, Any]) -> None:
        """Pass on what the store says; nobody listens while the process is being started anew."""
        if self._writer is not None:
            self._writer.write(encode_line(message))

    def _receive(self, message: dict[str, Any]) -> None:
        self.on_request(message)
        if "role" in message:
            self._take_role(role_from(message["role"]))
        elif "dropped" in message:
            dropped = message["dropped"]
            self.dropped[dropped["interface"], dropped["reason"]] = dropped["count"]
            self._journal.record(
                Kind.ELECTION, dropped["interface"], f"dropped {dropped['count']} invalid packets", dropped["message"]
            )
        elif "figures" in message:
            self.figures = tuple(
                AdvertFigures(one["group"], tuple(one["late"]), one["late_s"]) for one in message["figures"]
            )
        elif "realtime" in message:
            self.not_realtime = message["realtime"]
            if self.not_realtime:
                self._journal.record(Kind.ELECTION, "election process", "warned", self.not_realtime)
        elif "warning" in message:
            self._journal.record(Kind.ELECTION, "election process", "warned", message["warning"])

    def _take_role(self, role: Role) -> None:
        old = self.roles.value.get(role.group)
        if old is None:  # a last word about a group that was removed meanwhile
            return
        if role.state is not old.state:
            self._journal.record(Kind.ELECTION, role.group, f"became {role.state}", role.reason)
        if role.problem != old.problem:
            message = "has a problem" if role.problem else "has no problem any more"
            self._journal.record(Kind.ELECTION, role.group, message, role.problem)
        self.roles.update(lambda roles: {**roles, role.group: role})

    def _waiting(self, group: VipGroup) -> Role:
        return Role(group.name, VrrpState.INITIALIZE, group.priorities[self._node], time.time(), "starting")


async def _end_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for its exit status."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()
