"""A client that measures: a datagram every 10 ms, a new HTTP connection every 25 ms, and idle TCP sessions.

    python3 -m lbnode.lab.probe --udp 192.0.2.10:7 --http 192.0.2.10:80 --session 192.0.2.10:2222 --sessions 20

Speaks one JSON object per line on standard output, as answers to lines on standard input:
`window` begins a new window of measurement, `report` tells what was seen since, `sessions` sends a line through every
session and tells which of them still answer. The end of standard input ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncio_dgram

UDP_INTERVAL_S = 0.01
HTTP_INTERVAL_S = 0.025
HTTP_TIMEOUT_S = 5.0
SESSION_TIMEOUT_S = 10.0  # longer than the pause between two retransmissions early in a stall
Endpoint = tuple[str, int]


@dataclass(slots=True)
class Window:
    """Answers of one kind since the window began. The longest gap counts its two ends too. Times in seconds."""

    began: float
    sent: int = 0
    answered: int = 0
    failed: int = 0
    names: Counter[str] = field(default_factory=Counter)  # real server -> answers
    errors: Counter[str] = field(default_factory=Counter)
    longest_gap: float = 0.0
    last: float = 0.0

    def answer(self, now: float) -> None:
        self.answered += 1
        self.longest_gap = max(self.longest_gap, now - max(self.last, self.began))
        self.last = now

    def report(self, now: float) -> dict[str, Any]:
        return {
            "seconds": round(now - self.began, 3),
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "longest_gap": round(max(self.longest_gap, now - max(self.last, self.began)), 4),
            "servers": dict(self.names),
            "errors": dict(self.errors),
        }


class Probe:
    def __init__(self) -> None:
        now = time.monotonic()
        self.udp, self.http = Window(now), Window(now)
        self.sessions: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.session_endpoint: Endpoint = ("", 0)
        self._requests: set[asyncio.Task[None]] = set()

    def window(self) -> None:
        now = time.monotonic()
        self.udp, self.http = Window(now), Window(now)

    def report(self) -> dict[str, Any]:
        now = time.monotonic()
        return {"udp": self.udp.report(now), "http": self.http.report(now)}

    async def run_udp(self, endpoint: Endpoint) -> None:
        """Send numbered datagrams from one socket; an answer is a datagram that comes back as it went."""
        stream = await asyncio_dgram.connect(endpoint)

        async def receive() -> None:
            while True:
                with contextlib.suppress(OSError):  # an ICMP error in between is no answer
                    data, _ = await stream.recv()
                    if len(data) == 8:
                        self.udp.answer(time.monotonic())

        async def send() -> None:
            number = 0
            async for _ in _every(UDP_INTERVAL_S):
                number += 1
                self.udp.sent += 1
                with contextlib.suppress(OSError):
                    await stream.send(struct.pack("!Q", number))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(receive())
                group.create_task(send())
        finally:
            stream.close()

    async def run_http(self, endpoint: Endpoint) -> None:
        """Open connections at a steady pace, whatever became of those before: a stall delays no new attempt."""
        async for _ in _every(HTTP_INTERVAL_S):
            task = asyncio.create_task(self._request(endpoint))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _request(self, endpoint: Endpoint) -> None:
        window = self.http
        window.sent += 1
        try:
            async with asyncio.timeout(HTTP_TIMEOUT_S):
                body = await _get(endpoint)
        except (OSError, ValueError) as error:
            window.failed += 1
            window.errors[str(error) or type(error).__name__] += 1
            return
        window.answer(time.monotonic())
        window.names[body.strip()] += 1

    async def open_sessions(self, endpoint: Endpoint, count: int) -> None:
        self.session_endpoint = endpoint
        for _ in range(count):
            self.sessions.append(await asyncio.open_connection(*endpoint))

    async def check_sessions(self) -> dict[str, Any]:
        """A line through each session: kept if it comes back."""

        async def echo(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
            line = f"session {number} {time.monotonic()}\n".encode()
            try:
                async with asyncio.timeout(SESSION_TIMEOUT_S):
                    writer.write(line)
                    await writer.drain()
                    answer = await reader.readline()
            except OSError as error:
                return str(error) or type(error).__name__
            return "" if answer == line else f"wrong answer {answer!r}"

        results = await asyncio.gather(*(echo(number, *session) for number, session in enumerate(self.sessions)))
        lost = [result for result in results if result]
        return {"sessions": len(results), "kept": len(results) - len(lost), "lost": len(lost), "errors": lost[:3]}


async def _every(interval_s: float) -> Any:
    """Ticks at a steady pace; after a stall of this process the missed ticks are left out, not made up."""
    due = time.monotonic()
    while True:
        yield None
        due = max(due + interval_s, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def _get(endpoint: Endpoint) -> str:
    """GET / of one server in one connection; ValueError unless the status is 200."""
    reader, writer = await asyncio.open_connection(*endpoint)
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {endpoint[0]}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status = head.split(b"\r\n", 1)[0]
    if b" 200 " not in status + b" ":
        raise ValueError(f"answer {status.decode(errors='replace')!r}")
    return body.decode(errors="replace")


async def serve(udp: Endpoint | None, http: Endpoint | None, session: Endpoint | None, sessions: int) -> None:
    probe = Probe()
    if session is not None:
        await probe.open_sessions(session, sessions)
    streams: list[Awaitable[None]] = []
    if udp is not None:
        streams.append(probe.run_udp(udp))
    if http is not None:
        streams.append(probe.run_http(http))
    tasks = [asyncio.ensure_future(stream) for stream in streams]
    _say({"ready": True})
    async for line in _lines():
        for task in tasks:
            if task.done():
                task.result()
        match line:
            case "window":
                probe.window()
                _say({"window": True})
            case "report":
                _say(probe.report())
            case "sessions":
                _say(await probe.check_sessions())
            case _:
                _say({"error": f"{line!r} is none of window, report, sessions"})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


async def _lines() -> Any:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m lbnode.lab.probe", description="A measuring client.")
    kind: Callable[[str], Endpoint] = _endpoint
    parser.add_argument("--udp", type=kind, metavar="ADDR:PORT")
    parser.add_argument("--http", type=kind, metavar="ADDR:PORT")
    parser.add_argument("--session", type=kind, metavar="ADDR:PORT")
    parser.add_argument("--sessions", type=int, default=1, metavar="N")
    options = parser.parse_args()
    asyncio.run(serve(options.udp, options.http, options.session, options.sessions))


if __name__ == "__main__":
    main()
