"""HTTP through one gateway in network namespaces: routed only, HAProxy, nftables DNAT, lbnode at tcx and at XDP.

Rounds are interleaved, so that a busy machine slows every variant alike; the best round of each counts. CPU is that of
the whole machine (client, gateway, servers), per request: on one machine they share the cores, so requests per second
alone would mostly measure the client.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from lbnode.dataplane.base import PutServer, PutService
from lbnode.dataplane.xdp.plane import XdpPlane
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId
from tests.netns.xdp_lab import VIP, Lab, server_address

PORT = 80
SERVERS = 2
ROUNDS = 3
SECONDS = 3
CONNECTIONS = 32

NGINX = """
worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000;
  client_body_temp_path {dir}/{name}.body; proxy_temp_path {dir}/{name}.proxy; fastcgi_temp_path {dir}/{name}.fcgi;
  uwsgi_temp_path {dir}/{name}.uwsgi; scgi_temp_path {dir}/{name}.scgi;
  server {{ listen 80 backlog=4096; location / {{ return 200 "ok"; }} }} }}
"""
HAPROXY = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen web
  bind {vip}:80
  balance roundrobin
{servers}
"""
NFT = """
table ip bench {{
  chain pre {{ type nat hook prerouting priority dstnat;
    ip daddr {vip} tcp dport 80 dnat to numgen inc mod {count} map {{ {servers} }}
  }}
}}
"""

Variant = Callable[[Lab, Path], AbstractAsyncContextManager[str]]


@dataclass
class Result:
    requests: list[float] = field(default_factory=list)  # per second
    cpu_us: list[float] = field(default_factory=list)  # per request


@contextlib.asynccontextmanager
async def routed(lab: Lab, work: Path) -> AsyncIterator[str]:
    """No balancing at all: the client talks to the first server through the gateway's routing."""
    del lab, work
    yield server_address(1)


@contextlib.asynccontextmanager
async def haproxy(lab: Lab, work: Path) -> AsyncIterator[str]:
    servers = "\n".join(f"  server s{n} {server_address(n)}:80" for n in range(1, SERVERS + 1))
    config = work / "haproxy.cfg"
    config.write_text(HAPROXY.format(vip=VIP, servers=servers))
    process = lab.net.popen("gw", "haproxy", "-db", "-q", "-f", str(config))
    try:
        yield VIP
    finally:
        process.terminate()
        process.wait()


@contextlib.asynccontextmanager
async def nftables(lab: Lab, work: Path) -> AsyncIterator[str]:
    servers = ", ".join(f"{n - 1} : {server_address(n)}" for n in range(1, SERVERS + 1))
    rules = work / "rules.nft"
    rules.write_text(NFT.format(vip=VIP, count=SERVERS, servers=servers))
    lab.net.run("gw", "nft", "-f", str(rules))
    try:
        yield VIP
    finally:
        lab.net.run("gw", "nft", "delete", "table", "ip", "bench")


@contextlib.asynccontextmanager
async def lbnode(lab: Lab, work: Path) -> AsyncIterator[str]:
    """Our plane, masquerading, at tcx or XDP as the lab says."""
    service = ServiceId.of("tcp", VIP, PORT)
    async with lab.plane(work / "run") as plane:
        await program(plane, service)
        yield VIP


async def program(plane: XdpPlane, service: ServiceId) -> None:
    await plane.apply(PutService(ProgrammedService(service, "rr")))
    for number in range(1, SERVERS + 1):
        server = ServerId.parse(f"{server_address(number)}:{PORT}")
        await plane.apply(PutServer(service, ProgrammedServer(server, 1, ForwardingMethod.MASQUERADE)))


def busy_seconds() -> float:
    """CPU seconds that the machine has spent on anything but idling and waiting (proc(5), /proc/stat, 1/100 s)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / 100


def wrk(lab: Lab, address: str, *, keep_alive: bool) -> tuple[float, float]:
    """(requests per second, CPU microseconds per request)."""
    close = () if keep_alive else ("-H", "Connection: close")
    command = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", *close, f"http://{address}:{PORT}/")
    before = busy_seconds()
    output = lab.net.run("client", *command)
    spent = busy_seconds() - before
    total = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])  # type: ignore[index]
    return rate, spent * 1e6 / max(total, 1)


def start_nginx(lab: Lab, work: Path) -> None:
    """A web server on each real server, and a route to them for the variant without a balancer."""
    lab.net.run("client", "ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
    for number in range(1, SERVERS + 1):
        config = work / f"rs{number}.conf"
        config.write_text(NGINX.format(dir=work, name=f"rs{number}"))
        lab.net.popen(f"rs{number}", "nginx", "-c", str(config), "-e", "/dev/null")
    for number in range(1, SERVERS + 1):
        url = f"http://{server_address(number)}:{PORT}/"
        lab.net.run("client", "curl", "-sSf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", url)


def table(results: dict[str, dict[str, Result]]) -> str:
    base = results["HAProxy"]
    lines = [
        f"{'':<16}{'new connection per request':^36}{'kept-alive connections':^36}",
        f"{'':<16}" + f"{'req/s':>10}{'x HAProxy':>12}{'CPU/req':>12}  " * 2,
    ]
    for name, kinds in results.items():
        row = f"{name:<16}"
        for kind, result in kinds.items():
            ratio = max(result.requests) / max(base[kind].requests)
            cpu = min(result.cpu_us) / min(base[kind].cpu_us)
            row += f"{max(result.requests):>10.0f}{ratio:>11.2f}x{cpu:>11.2f}x  "
        lines.append(row.rstrip())
    return (
        "\n".join(lines)
        + "\n\nCPU/req: CPU time of the whole machine per request, relative to HAProxy; lower is better."
    )


async def main() -> None:
    plain: dict[str, Variant] = {"routed only": routed, "HAProxy": haproxy, "nftables DNAT": nftables}
    results: dict[str, dict[str, Result]] = {}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        with Lab(servers=SERVERS) as tcx_lab, Lab(servers=SERVERS, xdp=True) as xdp_lab:
            for number, lab in enumerate((tcx_lab, xdp_lab)):
                (work / str(number)).mkdir()
                start_nginx(lab, work / str(number))
            variants = [(name, tcx_lab, variant) for name, variant in plain.items()]
            variants += [("lbnode tcx", tcx_lab, lbnode), ("lbnode XDP", xdp_lab, lbnode)]
            for _ in range(ROUNDS):
                for name, lab, variant in variants:
                    kinds = results.setdefault(name, {"new": Result(), "kept": Result()})
                    async with variant(lab, work) as address:
                        lab.net.run("client", "curl", "-sSf", "--retry", "20", "--retry-connrefused",
                                    "--retry-delay", "1", f"http://{address}:{PORT}/")  # fmt: skip
                        for kind, result in kinds.items():
                            rate, cpu = wrk(lab, address, keep_alive=kind == "kept")
                            result.requests.append(rate)
                            result.cpu_us.append(cpu)
    print(table(results))
