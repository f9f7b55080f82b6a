"""A real server of the lab: nginx as HTTP server, a UDP echo (RFC 862) and a line echo over TCP.

    python3 -m lbnode.lab.realserver --gateway 198.51.100.1 --http 80 --udp-echo 7 --tcp-echo 2222

`/` names the server; `/big` is a file whose every line says its own position, for long downloads; the line echo
stands for an interactive session (SSH-like: idle most of the time). The default route leads to the gateways' floating
address, so that answers to masqueraded connections pass the gateway. Runs alike in Docker and in a namespace.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import asyncio_dgram

BIG_LINES = 512 * 1024
BIG_LINE = "%063d\n"  # 64 bytes, so 32 MiB

_NGINX = """
daemon off;
user www-data;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  default_type text/plain;
  keepalive_timeout 65s;
  keepalive_requests 100000;
  sendfile on;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen {port} default_server backlog=4096;
    root {directory}/pages;
    add_header X-Real-Server {name} always;
  }}
}}
"""


def prepare_nginx(directory: Path, port: int, name: str) -> Path:
    """Write pages and configuration; returns the configuration's path."""
    directory.chmod(0o755)  # the workers run as www-data
    pages = directory / "pages"
    pages.mkdir()
    (pages / "index.html").write_text(f"{name}\n")
    (pages / "big").write_text("".join(BIG_LINE % number for number in range(BIG_LINES)))
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=directory, port=port, name=name))
    return configuration


async def udp_echo(port: int) -> None:
    """RFC 862: every datagram goes back as it came."""
    stream = await asyncio_dgram.bind(("0.0.0.0", port))  # noqa: S104 - a server answers on all its addresses
    while True:
        data, sender = await stream.recv()
        await stream.send(data, sender)


async def line_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    writer.close()


async def watch_nginx(process: asyncio.subprocess.Process) -> None:
    raise SystemExit(f"nginx ended with {await process.wait()}; its message stands above")


async def serve(http: int | None, udp: int | None, tcp: int | None, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    nginx = None
    tasks: list[asyncio.Task[None]] = []
    if http is not None:
        configuration = prepare_nginx(directory, http, socket.gethostname())
        nginx = await asyncio.create_subprocess_exec("nginx", "-c", str(configuration), "-e", "stderr")
        tasks.append(asyncio.create_task(watch_nginx(nginx)))
    if udp is not None:
        tasks.append(asyncio.create_task(udp_echo(udp)))
    server = await asyncio.start_server(line_echo, "0.0.0.0", tcp) if tcp is not None else None  # noqa: S104
    tasks.append(stop := asyncio.create_task(_wait(stopping)))
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    if server is not None:
        server.close()
    if nginx is not None and nginx.returncode is None:
        nginx.send_signal(signal.SIGQUIT)  # nginx(8): graceful shutdown
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await nginx.wait()
        if nginx.returncode is None:
            nginx.kill()
    for task in done - {stop}:
        task.result()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m lbnode.lab.realserver", description="A real server of the lab.")
    parser.add_argument("--gateway", help="next hop of the default route")
    parser.add_argument("--http", type=int, metavar="PORT")
    parser.add_argument("--udp-echo", type=int, metavar="PORT")
    parser.add_argument("--tcp-echo", type=int, metavar="PORT")
    options = parser.parse_args()
    if options.gateway:
        subprocess.run(["ip", "route", "replace", "default", "via", options.gateway], check=True)
    with tempfile.TemporaryDirectory(prefix="realserver-") as directory:
        asyncio.run(serve(options.http, options.udp_echo, options.tcp_echo, Path(directory)))


if __name__ == "__main__":
    main()
