"""Which interfaces carry the data plane, at which hook, and why.

XDP pays where packets are born as frames (a NIC's driver); where they are born as socket buffers (veth, virtio,
bridges, tunnels) it turns segmentation and checksum offload off, and tcx is faster (measured: bulk TCP 3 to 4 times).
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Attach = Literal["auto", "xdp", "tcx", "tc"]  # "tc": the hook tcx, by clsact as on kernels before 6.6

ETH_P_8021Q = 0x8100
_ARPHRD_ETHER = 1
_IFF_UP = 1
_SIOCETHTOOL = 0x8946
_VIRTUAL_ROUTERS = bytes.fromhex("00005e0001"), bytes.fromhex("00005e0002")  # RFC 9568 section 7.3, without the VRID
_ETHTOOL_GDRVINFO = 3
# Drivers whose packets come as socket buffers, though an XDP program may attach.
_SKB_DRIVERS = {
    "virtio_net": "virtio: native XDP would need spare queues and switch segmentation offload off",
    "hv_netvsc": "a paravirtual interface: native XDP switches segmentation offload off",
    "xen-netfront": "a paravirtual interface: native XDP switches segmentation offload off",
    "vmxnet3": "a paravirtual interface: native XDP switches segmentation offload off",
}


@dataclass(frozen=True, slots=True)
class Interface:
    """What netlink and ethtool tell of one link."""

    index: int
    name: str
    kind: str  # IFLA_INFO_KIND: "veth", "bridge", ...; empty for hardware
    driver: str  # ethtool's; empty if unknown
    ether: bool  # ARPHRD_ETHER: has MAC addresses
    up: bool
    mac: bytes  # 6 bytes, or empty
    mtu: int
    master: int  # ifindex of the bridge or bond that it is a port of; 0 = none
    vlan: tuple[int, int] | None = None  # ifindex below and id, if it is a VLAN (802.1Q)


def driver_of(name: str) -> str:
    """ethtool's driver name of an interface in the current network namespace (sysfs may show another's)."""
    info = array.array("B", struct.pack("=I", _ETHTOOL_GDRVINFO) + bytes(192))
    request = struct.pack("16sP", name.encode(), info.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError:
            return ""
    return info.tobytes()[4:36].split(b"\0")[0].decode("ascii", "replace")


def from_message(message: Any) -> Interface:
    """Of a pyroute2 RTM_NEWLINK message."""
    name = message.get("ifname") or ""
    kind = message.get(("linkinfo", "kind")) or ""
    address = message.get("address") or ""
    return Interface(
        index=message["index"],
        name=name,
        kind=kind,
        driver="" if kind else driver_of(name),
        ether=message["ifi_type"] == _ARPHRD_ETHER,
        up=bool(message["flags"] & _IFF_UP),
        mac=bytes.fromhex(address.replace(":", "")) if address.count(":") == 5 else b"",
        mtu=message.get("mtu") or 0,
        master=message.get("master") or 0,
        vlan=_vlan(message) if kind == "vlan" else None,
    )


def _vlan(message: Any) -> tuple[int, int] | None:
    lower, vlan_id = message.get("link"), message.get(("linkinfo", "data", "vlan_id"))
    protocol = message.get(("linkinfo", "data", "vlan_protocol"))
    return (lower, vlan_id) if lower and vlan_id and protocol in (None, ETH_P_8021Q) else None


def wanted(interface: Interface, names: Sequence[str]) -> bool:
    """Whether the data plane belongs on this interface: the named ones, or all Ethernet ones that are up.

    A bridge's or bond's port hands its packets to its master, which carries the program. What comes for a virtual
    router's MAC address is served on the interface below (bpf/lease.h).
    """
    if names:
        return interface.name in names
    if interface.kind == "macvlan" and interface.mac[:5] in _VIRTUAL_ROUTERS:
        return False
    return interface.ether and interface.up and interface.name != "lo" and not interface.master


def choose(interface: Interface, attach: Attach) -> tuple[Literal["xdp", "tcx"], str]:
    """(hook, why)."""
    if attach != "auto":
        return "xdp" if attach == "xdp" else "tcx", f"set to {attach} by configuration"
    if not interface.ether:
        return "tcx", "has no Ethernet header, XDP would not understand it"
    if interface.kind == "veth":
        return "tcx", "veth: packets are socket buffers, XDP would switch segmentation offload off"
    if interface.kind:
        return "tcx", f"{interface.kind}: a virtual interface without native XDP"
    if reason := _SKB_DRIVERS.get(interface.driver):
        return "tcx", reason
    return "xdp", f"driver {interface.driver or 'unknown'}: tries native XDP"


def beyond_xdp(chosen: Sequence[tuple[Interface, str]]) -> list[str]:
    """Names of those at tcx that a program at XDP could not send frames by. `chosen`: interfaces with their hooks.

    It sends by VLANs through the interface below, if that is at XDP (vlans.py).
    """
    at_xdp = {one.index for one, hook in chosen if hook == "xdp"}
    return sorted(one.name for one, hook in chosen if hook == "tcx" and (one.vlan is None or one.vlan[0] not in at_xdp))
