"""A daemon that does nothing but the election, for tests: `python -m tests.netns.election_node NODE [SETUP]`.

SETUP is what the election process takes as {"setup": ...}, as JSON.

stdin: JSON lines as the election process takes them ({"groups": ...}, {"handover": NAME}).
stdout: JSON lines: every role change, and the journal's entries.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from lbnode.election.messages import group_from, role_message, setup_from
from lbnode.election.supervisor import Election
from lbnode.journal import Journal


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


async def obey(election: Election) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        message = json.loads(line)
        if "groups" in message:
            election.set_groups({group.name: group for group in map(group_from, message["groups"])})
        else:
            await election.handover(message["handover"])


async def main() -> None:
    journal = Journal(sys.argv[1])
    election = Election(sys.argv[1], journal, setup_from(json.loads(sys.argv[2])) if len(sys.argv) > 2 else None)
    tasks = [asyncio.create_task(job) for job in (tell_roles(election), tell_journal(journal), obey(election))]
    run = asyncio.create_task(election.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    say({"pid": os.getpid()})
    await asyncio.wait([run])
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
