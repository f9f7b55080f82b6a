"""Script probes: exit status, output, time, and that nothing of them stays behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from healthcheck import probes
from healthcheck.spec import CheckType, Result, ScriptSpec, Target
from tests.health.servers import target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def check(folder: Path, text: str, *arguments: str, timeout_s: float = 10.0) -> Target:
    path = folder / "check"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    spec = ScriptSpec(str(path), arguments)
    return target(8080, CheckType.SCRIPT, "198.51.100.7", timeout_s=timeout_s, script=spec)


async def run(folder: Path, text: str, *arguments: str, timeout_s: float = 10.0) -> Result:
    return await probes.start(check(folder, text, *arguments, timeout_s=timeout_s))


async def number_in(path: Path) -> int:
    """The process id that a script writes there."""
    async with asyncio.timeout(10):
        while not (path.exists() and path.read_text().endswith("\n")):
            await asyncio.sleep(0.01)
    return int(path.read_text())


def children() -> set[str]:
    """Of this process, zombies too."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            await asyncio.sleep(0.01)


async def test_status_0_is_healthy(folder: Path) -> None:
    result = await run(folder, "echo all is well; exit 0")
    assert result.ok and result.reason == "" and 0 < result.latency_s < 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 1", "exit status 1"),
        ("echo no database >&2; echo more; exit 3", "exit status 3: no database"),
        ("printf 'a\\033[1mb\\tc'; exit 1", "exit status 1: a [1mb c"),
        ("kill -TERM $$", "ended by SIGTERM"),
        ("kill -40 $$", "ended by signal 40"),
        ("head -c 300 /dev/zero | tr '\\0' x; exit 1", f"exit status 1: {'x' * 200}"),
    ],
)
async def test_what_else_it_says(folder: Path, text: str, reason: str) -> None:
    result = await run(folder, text)
    assert not result.ok and result.reason == reason


async def test_it_knows_the_server_and_its_arguments_and_nothing_of_ours(folder: Path) -> None:
    text = 'echo "$CHECK_ADDRESS $CHECK_PORT $# $2 ${HOME-none}"; exit 1'
    assert (await run(folder, text, "one", "two words")).reason == "exit status 1: 198.51.100.7 8080 2 two words none"


async def test_much_output_does_not_hold_it_up(folder: Path) -> None:
    assert (await run(folder, "head -c 1000000 /dev/zero")).ok


async def test_time_up_ends_it(folder: Path) -> None:
    before = children()
    result = await run(folder, "exec sleep 1000", timeout_s=0.3)
    assert not result.ok and result.reason == "timeout after 0.3 s running the script"
    assert children() <= before  # killed and reaped


async def test_what_a_script_leaves_running_ends_with_it(folder: Path) -> None:
    assert (await run(folder, f"sleep 1000 & echo $! >{folder}/child")).ok
    await gone(await number_in(folder / "child"))


async def test_a_child_that_left_the_group_does_not_hold_it_up(folder: Path) -> None:
    begun = f"while [ ! -s {folder}/child ]; do sleep 0.01; done"
    result = await run(folder, f"setsid sh -c 'echo $$ >{folder}/child; exec sleep 1000' & {begun}; exit 1")
    assert result.reason == "exit status 1"
    os.kill(await number_in(folder / "child"), 9)


async def test_cancelling_ends_the_whole_group(folder: Path) -> None:
    probe = probes.start(check(folder, f"echo $$ >{folder}/self; sleep 1000 & echo $! >{folder}/child; wait"))
    pid, child = await number_in(folder / "self"), await number_in(folder / "child")
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert not Path(f"/proc/{pid}").exists()  # reaped
    await gone(child)


async def test_no_descriptor_and_no_zombie_is_left(folder: Path) -> None:
    before, others = len(os.listdir("/proc/self/fd")), children()
    for _ in range(20):
        await run(folder, "exit 1")
    assert len(os.listdir("/proc/self/fd")) == before
    assert children() <= others


async def test_no_such_script_tells_nothing_of_the_server(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    missing = target(1, CheckType.SCRIPT, script=ScriptSpec("/nowhere/check"))
    with pytest.raises(probes.ProbeImpossible, match="/nowhere/check: no such file or directory on this machine"):
        await probes.start(missing)
    (folder / "plain").write_text("exit 0")
    plain = target(1, CheckType.SCRIPT, script=ScriptSpec(str(folder / "plain")))
    with pytest.raises(probes.ProbeImpossible, match="permission denied on this machine"):
        await probes.start(plain)
    assert len(os.listdir("/proc/self/fd")) == before
