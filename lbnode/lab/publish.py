"""Compose's `ports:` for namespaces: listen on the host's loopback, relay into a container.

    python3 -m lbnode.lab.publish 127.0.0.1:8080=lbnode-lab.gw1=198.51.100.2:8080 ...

Each rule is LISTEN=NAMESPACE=TARGET. The namespace is looked up for every connection, so a container may be switched
off and on again. Prints `ready` once all ports listen, or what is wrong.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass

from lbnode.lab.netns import call_in_netns

_CHUNK = 65536
_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Rule:
    listen: tuple[str, int]
    namespace: str
    target: tuple[str, int]

    @classmethod
    def parse(cls, text: str) -> Rule:
        listen, namespace, target = text.split("=")
        return cls(_endpoint(listen), namespace, _endpoint(target))


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction until its end; the end itself is passed on, so that half-closed connections work."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _relay(rule: Rule, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    try:
        # A socket belongs for good to the namespace of the thread that made it.
        inside = await asyncio.to_thread(call_in_netns, rule.namespace, socket.socket)
        inside.setblocking(False)
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await loop.sock_connect(inside, rule.target)
        far_reader, far_writer = await asyncio.open_connection(sock=inside)
    except OSError as error:  # TimeoutError is one
        sys.stderr.write(f"publish: {rule.namespace} {rule.target[0]}:{rule.target[1]}: {error or 'no answer'}\n")
        writer.close()
        return
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, far_writer))
            group.create_task(_copy(far_reader, writer))
    except* OSError:
        pass  # one side reset the connection: the other one gets closed
    finally:
        for side in (writer, far_writer):
            side.close()
            with suppress(OSError):
                await side.wait_closed()


async def serve(rules: list[Rule]) -> None:
    servers = []
    for rule in rules:

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rule: Rule = rule) -> None:
            await _relay(rule, reader, writer)

        try:
            servers.append(await asyncio.start_server(accept, *rule.listen))
        except OSError as error:
            print(f"{rule.listen[0]}:{rule.listen[1]}: {error.strerror}", flush=True)
            sys.exit(1)
    print("ready", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve([Rule.parse(text) for text in sys.argv[1:]]))
