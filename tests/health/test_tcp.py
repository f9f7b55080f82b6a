"""TCP probes against real sockets on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from healthcheck import probes
from healthcheck.spec import CheckType, Result
from tests.health.servers import closing, serve, silent, target

STREAMS = [CheckType.TCP, CheckType.HTTP, CheckType.HTTPS, CheckType.SMTP]  # types that begin with a TCP connection


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_accepted_connection_is_healthy(address: str) -> None:
    async with serve(silent, address) as port:
        result = await probes.start(target(port, CheckType.TCP, address))
    assert result.ok and result.reason == "" and 0 < result.latency_s < 5


async def test_the_checks_own_port_wins() -> None:
    async with serve(silent) as port:
        other = target(unused_port(), CheckType.TCP)
        assert (await probes.start(replace(other, spec=replace(other.spec, port=port)))).ok


@pytest.mark.parametrize("kind", STREAMS)
async def test_refused(kind: CheckType) -> None:
    assert (await probes.start(target(unused_port(), kind))).reason == "connect refused"


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_server_that_does_not_even_accept(kind: CheckType) -> None:
    """With a full accept queue the kernel leaves further SYNs unanswered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(server.getsockname())
            result = await probes.start(target(server.getsockname()[1], kind, timeout_s=0.2))
        finally:
            for filler in fillers:
                filler.close()
    assert not result.ok and result.reason == "timeout after 0.2 s connecting"
    assert result.latency_s >= 0.2


async def test_an_answer_that_waits_behind_a_stalled_event_loop_counts() -> None:
    async with serve(closing) as port:
        probe = probes.start(target(port, CheckType.TCP, timeout_s=0.05))
        time.sleep(0.2)  # the stall, beyond the deadline
        assert (await probe).ok


async def test_close_sends_rst_and_leaves_no_time_wait() -> None:
    ends: list[object] = []
    done = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ends.append(await reader.read(1))
        except ConnectionResetError as error:
            ends.append(error.errno)
        done.set()

    async with serve(handler) as port:
        assert (await probes.start(target(port, CheckType.TCP))).ok
        async with asyncio.timeout(10):
            await done.wait()
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        time_wait = [line for line in lines if f"0100007F:{port:04X}" in line and line.split()[3] == "06"]
    assert ends == [errno.ECONNRESET] and time_wait == []


async def test_no_descriptor_is_left_however_a_probe_ends() -> None:
    before = open_fds()
    async with serve(silent) as port:
        listening = open_fds()
        for kind in CheckType:
            started = [probes.start(target(port, kind, timeout_s=0.05)) for _ in range(50)]
            started += [probes.start(target(unused_port(), kind)) for _ in range(20)]
            await asyncio.gather(*started)
            cancelled = [probes.start(target(port, kind)) for _ in range(50)]
            await asyncio.sleep(0)
            for probe in cancelled:
                probe.cancel()
            ended = await asyncio.gather(*cancelled, return_exceptions=True)
            if kind in STREAMS:  # the others have ended by now: loopback answers at once
                assert any(isinstance(end, asyncio.CancelledError) for end in ended)
        async with asyncio.timeout(10):
            while open_fds() > listening:  # the server's ends go a little later
                await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        while open_fds() > before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", list(CheckType))
async def test_running_out_of_descriptors_blames_this_machine(kind: CheckType) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe_socket:
        lowest_free = probe_socket.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        probe = probes.start(target(1, kind))
        with pytest.raises(probes.ProbeImpossible, match="raise the limit"):
            await probe
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_unreachable_network() -> None:
    """240.0.0.0/4 is reserved: the kernel has no route or refuses; either way in words, not as an exception."""
    probe = probes.start(replace(target(9, CheckType.TCP, timeout_s=0.2), address=ip_address("255.255.255.255")))
    result: Result = await probe
    assert not result.ok and result.reason.startswith("connect: ")
