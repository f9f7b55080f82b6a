"""Where a sent frame goes: its Ethernet addresses, its tag, and whether it leaves by the interface that it came by."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from tests.packets.view import View
from tests.packets.wire import CLIENT_ROUTER_MAC, SERVER_MAC, Wire

REFLECTED = {"own error", "echo", "cookie"}  # answers to the sender of the packet
_TAG = b"\x81\x00"
_CLIENTS = tuple(map(ip_network, ("203.0.113.0/24", "172.16.0.0/24", "2001:db8:c::/64")))


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class Link:
    def __init__(self, wire: Wire) -> None:
        mac = {name: _packed(wire.mac(name)) for name in wire.interfaces}
        self._to_servers = _packed(SERVER_MAC) + mac["back"]
        self._to_clients = _packed(CLIENT_ROUTER_MAC) + mac["front"]

    def wrong(self, kind: str, frame: bytes, out: bytes, o: View, interface: str, *, how: str) -> str:
        """A complaint, or ''. `how`: "reflected", "redirected", "handed over" (the kernel finds the next hop); "" where
        the hook does not tell."""
        if kind in REFLECTED:
            tag = 16 if frame[12:14] == _TAG else 12
            if out[:6] + out[6:12] != frame[6:12] + frame[:6] or out[12:tag] != frame[12:tag]:
                return "not back to where it came from"
            return "by another interface" if how not in ("", "reflected") else ""
        if out[12:14] == _TAG:
            return "still tagged"
        if how == "handed over":
            return ""
        client = any(ip_address(o.target) in one for one in _CLIENTS)
        allowed = {self._to_clients: "front"} if client else {self._to_servers: "back", self._to_clients: "front"}
        leaves = allowed.get(out[:12])
        if leaves is None:
            left = not how and not client and out[:12] == frame[:12]  # bpf_redirect_neigh
            return "" if left else "to another MAC address"
        expected = "reflected" if leaves == interface else "redirected"
        return "by another interface" if how not in ("", expected) else ""
