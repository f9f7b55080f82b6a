"""A real server of the tests: `python echo_server.py NAME PORT`.

TCP: each line is answered with `NAME LINE`; the line `GET n` is answered with n bytes, `PUT n` takes
n bytes before it is answered.
UDP: each datagram is answered with `NAME DATAGRAM`. Prints `ready` when both sockets listen.
"""

from __future__ import annotations

import asyncio
import socket
import sys

IP_PKTINFO = 8  # <linux/in.h>


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            if line.startswith(b"GET "):
                count = int(line[4:])
                while count > 0:
                    chunk = min(count, 65536)
                    writer.write(b"x" * chunk)
                    count -= chunk
                    await writer.drain()
            elif line.startswith(b"PUT "):
                await reader.readexactly(int(line[4:]))
                writer.write(NAME.encode() + b" " + line)
                await writer.drain()
            else:
                writer.write(NAME.encode() + b" " + line)
                await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def answer_datagrams(sock: socket.socket) -> None:
    """From the address that was asked (ip(7), ipv6(7)): with direct routing that is the VIP on `lo`."""
    data, ancillary, _, client = sock.recvmsg(65536, 64)
    control = [
        (level, kind, info if level == socket.IPPROTO_IPV6 else bytes(4) + info[4:8] + bytes(4))
        for level, kind, info in ancillary
    ]
    if sock.family == socket.AF_INET6:  # not back through the interface that it came in by
        control = [(level, kind, info[:16] + bytes(4)) for level, kind, info in control]
    sock.sendmsg([NAME.encode() + b" " + data], control, 0, client)


def listen_for_datagrams(family: socket.AddressFamily, port: int) -> socket.socket:
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        datagrams.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    datagrams.bind(("", port))
    return datagrams


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, ["0.0.0.0", "::"], port, backlog=512)
    for family in (socket.AF_INET, socket.AF_INET6):
        datagrams = listen_for_datagrams(family, port)
        asyncio.get_running_loop().add_reader(datagrams, answer_datagrams, datagrams)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    NAME = sys.argv[1]
    asyncio.run(main(int(sys.argv[2])))
