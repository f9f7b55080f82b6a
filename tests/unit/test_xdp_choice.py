"""What the XDP/tcx data plane attaches where, and what it refuses with which words."""

from __future__ import annotations

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from lbnode.dataplane.base import DeleteService, PutServer, PutService
from lbnode.dataplane.xdp.interfaces import Interface, beyond_xdp, choose, from_message, wanted
from lbnode.dataplane.xdp.supported import check, check_hooks
from lbnode.errors import Unsupported
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId

HTTP = ServiceId.of("tcp", "192.0.2.10", 80)


def interface(name: str = "eth0", **values: object) -> Interface:
    facts = {"index": 2, "kind": "", "driver": "", "ether": True, "up": True, "mac": bytes(6), "mtu": 1500, "master": 0}
    return Interface(name=name, **{**facts, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "mode", "word"),
    [
        (interface(kind="veth"), "tcx", "veth"),
        (interface(kind="bridge"), "tcx", "bridge"),
        (interface(kind="tun", ether=False), "tcx", "Ethernet"),
        (interface(driver="virtio_net"), "tcx", "virtio"),
        (interface(driver="ixgbe"), "xdp", "ixgbe"),
    ],
)
def test_the_hook_follows_from_where_packets_are_born(found: Interface, mode: str, word: str) -> None:
    chosen, reason = choose(found, "auto")
    assert chosen == mode and word in reason


def test_a_forced_hook_wins() -> None:
    assert choose(interface(kind="veth"), "xdp")[0] == "xdp"
    assert choose(interface(driver="ixgbe"), "tcx")[0] == "tcx"
    assert choose(interface(driver="ixgbe"), "tc") == ("tcx", "set to tc by configuration")


def test_all_ethernet_interfaces_that_are_up_or_just_the_named_ones() -> None:
    assert wanted(interface(), ())
    assert not wanted(interface(up=False), ())
    assert not wanted(interface(ether=False), ())
    assert not wanted(interface(master=7), ()), "the bridge carries the program, not its port"
    for mac, expected in (("00005e000133", False), ("00005e000233", False), ("020000000001", True)):
        assert wanted(interface(kind="macvlan", mac=bytes.fromhex(mac)), ()) is expected, "served on the one below"
    assert wanted(interface("front", up=False), ("front",))
    assert not wanted(interface(), ("front",))


def test_one_interface_at_tcx_keeps_the_others_from_xdp_unless_it_is_their_vlan() -> None:
    nic, vlan = interface("eth0", index=2), interface("eth0.5", index=3, kind="vlan", vlan=(2, 5))
    bridge, above = interface("br0", index=4, kind="bridge"), interface("br0.6", index=5, kind="vlan", vlan=(4, 6))
    assert beyond_xdp([(nic, "xdp"), (vlan, "tcx")]) == []
    assert beyond_xdp([(nic, "xdp"), (vlan, "tcx"), (bridge, "tcx")]) == ["br0"]
    assert beyond_xdp([(nic, "xdp"), (above, "tcx")]) == ["br0.6"]
    assert beyond_xdp([(nic, "tcx"), (vlan, "tcx")]) == ["eth0", "eth0.5"]


@pytest.mark.parametrize(("protocol", "vlan"), [(0x8100, (3, 5)), (0x88A8, None)], ids=["802.1Q", "802.1ad"])
def test_a_vlan_is_told_with_what_is_below_it(protocol: int, vlan: tuple[int, int] | None) -> None:
    message = ifinfmsg()
    message["index"], message["ifi_type"], message["flags"] = 7, 1, 1
    data = {"attrs": [("IFLA_VLAN_ID", 5), ("IFLA_VLAN_PROTOCOL", protocol)]}
    info = {"attrs": [("IFLA_INFO_KIND", "vlan"), ("IFLA_INFO_DATA", data)]}
    message["attrs"] = [("IFLA_IFNAME", "eth0.5"), ("IFLA_LINK", 3), ("IFLA_LINKINFO", info)]
    message.encode()
    received = ifinfmsg(message.data)
    received.decode()
    found = from_message(received)
    assert (found.index, found.kind, found.vlan) == (7, "vlan", vlan)


def service(text: str = str(HTTP), **values: object) -> PutService:
    return PutService(ProgrammedService(ServiceId.parse(text), **{"scheduler": "rr", **values}))  # type: ignore[arg-type]


def server(text: str, forward: str) -> PutServer:
    return PutServer(HTTP, ProgrammedServer(ServerId.parse(text), 1, ForwardingMethod(forward)))


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (service(scheduler="fifo"), "it has: dh fo lblc lblcr lc mh nq ovf rr sed sh twos wlc wrr"),
        (service("tcp:192.0.2.10:0"), "needs persistence"),
        (service(scheduler_flags=frozenset({"sh-port"})), "rr has no flag sh-port"),
        (service(one_packet=True), "one-packet scheduling is for udp"),
        (server("[2001:db8::2]:80", "masquerade"), "IPv4"),
        (server("192.0.2.21:81", "direct"), "must be 80"),
        (server("192.0.2.21:81", "tunnel"), "must be 80"),
    ],
)
def test_what_it_cannot_do_is_refused_in_words(op: PutService | PutServer, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        check(op)


def test_marks_need_socket_buffers() -> None:
    check_hooks(ServiceId.parse("fwmark:7"), [])
    check_hooks(HTTP, ["eth0"])
    with pytest.raises(Unsupported, match=r'eth0, eth1 is served at XDP: set attach = "tcx"'):
        check_hooks(ServiceId.parse("fwmark:7"), ["eth0", "eth1"])


def test_what_it_can_do_passes() -> None:
    check(service("tcp:[2001:db8::1]:80"))
    check(service(scheduler="sh", scheduler_flags=frozenset({"sh-port", "sh-fallback", "flag-3"})))
    check(service(scheduler_flags=frozenset({"flag-1"})))
    check(service("fwmark:7", one_packet=True))
    check(service("tcp:192.0.2.10:0", persistent_s=300))
    check(server("192.0.2.21:8080", "masquerade"))
    check(server("192.0.2.21:80", "tunnel"))
    check(DeleteService(HTTP))
