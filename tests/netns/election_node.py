"""A daemon that does nothing but the election, for tests: `python -m tests.netns.election_node NODE RUN_DIR [SETUP]`.

SETUP is what the election process takes as {"setup": ...}, as JSON. Its data plane is the guard of the leases, on every
interface: what answers for the addresses is the network stack.

stdin: JSON lines as the election process takes them ({"groups": ...}, {"handover": NAME}, or what a store would tell).
stdout: JSON lines: every role change, the journal's entries, and what the process asks of the store ({"asked": ...}).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from lbnode.dataplane.xdp.guard import LeaseGuard
from lbnode.election.messages import group_from, role_message, setup_from
from lbnode.election.supervisor import Election
from lbnode.journal import Journal
from lbnode.plan import leased


def say(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


async def tell_roles(election: Election) -> None:
    async for roles in election.roles.changes():
        for role in roles.values():
            say(role_message(role))


async def tell_journal(journal: Journal) -> None:
    seen = 0
    async for _ in journal.latest.changes():
        for event in journal.since(seen):
            seen = event.seq
            say({"event": f"{event.what} {event.message}: {event.why}"})


async def obey(election: Election, guard: LeaseGuard, node: str) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        message = json.loads(line)
        if "groups" in message:
            groups = {group.name: group for group in map(group_from, message["groups"])}
            leases = guard.set_groups(leased(groups, node))
            election.set_groups(groups, leases, maintenance=message.get("maintenance", False))
        elif "handover" in message:
            await election.handover(message["handover"], message.get("to", ""))
        else:
            election.tell(message)


async def main(node: str, run_dir: Path, setup: str | None = None) -> None:
    journal = Journal(node)
    guard = LeaseGuard(run_dir)
    await guard.open()
    election = Election(node, journal, run_dir, setup_from(json.loads(setup)) if setup else None)
    election.claim()
    election.use_leases(guard.map_fd)
    election.on_request = lambda message: (
        None if message.keys() & {"role", "dropped"} else say({"asked": dict(message)})
    )
    tasks = [asyncio.create_task(job) for job in (tell_roles(election), tell_journal(journal))]
    tasks.append(asyncio.create_task(obey(election, guard, node)))
    run = asyncio.create_task(election.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    say({"pid": os.getpid()})
    await asyncio.wait([run])
    for task in tasks:
        task.cancel()
    await guard.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
