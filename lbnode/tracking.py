"""What a VIP group tracks and the election process cannot see itself: data plane, synchronisation, servers, programs,
files. What fails is told to the election process; it looks at interfaces and gateways on its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lbnode.config.check_document import SCRIPTS
from lbnode.control import ServiceInfo
from lbnode.model import Track, VipGroup
from lbnode.sync.status import SyncPeerInfo


@dataclass(frozen=True, slots=True)
class Facts:
    """What is looked at."""

    dataplane: bool = True  # loaded
    sync: Iterable[SyncPeerInfo] = ()
    up: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # service id -> servers up, servers
    scripts: Mapping[str, str] = field(default_factory=dict)  # program -> why it failed, "" = it did not


def failing(group: VipGroup, facts: Facts) -> dict[str, str]:
    """str(track) -> why it fails, for those that do."""
    reasons = {str(track): _failure(track, facts) for track in group.track}
    return {name: reason for name, reason in reasons.items() if reason}


def _failure(track: Track, facts: Facts) -> str:
    match track.kind:
        case "dataplane":
            return "" if facts.dataplane else "the data plane is not loaded"
        case "sync":
            late = [peer.name for peer in facts.sync if peer.state == "bulk"]
            return f"connections are not synchronised with {', '.join(late)} yet" if late else ""
        case "service":
            up, servers = facts.up.get(track.what, (0, 0))
            return (
                "" if servers and up >= track.share * servers else f"{up} of {servers} servers of {track.what} are up"
            )
        case "script":
            reason = facts.scripts.get(track.what, "it has not run yet")
            return f"{track.what}: {reason}" if reason else ""
        case "file":
            return "" if Path(track.what).exists() else f"{track.what} does not exist"
    return ""


def servers_up(services: Iterable[ServiceInfo]) -> dict[str, tuple[int, int]]:
    """For each service: (servers that are not down, servers)."""
    return {
        service.id: (sum(server.health != "down" for server in service.servers), len(service.servers))
        for service in services
    }


class Scripts:
    """Runs the programs that groups track, each in its interval. `results`: program -> why it failed, or ""."""

    def __init__(self, directory: str = SCRIPTS) -> None:
        self.results: dict[str, str] = {}
        self._directory = Path(directory)
        self._tasks: dict[tuple[str, float], asyncio.Task[None]] = {}

    def configure(self, groups: Iterable[VipGroup]) -> None:
        """Run those of these groups, and no others."""
        wanted = {(t.what, t.interval_s) for group in groups for t in group.track if t.kind == "script"}
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
            self.results.pop(key[0], None)
        for key in wanted - self._tasks.keys():
            self._tasks[key] = asyncio.create_task(self._repeat(*key))

    def stop(self) -> None:
        self.configure(())

    async def _repeat(self, name: str, interval_s: float) -> None:
        while True:
            self.results[name] = await self._run(name, interval_s)
            await asyncio.sleep(interval_s)

    async def _run(self, name: str, within_s: float) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                str(self._directory / name), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        try:
            async with asyncio.timeout(within_s):
                status = await process.wait()
        except TimeoutError:
            return f"did not end within {within_s:g} s"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return f"exit status {status}" if status else ""
