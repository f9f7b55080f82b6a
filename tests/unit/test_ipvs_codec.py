"""ip_vs's netlink messages and `/proc/net/ip_vs_conn`, without a kernel."""

from __future__ import annotations

import contextlib
import errno
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.base import DeleteServer, DeleteService, PutServer, PutService, SetDropRules, SetTimeouts
from lbnode.dataplane.ipvs import codec, genl
from lbnode.dataplane.ipvs.codec import Daemon, DaemonState, Destination, Flags, Method, Service, Stats
from lbnode.dataplane.ipvs.connections import parse_connection, parse_lines
from lbnode.dataplane.ipvs.translate import (
    available_schedulers,
    check,
    explain,
    explain_daemon,
    to_counters,
    to_destination,
    to_programmed,
    to_service,
)
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.model import (
    PERSISTENCE_ENGINES,
    SCHEDULERS,
    Access,
    Connection,
    ConnectionRate,
    DropRules,
    ForwardingMethod,
    L4Protocol,
    Netmask,
    OwnTimeouts,
    ProgrammedServer,
    ProgrammedService,
    Rates,
    ServerId,
    ServiceId,
    Timeouts,
    Tunnel,
    TunnelChecksum,
    TunnelType,
    flags_of,
)

ports = st.integers(0, 65535)
u32 = st.integers(0, 2**32 - 1)
u31 = st.integers(0, 2**31 - 1)
addresses = st.one_of(st.builds(IPv4Address, u32), st.builds(IPv6Address, st.integers(0, 2**128 - 1)))
names = st.sampled_from(SCHEDULERS)


@st.composite
def service_ids(draw: st.DrawFn) -> ServiceId:
    if draw(st.booleans()):
        return ServiceId(None, None, 0, fwmark=draw(st.integers(1, 2**32 - 1)), inet6=draw(st.booleans()))
    address = draw(addresses)
    return ServiceId(draw(st.sampled_from(L4Protocol)), address, draw(ports), inet6=address.version == 6)


server_ids = st.builds(ServerId, addresses, ports)
services = st.builds(
    Service, service_ids(), names, st.builds(Flags, st.integers(0, 63)), u31, u32, st.sampled_from(("", "sip"))
)


@st.composite
def destinations(draw: st.DrawFn) -> Destination:
    item = draw(st.builds(Destination, server_ids, st.sampled_from(Method), u31, u31, u31))
    if item.method is not Method.TUNNEL:
        return item
    kind, flags = draw(st.sampled_from(codec.TunnelType)), draw(st.sampled_from(codec.TunnelFlags))
    return replace(item, tunnel_type=kind, tunnel_port=draw(ports), tunnel_flags=flags)


@given(services)
def test_a_service_reads_back(service: Service) -> None:
    assert codec.decode_service(codec.encode_service(service)) == service


@given(service_ids(), destinations())
def test_a_destination_reads_back(service_id: ServiceId, destination: Destination) -> None:
    body = codec.encode_destination(service_id, destination)
    assert codec.decode_destination(body, service_id.family) == destination
    assert body.startswith(codec.encode_key(service_id))


@given(st.builds(Timeouts, u32, u32, u32))
def test_timeouts_read_back(timeouts: Timeouts) -> None:
    assert codec.decode_timeouts(codec.encode_timeouts(timeouts)) == timeouts


@given(
    st.builds(
        Daemon,
        st.sampled_from(DaemonState),
        st.sampled_from(("eth0", "bond0.100")),
        st.integers(0, 255),
        ports,
        st.one_of(st.none(), addresses),
        ports,
        st.integers(0, 255),
    )
)
def test_a_daemon_reads_back(daemon: Daemon) -> None:
    assert codec.decode_daemon(codec.encode_daemon(daemon)) == daemon


def test_a_key_byte_by_byte() -> None:
    """Ports in network order, numbers in host order, 16 bytes of address: linux/ip_vs.h."""
    expected = (
        struct.pack("=HH", 48, 1)  # IPVS_CMD_ATTR_SERVICE
        + struct.pack("=HHH2x", 6, 1, 2)  # IPVS_SVC_ATTR_AF: AF_INET
        + struct.pack("=HHH2x", 6, 2, 17)  # IPVS_SVC_ATTR_PROTOCOL: UDP
        + struct.pack("=HH", 20, 3) + bytes([192, 0, 2, 10]) + bytes(12)  # IPVS_SVC_ATTR_ADDR
        + struct.pack("=HH", 6, 4) + b"\x14\xe9\0\0"  # IPVS_SVC_ATTR_PORT: 5353
    )  # fmt: skip
    assert codec.encode_key(ServiceId.of("udp", "192.0.2.10", 5353)) == expected


def test_a_netmask_is_a_mask_or_a_prefix_length() -> None:
    def netmask(service_id: ServiceId, value: Netmask | None) -> bytes:
        wanted = ProgrammedService(service_id, "rr", persistent_s=60, persistent_netmask=value)
        return genl.attributes(genl.attributes(codec.encode_service(to_service(wanted)))[1])[9]

    four, six = ServiceId.of("tcp", "192.0.2.10", 80), ServiceId.of("tcp", "2001:db8::10", 80)
    assert netmask(four, 24) == b"\xff\xff\xff\0"
    assert netmask(four, ip_address("255.0.255.0")) == b"\xff\0\xff\0"
    assert netmask(four, None) == b"\xff\xff\xff\xff"
    assert netmask(six, 64) == struct.pack("=I", 64)
    assert netmask(six, None) == struct.pack("=I", 128)


def test_stats_of_both_widths() -> None:
    """STATS64 wins; a counter above 2**32 comes whole."""
    service = codec.encode_service(Service(ServiceId.of("tcp", "192.0.2.10", 80), "rr", Flags(0), 0, 0xFFFFFFFF))
    narrow = b"".join(genl.attribute(kind, struct.pack("=I", kind)) for kind in range(1, 11))
    wide = b"".join(genl.attribute(kind, struct.pack("=Q", kind << 40)) for kind in (*range(1, 11), 11))
    inner = genl.attributes(service)[1] + genl.attribute(10, narrow)
    assert codec.decode_service(genl.attribute(1, inner)).stats == Stats(*range(1, 11))
    inner += genl.attribute(12, wide)
    assert codec.decode_service(genl.attribute(1, inner)).stats == Stats(*(kind << 40 for kind in range(1, 11)))


@given(st.binary(max_size=200))
def test_garbage_is_an_error_of_the_data_plane(data: bytes) -> None:
    list(genl.replies(data))
    for body in (data, genl.attribute(1, data), genl.attribute(2, data), genl.attribute(3, data)):
        for decode in (codec.decode_service, lambda body: codec.decode_destination(body, 4), codec.decode_daemon):
            with contextlib.suppress(DataPlaneError):
                decode(body)


@given(st.lists(st.tuples(st.integers(1, 2**32 - 1), st.binary(max_size=50)), max_size=5), st.integers(0, 19))
def test_messages_of_one_read(messages: list[tuple[int, bytes]], cut: int) -> None:
    """Each comes out whole, and one that is cut off not at all."""
    parts = [genl.message(26, 4, 1, 0, sequence, body) for sequence, body in messages]
    data = b"".join(part + bytes(-len(part) % 4) for part in parts)
    assert [(reply.sequence, reply.body) for reply in genl.replies(data)] == messages
    assert len(list(genl.replies(data + parts[0][:cut] if parts else b""))) == len(messages)


def test_errors_and_the_end_of_a_dump() -> None:
    def reply(kind: int, code: int) -> genl.Reply:
        (found,) = genl.replies(struct.pack("=IHHIIi", 20, kind, 0, 7, 0, code))
        return found

    assert reply(genl.NLMSG_ERROR, 0) == genl.Reply(7, b"", errno=0)
    assert reply(genl.NLMSG_ERROR, -errno.ESRCH) == genl.Reply(7, b"", errno=errno.ESRCH)
    assert reply(genl.NLMSG_DONE, 0) == genl.Reply(7, b"", errno=0, done=True)


# --- the model's words ----------------------------------------------------------------------------------------


@st.composite
def programmed(draw: st.DrawFn) -> ProgrammedService:
    service_id, scheduler = draw(service_ids()), draw(names)
    flags = draw(st.frozensets(st.sampled_from(flags_of(scheduler))))
    persistent_s = draw(st.integers(0, 10**6))
    host = 128 if service_id.family == 6 else 32
    holes = st.nothing() if service_id.family == 6 else st.just(IPv4Address("255.0.255.0"))
    netmask = draw(st.one_of(st.none(), st.integers(1, host - 1), holes)) if persistent_s else None
    plain = st.sampled_from((ForwardingMethod.MASQUERADE, ForwardingMethod.DIRECT))
    tunnels = st.builds(Tunnel, st.sampled_from(TunnelType), ports, st.sampled_from(TunnelChecksum))
    kinds = st.one_of(
        st.builds(ProgrammedServer, server_ids, u31, plain, u31, u31),
        st.builds(ProgrammedServer, server_ids, u31, st.just(ForwardingMethod.TUNNEL), u31, u31, tunnels),
    )
    servers = draw(st.lists(kinds))
    return ProgrammedService(
        *(service_id, scheduler, flags, persistent_s, netmask, draw(st.booleans())),
        {server.id: server for server in servers},
        draw(st.sampled_from(("", *PERSISTENCE_ENGINES))),
    )


@given(programmed())
def test_the_model_survives_the_kernel(wanted: ProgrammedService) -> None:
    service = codec.decode_service(codec.encode_service(to_service(wanted)))
    family = wanted.id.family
    bodies = [codec.encode_destination(wanted.id, to_destination(server)) for server in wanted.servers.values()]
    assert to_programmed(service, [codec.decode_destination(body, family) for body in bodies]) == wanted


def test_gauges_of_a_service_are_its_servers() -> None:
    service = Service(
        ServiceId.of("tcp", "192.0.2.10", 80), "rr", Flags(0), 0, 0xFFFFFFFF, stats=Stats(*range(17, 7, -1))
    )
    items = [
        Destination(
            ServerId.parse(f"198.51.100.{n}:80"), Method.MASQUERADE, 1, active=n, inactive=10 * n, persistent=100 * n
        )
        for n in (1, 2)
    ]
    found = to_counters(service, items)
    assert (found.total.connections, found.total.bytes_out, found.total.active, found.total.inactive) == (17, 13, 3, 30)
    assert (found.servers[items[1].id].inactive, found.servers[items[1].id].persistent) == (20, 200)
    assert found.total.persistent == 300
    assert found.rates[None] == Rates(12, 11, 10, 9, 8) and found.rates[items[0].id] == Rates()


def test_schedulers_of_the_kernels_modules() -> None:
    dep = "kernel/net/netfilter/ipvs/ip_vs_rr.ko: kernel/net/netfilter/ipvs/ip_vs.ko\nkernel/x/ip_vs_wlc.ko.xz:\n"
    assert available_schedulers([dep]) == {"rr", "wlc"}
    assert available_schedulers([]) == set(SCHEDULERS)


WEB, REAL = ServiceId.of("tcp", "192.0.2.10", 80), ServerId.parse("198.51.100.21:80")


def put_server(real: ServerId = REAL, forward: ForwardingMethod = ForwardingMethod.MASQUERADE) -> PutServer:
    return PutServer(WEB, ProgrammedServer(real, 1, forward, upper_threshold=1, lower_threshold=2))


def test_what_can_never_work_is_said_before() -> None:
    six = ServerId.parse("[2001:db8::21]:80")
    check(put_server(six, ForwardingMethod.TUNNEL))
    with pytest.raises(Unsupported, match="IPv6 server of an IPv4 service; only tunnel"):
        check(put_server(six))
    with pytest.raises(Unsupported, match="the server's port must be 80"):
        check(put_server(ServerId.parse("198.51.100.21:81"), ForwardingMethod.DIRECT))
    with pytest.raises(Unsupported, match="has no flag mh-port; it has only: sh-fallback sh-port flag-3"):
        check(PutService(ProgrammedService(WEB, "sh", frozenset({"mh-port"}))))
    network = frozenset({ip_network("192.0.2.0/24")})
    for name, access in (
        ("allow", Access(allow=network)),
        ("deny", Access(deny=network)),
        ("new_connections", Access(rate=ConnectionRate(1, 1, 32))),
    ):
        with pytest.raises(Unsupported, match=f"tcp:192.*: {name}: ip_vs looks at no client"):
            check(PutService(ProgrammedService(WEB, "rr", access=access)))
    with pytest.raises(Unsupported, match=r"tcp:192.*: timeouts: ip_vs has one set for all services"):
        check(PutService(ProgrammedService(WEB, "rr", timeouts=OwnTimeouts(tcp_s=60))))
    with pytest.raises(Unsupported, match=r"tcp:192.*: mss: ip_vs looks at no TCP option"):
        check(PutService(ProgrammedService(WEB, "rr", mss=1360)))
    check(SetDropRules(DropRules()))
    with pytest.raises(Unsupported, match="drop: bad_checksums: ip_vs cannot"):
        check(SetDropRules(DropRules(bad_checksums=True)))


@pytest.mark.parametrize(
    ("op", "code", "message", "kind"),
    [
        (
            PutService(ProgrammedService(WEB, "twos")),
            errno.ENOENT,
            "no scheduler twos: load the module",
            DataPlaneError,
        ),
        (put_server(), errno.ESRCH, "there is no service tcp:192.0.2.10:80; put", DataPlaneError),
        (put_server(), errno.ERANGE, "upper threshold 1, lower threshold 2", Unsupported),
        (put_server(), errno.EPERM, "needs CAP_NET_ADMIN", DataPlaneError),
        (DeleteService(WEB), errno.EIO, "Input/output error", DataPlaneError),
    ],
)
def test_errors_name_the_object_and_what_to_do(
    op: PutService | PutServer | DeleteService, code: int, message: str, kind: type[DataPlaneError]
) -> None:
    error = explain(op, code)
    assert str(error).startswith("tcp:192.0.2.10:80") and message in str(error)
    assert type(error) is kind and error.errno == code


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENOENT, errno.ESRCH, errno.ERANGE, errno.ENODEV, errno.EPERM])
def test_every_operation_names_its_object(code: int) -> None:
    ops = (PutService(ProgrammedService(WEB, "rr")), put_server(), DeleteService(WEB), DeleteServer(WEB, REAL))
    for op in ops:
        assert str(explain(op, code)).startswith("tcp:192.0.2.10:80: ")
    assert str(explain(SetTimeouts(Timeouts(1, 2, 3)), code)).startswith("time-outs 1 2 3: ")
    known = {errno.EEXIST: 2, errno.ENOENT: 2, errno.ESRCH: 2, errno.ERANGE: 1, errno.ENODEV: 0, errno.EPERM: 4}
    assert sum("the kernel says" not in str(explain(op, code)) for op in ops) == known[code]


def test_a_daemon_without_its_interface() -> None:
    error = explain_daemon(Daemon(DaemonState.MASTER, "eth9", 3), errno.ENODEV)
    assert str(error) == (
        "sync daemon (master, interface eth9, id 3): there is no interface eth9; name one that is there and up"
    )


# --- connections -----------------------------------------------------------------------------------------------


def test_lines_of_the_kernel() -> None:
    """Formats of ip_vs_conn_seq_show: IPv4, IPv6, an IPv6 server of an IPv4 service, a template, a fwmark template."""
    wide = "2001:0db8:0000:0000:0000:0000:0000:00{:02x}"
    text = f"""Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP CB007105 A2C4 C000020A 0050 C6336415 1F90 ESTABLISHED     899
TCP {wide.format(5)} A2C4 {wide.format(16)} 0050 {wide.format(33)} 0050 SYN_RECV         59
UDP CB007105 A2C4 C000020A 0035 {wide.format(33)} 0035 UDP             299
TCP CB007100 0000 C000020A 0050 C6336415 0050 NONE            359 sip abcd
IP  CB007105 0000 00000001 0000 C6336415 0000 NONE             45
"""
    client, virtual, real = (ip_address(a) for a in ("203.0.113.5", "192.0.2.10", "198.51.100.21"))
    client6, virtual6, real6 = (ip_address(f"2001:db8::{n}") for n in (5, 10, 21))
    tcp, udp = L4Protocol.TCP, L4Protocol.UDP
    assert parse_lines(text) == [
        Connection(tcp, (client, 41668), (virtual, 80), (real, 8080), "ESTABLISHED", 899.0),
        Connection(tcp, (client6, 41668), (virtual6, 80), (real6, 80), "SYN_RECV", 59.0),
        Connection(udp, (client, 41668), (virtual, 53), (real6, 53), "UDP", 299.0),
        Connection(tcp, (ip_address("203.0.113.0"), 0), (virtual, 80), (real, 80), "NONE", 359.0, "sip", "abcd"),
        Connection(None, (client, 0), (ip_address("0.0.0.1"), 0), (real, 0), "NONE", 45.0),
    ]


@given(st.text(alphabet="TCPUD 0123456789ABCDEFx:.-\u0663", max_size=100))
def test_any_other_line_is_none(line: str) -> None:
    assert parse_connection(line) is None or line.split()[0] in ("TCP", "UDP", "IP")
