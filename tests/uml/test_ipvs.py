"""The IPVS data plane against the kernel's ip_vs: what the contract suite does not reach.

Each test has a network namespace of its own; virtual addresses, servers and clients are all on its `lo` (ip_vs handles
what the host itself sends, too).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from lbnode import model
from lbnode.dataplane.base import (
    DeleteServer,
    DeleteService,
    Op,
    PutServer,
    PutService,
    SetSyncDaemons,
    SetSysctls,
    SetTimeouts,
)
from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import (
    Command,
    DaemonState,
    Destination,
    Flags,
    Method,
    Service,
    TunnelFlags,
    TunnelType,
)
from lbnode.dataplane.ipvs.netlink import GenericNetlink
from lbnode.dataplane.ipvs.plane import IpvsPlane
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.model import (
    Connection,
    ForwardingMethod,
    L4Protocol,
    ProgrammedServer,
    ProgrammedService,
    ServerId,
    ServiceId,
    SyncDaemon,
    Timeouts,
    Tunnel,
    TunnelChecksum,
    flags_of,
)
from tests.listed import listed
from tests.uml.own_netns import own_netns

pytestmark = [pytest.mark.root, pytest.mark.ipvs]

WEB = ServiceId.of("tcp", "192.0.2.10", 80)
REAL = [ServerId.parse(f"198.51.100.{n}:8080") for n in (21, 22)]
PATIENCE_S = 10.0


@pytest.fixture
def netns() -> Iterator[None]:
    with own_netns():
        yield


@pytest.fixture
async def plane(netns: None, tmp_path: Path) -> AsyncIterator[IpvsPlane]:
    plane = IpvsPlane(tmp_path)
    await plane.open()
    yield plane
    await plane.close(unload=True)


@pytest.fixture
def raw(netns: None) -> Iterator[GenericNetlink]:
    """Somebody else who programs ip_vs."""
    with contextlib.closing(GenericNetlink()) as sock:
        sock.connect()
        yield sock


def server(real: ServerId, weight: int = 1, forward: ForwardingMethod = ForwardingMethod.MASQUERADE) -> PutServer:
    return PutServer(WEB, ProgrammedServer(real, weight, forward))


async def apply(plane: IpvsPlane, *ops: Op) -> None:
    for op in ops:
        await plane.apply(op)


# --- traffic -------------------------------------------------------------------------------------------------


@pytest.fixture
def listeners(netns: None) -> Iterator[list[socket.socket]]:
    lines = [f"addr add {address}/32 dev lo" for address in (WEB.address, *(real.address for real in REAL))]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_server((str(real.address), real.port), backlog=16)) for real in REAL]


def talk(listeners: list[socket.socket], stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket, int]:
    """A new connection through the service: the client's end, the server's end, and which server took it."""
    client = stack.enter_context(socket.create_connection((str(WEB.address), WEB.port), timeout=5))
    for number, listener in enumerate(listeners):
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            accepted = stack.enter_context(listener.accept()[0])
            return client, accepted, number
    raise AssertionError("no server has the connection")


def echo(client: socket.socket, accepted: socket.socket) -> None:
    client.sendall(b"ping")
    accepted.settimeout(5)
    assert accepted.recv(10) == b"ping"
    accepted.sendall(b"pong")
    assert client.recv(10) == b"pong"


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_traffic_connections_and_counters(plane: IpvsPlane, listeners: list[socket.socket]) -> None:
    await apply(plane, PutService(ProgrammedService(WEB, "rr")), server(REAL[0]), server(REAL[1]))
    with contextlib.ExitStack() as stack:
        ends = [talk(listeners, stack) for _ in range(4)]
        assert sorted(number for _, _, number in ends) == [0, 0, 1, 1]
        for client, accepted, _ in ends:
            echo(client, accepted)

        found = await listed(plane)
        expected = {(client.getsockname()[1], (REAL[number].address, REAL[number].port)) for client, _, number in ends}
        assert {(item.client[1], item.server) for item in found} == expected
        assert all(_is_live(item) for item in found)

        async def connections() -> int:
            return (await plane.counters())[WEB].total.connections

        deadline = time.monotonic() + PATIENCE_S  # ip_vs brings its counters up to date every two seconds
        while await connections() < 4 and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        counters = (await plane.counters())[WEB]
        assert (counters.total.connections, counters.total.active) == (4, 4)
        assert [counters.servers[real].connections for real in REAL] == [2, 2]
        assert counters.total.packets_in >= 8 and counters.total.bytes_out >= 4 * len("pong")
        assert (await plane.status()).connections == 4
        await plane.zero(WEB)
        counters = (await plane.counters())[WEB]
        assert (counters.total.connections, counters.total.active) == (0, 4)


def _is_live(item: Connection) -> bool:
    ends = (item.protocol, item.virtual, item.state)
    return ends == (L4Protocol.TCP, (WEB.address, 80), "ESTABLISHED") and 800 < item.expires_s <= 900


async def test_a_drained_server_keeps_its_connections(plane: IpvsPlane, listeners: list[socket.socket]) -> None:
    await apply(plane, PutService(ProgrammedService(WEB, "wlc")), server(REAL[0]))
    with contextlib.ExitStack() as stack:
        held = talk(listeners, stack)
        assert held[2] == 0
        await apply(plane, server(REAL[1]), server(REAL[0], weight=0))
        assert [talk(listeners, stack)[2] for _ in range(3)] == [1, 1, 1]
        echo(*held[:2])
        await apply(plane, PutService(ProgrammedService(WEB, "rr")))
        echo(*held[:2])


async def test_a_persistent_client_has_a_template(plane: IpvsPlane, listeners: list[socket.socket]) -> None:
    service = ProgrammedService(WEB, "rr", persistent_s=60, persistent_netmask=24)
    await apply(plane, PutService(service), server(REAL[0]), server(REAL[1]))
    with contextlib.ExitStack() as stack:
        (taken,) = {talk(listeners, stack)[2] for _ in range(3)}
        found = await listed(plane)
        (template,) = [item for item in found if item.client[1] == 0]
        assert (template.client[0].packed[3], template.virtual) == (0, (WEB.address, 80)), "the network of the client"
        assert template.server == (REAL[taken].address, 8080)
        assert len(found) == 4
        counters = (await plane.counters())[WEB]
        assert (counters.total.persistent, counters.servers[REAL[taken]].persistent) == (1, 1)


# --- every kind of object ------------------------------------------------------------------------------------


def put(service_id: ServiceId, real: str, forward: ForwardingMethod, **settings: object) -> list[Op]:
    wanted = ProgrammedService(service_id, "rr", **settings)  # type: ignore[arg-type]
    return [PutService(wanted), PutServer(service_id, ProgrammedServer(ServerId.parse(real), 3, forward, 100, 10))]


MASQUERADE, DIRECT, TUNNEL = ForwardingMethod.MASQUERADE, ForwardingMethod.DIRECT, ForwardingMethod.TUNNEL
SIX = ServiceId.of("udp", "2001:db8::10", 53)
SIP = ServiceId.of("udp", "192.0.2.10", 5060)
MARK, MARK6 = ServiceId(None, None, 0, fwmark=4000000000), ServiceId(None, None, 0, fwmark=7, inet6=True)
KINDS = {
    "sctp": put(ServiceId.of("sctp", "192.0.2.10", 80), "198.51.100.21:81", MASQUERADE),
    "ipv6": put(SIX, "[2001:db8::21]:53", DIRECT, persistent_s=60, persistent_netmask=64),
    "persistent": put(WEB, "198.51.100.21:80", MASQUERADE, persistent_s=2678400, persistent_netmask=24),
    "mask-with-holes": put(
        WEB, "198.51.100.21:80", MASQUERADE, persistent_s=60, persistent_netmask=ip_address("255.0.255.0")
    ),
    "sip": put(SIP, "198.51.100.21:5060", MASQUERADE, persistent_s=60, persistence_engine="sip"),
    "all-ports": put(ServiceId.of("tcp", "192.0.2.10", 0), "198.51.100.21:0", DIRECT, persistent_s=1),
    "fwmark": put(MARK, "198.51.100.21:80", MASQUERADE, persistent_s=300),
    "fwmark-ipv6": put(MARK6, "[2001:db8::21]:80", DIRECT),
    "one-packet": put(ServiceId.of("udp", "192.0.2.10", 53), "198.51.100.21:53", MASQUERADE, one_packet=True),
    "ipv6-server-of-ipv4": put(WEB, "[2001:db8::21]:80", TUNNEL),
    "ipv4-server-of-ipv6": put(SIX, "198.51.100.21:53", TUNNEL),
}


@pytest.mark.parametrize("ops", KINDS.values(), ids=KINDS)
async def test_each_kind_reads_back_and_goes(plane: IpvsPlane, ops: list[Op]) -> None:
    put_service, put_server = ops
    assert isinstance(put_service, PutService) and isinstance(put_server, PutServer)
    service_id, real = put_service.service.id, put_server.server
    await apply(plane, *ops, *ops)
    assert (await plane.dump()).services == {service_id: replace(put_service.service, servers={real.id: real})}
    await plane.zero(service_id)
    await apply(plane, DeleteServer(service_id, real.id))
    assert (await plane.dump()).services == {service_id: put_service.service}
    await apply(plane, DeleteService(service_id))
    assert (await plane.dump()).services == {}


async def test_every_flag_of_every_scheduler(plane: IpvsPlane) -> None:
    for scheduler in sorted(plane.capabilities().schedulers):
        for flag in flags_of(scheduler):
            wanted = ProgrammedService(WEB, scheduler, frozenset({flag}))
            await apply(plane, PutService(ProgrammedService(WEB, scheduler)), PutService(wanted))
            assert (await plane.dump()).services == {WEB: wanted}


@pytest.mark.parametrize(
    "tunnel",
    [Tunnel(model.TunnelType.GUE, 6080, TunnelChecksum.FULL), Tunnel(model.TunnelType.GRE), Tunnel()],
    ids=["gue", "gre", "ipip"],
)
async def test_tunnels(plane: IpvsPlane, tunnel: Tunnel) -> None:
    real = ProgrammedServer(ServerId.parse("198.51.100.21:80"), 1, TUNNEL, tunnel=tunnel)
    before = replace(real, tunnel=Tunnel(model.TunnelType.GRE, 0, TunnelChecksum.FULL))
    await apply(plane, PutService(ProgrammedService(WEB, "rr")), PutServer(WEB, before), PutServer(WEB, real))
    assert (await plane.dump()).services[WEB].servers == {real.id: real}


async def test_what_others_programmed_is_adopted_and_kept(raw: GenericNetlink, tmp_path: Path) -> None:
    service = Service(ServiceId.of("udp", "192.0.2.10", 5060), "rr", Flags.PERSISTENT, 60, 0xFFFFFFFF, "sip")
    gue = Destination(REAL[0], Method.TUNNEL, 5, 0, 0, TunnelType.GUE, 6080, TunnelFlags.REMOTE_CHECKSUM)
    raw.do(Command.NEW_SERVICE, codec.encode_service(service))
    raw.do(Command.NEW_DEST, codec.encode_destination(service.id, gue))
    plane = IpvsPlane(tmp_path)
    await plane.open()
    assert (await plane.status()).adopted and not plane.owns(service.id)
    found = (await plane.dump()).services[service.id]
    tunnel = Tunnel(model.TunnelType.GUE, 6080, TunnelChecksum.REMOTE)
    assert (found.persistent_s, found.persistence_engine) == (60, "sip")
    assert found.servers[REAL[0]].forward is TUNNEL
    assert found.servers[REAL[0]].tunnel == tunnel
    await apply(plane, *KINDS["fwmark"], DeleteService(MARK), SetTimeouts(Timeouts(60, 30, 20)))
    await plane.close(unload=True)
    kept = codec.decode_service(raw.get(Command.GET_SERVICE, codec.encode_key(service.id)))
    assert replace(kept, flags=kept.flags & ~Flags.HASHED) == service
    (body,) = [body for bodies in raw.dump(Command.GET_DEST, codec.encode_key(service.id)) for body in bodies]
    assert codec.decode_destination(body, 4) == gue


async def test_what_vanished_is_put_again(plane: IpvsPlane, raw: GenericNetlink) -> None:
    ops = (PutService(ProgrammedService(WEB, "rr")), server(REAL[0], 1))
    await apply(plane, *ops)
    raw.do(Command.DEL_DEST, codec.encode_destination_key(WEB, REAL[0]))
    await plane.apply(server(REAL[0], 5))
    assert (await plane.dump()).services[WEB].servers[REAL[0]].weight == 5
    raw.do(Command.DEL_SERVICE, codec.encode_key(WEB))
    with pytest.raises(
        DataPlaneError, match=r"there is no service tcp:192\.0\.2\.10:80; put the service first"
    ) as told:
        await plane.apply(server(REAL[0], 6))
    assert told.value.errno == errno.ESRCH
    await apply(plane, *ops)
    assert (await plane.dump()).services[WEB].servers[REAL[0]].weight == 1


# --- refusals ------------------------------------------------------------------------------------------------


async def test_the_kernels_refusals(plane: IpvsPlane) -> None:
    with pytest.raises(DataPlaneError, match=r"tcp:192\.0\.2\.10:80: this kernel has no scheduler nosuch"):
        await plane.apply(PutService(ProgrammedService(WEB, "nosuch")))
    with pytest.raises(DataPlaneError, match="or no persistence engine nosuch: load the modules"):
        await plane.apply(PutService(ProgrammedService(WEB, "rr", persistence_engine="nosuch")))
    await apply(plane, PutService(ProgrammedService(WEB, "rr")))
    bad = replace(server(REAL[0]).server, upper_threshold=5, lower_threshold=6)
    with pytest.raises(Unsupported, match=r"tcp:192\.0\.2\.10:80: server 198\.51\.100\.21:8080: .*lower threshold 6"):
        await plane.apply(PutServer(WEB, bad))
    with pytest.raises(Unsupported, match="it must be a unicast address"):
        await plane.apply(server(ServerId(ip_address("224.0.0.1"), 80)))
    assert (await plane.dump()).services == {WEB: ProgrammedService(WEB, "rr")}


async def test_sync_daemons_run_as_wanted(plane: IpvsPlane, raw: GenericNetlink) -> None:
    master = SyncDaemon("eth9", 7, 1000, IPv4Address("224.0.0.90"), 9000, 3)
    with pytest.raises(DataPlaneError, match="there is no interface eth9"):
        await plane.apply(SetSyncDaemons({"master": master}))
    subprocess.run(["ip", "link", "add", "eth9", "type", "dummy"], check=True)
    subprocess.run(["ip", "addr", "add", "192.0.2.1/24", "dev", "eth9"], check=True)
    subprocess.run(["ip", "link", "set", "eth9", "up"], check=True)

    async def running() -> dict[str, SyncDaemon]:
        return dict((await plane.status()).sync_daemons)

    backup = SyncDaemon("eth9", 8)
    for wanted in ({"master": master, "backup": backup}, {"backup": backup}, {"backup": SyncDaemon("eth9", 9)}, {}):
        await apply(plane, SetSyncDaemons(wanted), SetSyncDaemons(wanted))
        found = await running()
        assert {state: replace(item, maxlen=wanted[state].maxlen) for state, item in found.items()} == wanted
        assert "master" not in found or found["master"].maxlen == 1000
    foreign = codec.Daemon(DaemonState.MASTER, "eth9", 5)
    raw.do(Command.NEW_DAEMON, codec.encode_daemon(foreign))
    await apply(plane, SetSyncDaemons({"backup": backup}), SetSyncDaemons({}))
    assert {state: item.syncid for state, item in (await running()).items()} == {"master": 5}, "somebody else's stays"
    await apply(plane, SetSyncDaemons({"master": master}), SetSyncDaemons({}))
    assert await running() == {}, "taken over, then ours to stop"


async def test_sysctls_are_those_of_the_namespace(plane: IpvsPlane) -> None:
    def here(name: str) -> str:
        return Path("/proc/sys/net/ipv4/vs", name).read_text().strip()

    await plane.apply(SetSysctls({"net.ipv4.vs.sync_threshold": "0 0", "net.ipv4.vs.sloppy_tcp": "1"}))
    assert (here("sync_threshold").split(), here("sloppy_tcp")) == (["0", "0"], "1")
    with own_netns():
        assert here("sloppy_tcp") == "0"
    with pytest.raises(Unsupported, match=r"net\.ipv4\.vs\.no_such: this kernel's ip_vs has no such setting"):
        await plane.apply(SetSysctls({"net.ipv4.vs.no_such": "1"}))
    with pytest.raises(DataPlaneError, match=r"net\.ipv4\.vs\.sync_threshold = 9 3: "):
        await plane.apply(SetSysctls({"net.ipv4.vs.sync_threshold": "9 3"}))


# --- the socket ----------------------------------------------------------------------------------------------


async def test_many_readers_and_writers_at_once(plane: IpvsPlane) -> None:
    """No EBUSY, no answer to somebody else's question, and readers that give up leave nothing behind."""
    ids = [ServiceId.of("tcp", "192.0.2.10", 1000 + n) for n in range(150)]
    await apply(plane, *(PutService(ProgrammedService(service_id, "rr")) for service_id in ids))

    async def write() -> None:
        for service_id in ids:
            await apply(plane, PutServer(service_id, server(REAL[0]).server))

    readers = [asyncio.create_task(plane.dump()) for _ in range(6)]
    writer = asyncio.create_task(write())
    await asyncio.sleep(0)
    readers[0].cancel()
    results = await asyncio.gather(*readers, return_exceptions=True)
    await writer
    assert isinstance(results[0], asyncio.CancelledError)
    assert [set(result.services) for result in results[1:]] == [set(ids)] * 5  # type: ignore[union-attr]
    assert all(len(service.servers) == 1 for service in (await plane.dump()).services.values())
    assert (await plane.info()).version >= (1, 2, 1)


def test_without_privileges_the_kernel_says_so(netns: None) -> None:
    code = (
        "import asyncio; from pathlib import Path; from lbnode.dataplane.ipvs.plane import IpvsPlane\n"
        "try: asyncio.run(IpvsPlane(Path('/nowhere')).open())\n"
        "except Exception as error: print(error)"
    )
    command = ["setpriv", "--bounding-set=-net_admin", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "reading ip_vs: not permitted: lbnoded needs CAP_NET_ADMIN (run it as root)\n"
