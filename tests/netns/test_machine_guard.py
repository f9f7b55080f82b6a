"""The guard of the machine's own network (tests/machine.py) sees what a test could do to it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lbnode.lab.netns import Net, call_in_netns
from tests.machine import changes, machine

pytestmark = pytest.mark.root


@pytest.fixture
def net() -> Iterator[Net]:
    with Net(f"lbt-guard{os.getpid()}") as net:
        net.add("one")
        net.add("two")
        net.veth("one", "eth0", "192.0.2.2/24", "two", "eth0", None)
        yield net


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("ip link set eth0 mtu 1400", "mtu 1400"),
        ("ip link add macvlan0 link eth0 type macvlan", "macvlan0@eth0"),
        ("ip address add 192.0.2.10/32 dev eth0", "inet 192.0.2.10/32"),
        ("ip route add 203.0.113.0/24 via 192.0.2.254", "route show table all: + 203.0.113.0/24"),
        ("ip -6 route add unreachable 2001:db8::/64", "route show table all: + unreachable 2001:db8::/64"),
        ("ip rule add fwmark 7 lookup 7", "fwmark 0x7 lookup 7"),
        ("tc qdisc add dev eth0 clsact", "qdisc clsact"),
        ("sysctl -qw net.ipv4.conf.eth0.arp_ignore=1", "sysctl net/ipv4/conf/eth0/arp_ignore: 0 -> 1"),
    ],
)
def test_a_change_is_told(net: Net, command: str, told: str) -> None:
    namespace = f"{net.prefix}-one"
    before = call_in_netns(namespace, machine)
    assert not list(changes(before, call_in_netns(namespace, machine)))
    net.run("one", *command.split())
    found = list(changes(before, call_in_netns(namespace, machine)))
    assert any(told in line and ("+" in line or "->" in line) for line in found), found
