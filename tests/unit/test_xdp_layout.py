"""The Python mirror of bpf/lb.h: the same sizes, offsets and numbers as the compiled object's BTF and the header."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.xdp import counts, layout, listing, records, settings
from lbnode.dataplane.xdp.capture import codec
from lbnode.dataplane.xdp.explain import table
from lbnode.dataplane.xdp.plane import OBJECT
from lbnode.model import (
    Address,
    ForwardingMethod,
    L4Protocol,
    OwnTimeouts,
    ServiceId,
    Timeouts,
    Tunnel,
    TunnelChecksum,
    TunnelType,
)
from tests.listed import connection

HEADER = "".join(OBJECT.with_name(name).read_text() for name in ("lb.h", "lb_config.h", "lb_conns.h", "lb_capture.h"))

u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
# ::ffff:0:0/96 is how IPv4 is written in the maps; as an IPv6 address it never appears on a wire (RFC 4291 2.5.5.2)
v6 = st.integers(0, 2**128 - 1).map(IPv6Address).filter(lambda address: address.ipv4_mapped is None)
addresses = v4 | v6
ports = st.integers(0, 65535)
macs = st.binary(min_size=6, max_size=6)


@pytest.fixture(scope="module")
def structs() -> Mapping[str, tuple[int, dict[str, int]]]:
    """name -> (size, offset of each member), from the object's BTF."""
    if not OBJECT.exists() or shutil.which("bpftool") is None:
        pytest.skip("needs the compiled object (make) and bpftool: apt-get install bpftool")
    dump = subprocess.run(["bpftool", "-j", "btf", "dump", "file", OBJECT], capture_output=True, check=True, text=True)
    types: list[dict[str, Any]] = json.loads(dump.stdout)["types"]
    return {
        one["name"]: (one["size"], {member["name"]: member["bits_offset"] // 8 for member in one["members"]})
        for one in types
        if one["kind"] == "STRUCT" and one["name"] != "(anon)"
    }


def test_sizes_are_those_of_the_structures(structs: Mapping[str, tuple[int, dict[str, int]]]) -> None:
    assert {name: structs[name][0] for name in structs if name in SIZES} == SIZES
    bucket = structs["bucket"][1]
    assert (bucket["way"], bucket["back"]) == (table.WAYS_AT, table.BACKS_AT)


SIZES = {
    "service_key": layout.SERVICE_KEY_SIZE,
    "service": layout.SERVICE_SIZE,
    "server": layout.SERVER_SIZE,
    "pool": layout.POOL_SIZE,
    "vip": layout.VIP_SIZE,
    "prefix_key": 24,
    "source_key": 24,
    "config": layout.CONFIG_SIZE,
    "timeouts": layout.TIMEOUTS_SIZE,
    "stats": layout.STATS_SIZE,
    "admission": layout.ADMISSION_SIZE,
    "gauge": layout.GAUGE_SIZE,
    "half_open": layout.HALF_OPEN_SIZE,
    "group": layout.GROUP_SIZE,
    "meta": layout.META_SIZE,
    "clock": layout.CLOCK_SIZE,
    "bucket": layout.BUCKET_SIZE,
    "reply_bucket": layout.REPLY_BUCKET_SIZE,
    "tuple": 40,
    "vlan_key": 8,
    "egress": 8,
    "record": records.RECORD_SIZE,
    "records_args": 24,
    "sweep_args": 8,
    "conn": table.CONN_SIZE,
    "back": table.BACK_SIZE,
    "capture": codec.CAPTURE_SIZE,
    "capture_record": codec.RECORD_SIZE,
}


def test_every_field_lies_where_the_structure_has_it(structs: Mapping[str, tuple[int, dict[str, int]]]) -> None:
    """Each field in turn gets a value of its own; it must appear at the member's offset and nowhere else."""
    hop = layout.Hop(1, bytes(6), bytes(6), 1)
    service = layout.Service(0, layout.Scheduler.RR, 0, 0, 0)
    server = layout.Server(ip_address("::"), 0, ForwardingMethod.MASQUERADE, 0, 0, 0, hop=hop)
    for base, name, fields in (
        (service, "service", {"index": "index", "epoch": "epoch", "flags": "flags", "list_at": "list",
                              "list_len": "list_len", "table_at": "table", "table_len": "table_len", "start": "start",
                              "max_weight": "max_weight", "weight_gcd": "weight_gcd", "persistent_s": "persistent_s",
                              "group": "group", "syn_proxy": "syn_proxy", "rate": "rate", "burst": "burst",
                              "mss": "mss"}),
        (server, "server", {"generation": "generation", "service": "service", "weight": "weight",
                            "upper_threshold": "upper_threshold", "lower_threshold": "lower_threshold", "rank": "rank",
                            "last_weight": "last_weight", "group": "group", "mark": "mark", "pool": "pool",
                            "mss": "mss"}),
    ):  # fmt: skip
        offsets = structs[name][1]
        for field, member in fields.items():
            values = {key: getattr(base, key) for key in base.__dataclass_fields__} | {field: 0x01020304}
            packed = type(base)(**values).pack()
            differing = [at for at, (one, other) in enumerate(zip(packed, base.pack(), strict=True)) if one != other]
            assert differing, field
            assert offsets[member] <= differing[0] and differing[-1] < offsets[member] + 4, field
    packed = layout.Server(
        ip_address("::1"), 0x5051, ForwardingMethod.TUNNEL, 0, 0, 0, hop=layout.Hop(7, b"SOURCE", b"TARGET", 0x3031),
        tunnel_source=ip_address("::2"), tunnel=Tunnel(TunnelType.GRE, 0x6061, TunnelChecksum.FULL),
    ).pack()  # fmt: skip
    offsets = structs["server"][1]
    assert packed[offsets["port"] :][:2] == b"\x50\x51"
    assert packed[offsets["forward"]] == 2 and packed[offsets["flags"]] == 9
    assert packed[offsets["tunnel_port"] :][:2] == b"\x60\x61"
    assert packed[offsets["tunnel"]] == 2 and packed[offsets["overhead"]] == 40 + 8
    assert packed[offsets["target_mac"] :][:6] == b"TARGET" and packed[offsets["source_mac"] :][:6] == b"SOURCE"
    assert struct.unpack_from("=H", packed, offsets["mtu"]) == (0x3031,)
    assert struct.unpack_from("=I", packed, offsets["ifindex"]) == (7,)
    assert packed[offsets["tunnel_source"] :][:16] == bytes(15) + b"\2"


def constants(prefix: str) -> dict[str, int]:
    """Of an enumeration in lb.h, numbered as C numbers it."""
    found, following = {}, 0
    for name, value in re.findall(rf"^\t{prefix}_(\w+)(?: = (\d+))?,", HEADER, flags=re.MULTILINE):
        following = int(value) if value else following
        found[name] = following
        following += 1
    return found


def test_numbers_are_those_of_the_header() -> None:
    states = constants("STATE")
    assert states.pop("MAX") == len(layout.State)
    assert states == {member.name: member.value for member in layout.State}
    events = constants("EVENT")
    assert (events.pop("DROPS"), events.pop("MAX")) == (layout.FIRST_DROP, 64)
    assert events == {member.name: member.value for member in layout.Event}
    assert constants("ACCESS") == {member.name: member.value for member in layout.AccessKind}
    assert constants("SCHED") == {member.name: member.value for member in layout.Scheduler}
    assert constants("MERGE") == {member.name: member.value for member in records.MergeResult}
    assert constants("FORWARD") == {method.name: number for method, number in layout.FORWARD_NUMBER.items()}
    assert constants("TUNNEL") == {kind.name: number for number, kind in enumerate(layout.TUNNELS)}
    defined = dict(re.findall(r"^#define (\w+) (\w+)", HEADER, flags=re.MULTILINE))
    for name, value in (
        ("LAYOUT_VERSION", layout.LAYOUT_VERSION),
        ("BUCKET_WAYS", layout.BUCKET_WAYS),
        ("RECORDS_MAX", records.RECORDS_MAX),
        ("GROUP_MEMBERS", layout.GROUP_MEMBERS),
        ("POOL_ADDRESSES", layout.POOL_ADDRESSES),
        *((f"SERVICE_{flag.name}", flag) for flag in layout.ServiceFlag),
        *((f"SERVER_{flag.name}", flag) for flag in layout.ServerFlag),
        *((f"CONFIG_{flag.name}", flag) for flag in layout.ConfigFlag),
    ):
        assert int(defined[name], 0) == value, name


@given(addresses)
def test_addresses_survive(address: Address) -> None:
    assert layout.unpack_address(layout.pack_address(address)) == address


services = st.builds(
    lambda protocol, address, port: ServiceId(protocol, address, port, inet6=address.version == 6),
    st.sampled_from(L4Protocol),
    addresses,
    ports,
) | st.builds(lambda mark, inet6: ServiceId(None, None, 0, mark, inet6), st.integers(1, 2**32 - 1), st.booleans())


@given(st.lists(v4, max_size=16) | st.lists(v6, max_size=16))
def test_pools_survive(local: list[Address]) -> None:
    packed = layout.pack_pool(local)
    assert len(packed) == layout.POOL_SIZE and layout.unpack_pool(packed) == tuple(local)


@given(services)
def test_service_keys_survive(service_id: ServiceId) -> None:
    key = layout.pack_service_key(service_id)
    assert len(key) == layout.SERVICE_KEY_SIZE and layout.unpack_service_key(key) == service_id


@given(
    st.builds(
        layout.Service,
        u32,
        st.sampled_from(layout.Scheduler),
        u32,
        u32,
        u32,
        st.integers(0, 15),
        *(u32,) * 8,
        st.integers(0, layout.ALL_BITS),
    )
)
def test_services_survive(service: layout.Service) -> None:
    assert layout.Service.unpack(service.pack()) == service


hops = st.builds(layout.Hop, u32, macs, macs, u16)


@given(
    st.builds(
        layout.Server,
        addresses,
        ports,
        st.sampled_from(ForwardingMethod),
        st.integers(1, 2**32 - 1),
        u32,
        u32,
        u32,
        u32,
        st.none() | hops,
        st.none() | addresses.filter(lambda address: int(address) != 0),
        st.builds(Tunnel, st.sampled_from(TunnelType), ports, st.sampled_from(TunnelChecksum)),
        u16,
        st.sampled_from([0, layout.ServerFlag.GONE, layout.ServerFlag.KEEP_PORT]),
        *(u32,) * 4,
    )
)
def test_servers_survive(server: layout.Server) -> None:
    assert layout.Server.unpack(server.pack()) == server


@given(st.builds(layout.Group, u32, st.tuples(*(u32,) * layout.GROUP_MEMBERS)))
def test_groups_survive(group: layout.Group) -> None:
    assert layout.Group.unpack(group.pack()) == group


def test_an_unused_server_is_none() -> None:
    assert layout.Server.unpack(layout.UNUSED_SERVER) is None


def test_an_mtu_beyond_the_field_is_cut() -> None:
    """The loopback's 65536: no packet is larger than 65535 anyway."""
    server = layout.Server(
        ip_address("192.0.2.1"), 80, ForwardingMethod.DIRECT, 1, 0, 1, hop=layout.Hop(1, bytes(6), bytes(6), 65536)
    )
    unpacked = layout.Server.unpack(server.pack())
    assert unpacked is not None and unpacked.hop is not None and unpacked.hop.mtu == 65535


seconds = st.integers(1, 2678400)  # what ipvsadm --set takes: up to 31 days


@given(
    st.builds(
        settings.Config, st.builds(Timeouts, seconds, seconds, seconds), st.integers(0, 2**64 - 1), st.booleans(), u32
    )
)
def test_the_configuration_survives(config: settings.Config) -> None:
    assert settings.Config.unpack(config.pack()) == config


def test_timeouts_are_those_of_ipvs() -> None:
    """ipvsadm --set tcp tcpfin udp; the others as ip_vs_proto_tcp.c has them."""
    by_state = settings.timeouts_by_state(Timeouts(tcp_s=1, tcp_fin_s=2, udp_s=3))
    assert {state.name: value for state, value in by_state.items()} == {
        "NONE": 0, "ESTABLISHED": 1, "SYN_SENT": 120, "SYN_RECV": 60, "FIN_WAIT": 2, "TIME_WAIT": 120, "CLOSE": 10,
        "CLOSE_WAIT": 60, "LAST_ACK": 30, "LISTEN": 120, "SYNACK": 120, "UDP": 3,
        "TEMPLATE": 0,
    }  # fmt: skip
    milliseconds = struct.unpack_from("=16I", settings.Config(Timeouts(), 0).pack())
    assert milliseconds[layout.State.ESTABLISHED] == 900_000 and milliseconds[layout.State.UDP] == 300_000


own_timeouts = st.builds(OwnTimeouts, *[st.none() | seconds] * 3)


@given(own_timeouts)
def test_a_services_own_timeouts_survive(own: OwnTimeouts) -> None:
    assert settings.unpack_own(settings.pack_own(own)) == own


@given(st.builds(Timeouts, seconds, seconds, seconds), st.lists(own_timeouts, max_size=3))
def test_no_service_has_a_time_that_ends_before_the_soonest(
    structs: Mapping[str, tuple[int, dict[str, int]]], everybody: Timeouts, found: list[OwnTimeouts]
) -> None:
    packed = settings.Config(everybody, 0, shortest=settings.shortest(found)).pack()
    at = structs["config"][1]["soonest_ms"]
    for state in layout.State:
        of_all = settings.timeout_ms(packed, state)
        times = [settings.timeout_ms(settings.pack_own(own), state) or of_all for own in found]
        assert settings.timeout_ms(packed[at:], state) == min([of_all, *times])


def test_counters_are_summed_over_cpus() -> None:
    per_cpu = struct.pack("=5Q", 1, 2, 3, 4, 5) + struct.pack("=5Q", 10, 20, 30, 40, 50)
    total = counts.unpack_counters(per_cpu, counts.Gauge.unpack(struct.pack("=iiII", 7, 8, 0, 0)))
    assert (total.connections, total.packets_in, total.packets_out, total.bytes_in, total.bytes_out) == (
        11,
        22,
        33,
        44,
        55,
    )
    assert (total.active, total.inactive) == (7, 8)
    assert counts.unpack_event(struct.pack("=qq", 5, -3)) == 2  # entered on one CPU, removed on another


def test_what_a_service_refused_is_named_as_the_drops_are(structs: Mapping[str, tuple[int, dict[str, int]]]) -> None:
    """Each field of struct admission in turn, on the second of two CPUs."""
    size, offsets = structs["admission"]
    for member, at in offsets.items():
        element = bytearray(size)
        element[at] = 7
        found = counts.unpack_admission(bytes(size) + bytes(element))
        told = {reason.replace("-", "_"): packets for reason, packets in found.refused.items()}
        told |= {name: getattr(found, name) for name in found.__dataclass_fields__ if name != "refused"}
        assert {name for name, packets in told.items() if packets == 7} == {member.replace("clamped", "mss_clamped")}
    assert counts.unpack_admission(bytes(2 * size)) == counts.NOTHING_REFUSED


tuples = st.builds(
    records.Tuple, addresses, ports, addresses, ports, st.none() | st.sampled_from(L4Protocol), st.booleans()
)
some_record = st.builds(
    records.Record, tuples, tuples, u32, st.sampled_from(layout.State), u8, st.sampled_from(ForwardingMethod), u32,
    st.sampled_from(records.MergeResult), u32,
)  # fmt: skip


@given(st.lists(some_record, max_size=4))
def test_records_survive(given_records: list[records.Record]) -> None:
    data = b"".join(one.pack() for one in given_records)
    assert len(data) == len(given_records) * records.RECORD_SIZE
    assert list(records.unpack_records(data)) == given_records
    assert [records.MergeResult(one) for one in records.merge_results(data)] == [one.result for one in given_records]


@given(some_record)
def test_a_listed_connection_expires_after_its_time(record: records.Record) -> None:
    listed = connection(listing.line(record.pack(), 0))
    assert listed.expires_s == max(0, record.timeout_ms - record.idle_ms) / 1000
    assert listed.client == (record.inward.source, record.inward.source_port)
    assert listed.server == (record.outward.source, record.outward.source_port)


def test_the_layout_id_names_the_size() -> None:
    assert str(records.RECORD_SIZE) in records.RECORD_LAYOUT
