"""Connection records are sorted by the VIP group of their virtual address."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from lbnode.dataplane.xdp.layout import State, pack_address
from lbnode.dataplane.xdp.records import RECORD_SIZE, Record, Tuple, by_group, unpack_records
from lbnode.model import ForwardingMethod, L4Protocol

CLIENT, SERVER = ip_address("203.0.113.5"), ip_address("198.51.100.31")
TARGETS = {ip_address("192.0.2.10"): "front", ip_address("2001:db8::10"): "front", ip_address("192.0.2.20"): "back",
           ip_address("192.0.2.30"): ""}  # fmt: skip


def record(number: int, target: str) -> bytes:
    tcp = L4Protocol.TCP
    inward = Tuple(CLIENT, number, ip_address(target), 80, tcp)
    outward = Tuple(SERVER, 80, CLIENT, number, tcp)
    return Record(inward, outward, 0, State.ESTABLISHED, 0, ForwardingMethod.MASQUERADE).pack()


@given(st.lists(st.sampled_from(sorted(map(str, TARGETS))), max_size=40))
def test_every_record_is_in_its_group_and_none_changes_its_place(targets: list[str]) -> None:
    records = b"".join(record(1000 + number, target) for number, target in enumerate(targets))
    packed = {pack_address(address): name for address, name in TARGETS.items() if name}
    parts = by_group(records, packed)
    assert sum(len(part) for part in parts.values()) == len(targets) * RECORD_SIZE
    for name, part in parts.items():
        ports = [one.inward.source_port for one in unpack_records(part)]
        assert ports == [1000 + n for n, target in enumerate(targets) if TARGETS[ip_address(target)] == name]


def test_no_records_are_of_no_group() -> None:
    assert by_group(b"", {}) == {}
