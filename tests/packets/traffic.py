"""The packets that tests give to the bench: built by scapy, or by hand where a test sends very many."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.packets.checksums import ones_complement
from tests.packets.wire import CLIENT, CLIENT6, VIP


def ether(packet: Packet, source: str = "02:00:00:00:00:99", target: str = "02:00:00:00:00:98") -> bytes:
    return bytes(Ether(src=source, dst=target) / packet)


def ip(source: str, target: str, **fields: Any) -> Packet:
    """The header of the addresses' family."""
    return IPv6(src=source, dst=target, **fields) if ":" in target else IP(src=source, dst=target, **fields)


def tcp(
    port: int = 40000,
    flags: str = "S",
    *,
    client: str = "",
    vip: str = VIP,
    dport: int = 80,
    data: bytes = b"",
    **fields: Any,
) -> Packet:
    """A segment from the client to the service. `fields`: of the IP header."""
    head = ip(client or client_of(vip), vip, **fields)
    return head / TCP(sport=port, dport=dport, flags=flags, seq=1000) / Raw(data)


def udp(port: int = 40000, *, client: str = "", vip: str = VIP, dport: int = 53, data: bytes = b"query",
        **fields: Any) -> Packet:  # fmt: skip
    return ip(client or client_of(vip), vip, **fields) / UDP(sport=port, dport=dport) / Raw(data)


def with_checksum(source: str, target: str, part: bytes) -> Packet:
    """Around TCP bytes that scapy would write in its own way."""
    pseudo = b"".join(ip_address(one).packed for one in (source, target)) + struct.pack("!HH", 6, len(part))
    total = ~ones_complement(pseudo + part + bytes(len(part) % 2)) & 0xFFFF
    head = ip(source, target, **({"nh": 6} if ":" in target else {"proto": 6}))
    return head / Raw(part[:16] + total.to_bytes(2, "big") + part[18:])


def client_of(vip: str) -> str:
    return CLIENT6 if ":" in vip else CLIENT


def patched(packet: Packet, at: int, value: bytes) -> bytes:
    """Its bytes, with others from offset `at` on."""
    data = bytes(packet)
    return data[:at] + value + data[at + len(value) :]


def fragment6(packet: Packet, size: int, fragment_id: int = 77, *before: Packet) -> list[Packet]:
    """An IPv6 packet in pieces with `size` bytes each (RFC 8200 4.5); `before`: extension headers in every piece."""
    data, protocol = bytes(packet.payload), packet.nh
    pieces = []
    for at in range(0, len(data), size):
        head = IPv6(src=packet.src, dst=packet.dst, hlim=packet.hlim)
        for one in before:
            head = head / one
        more = at + size < len(data)
        header = IPv6ExtHdrFragment(nh=protocol, offset=at // 8, m=int(more), id=fragment_id)
        pieces.append(IPv6(bytes(head / header / Raw(data[at : at + size]))))
    return pieces


def answer(packet: Packet, flags: str = "SA", *, data: bytes = b"", **fields: Any) -> Packet:
    """A packet the other way round: what a server says to the packet it got."""
    layer = TCP if TCP in packet else UDP
    back = ip(packet.dst, packet.src, **fields)
    ports: dict[str, Any] = {"sport": packet[layer].dport, "dport": packet[layer].sport}
    return back / (TCP(**ports, flags=flags, seq=5000, ack=1001) if layer is TCP else UDP(**ports)) / Raw(data)


_FLAG_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}


def segment(source: tuple[str, int], target: tuple[str, int], flags: str, mac: str = "02:00:00:00:00:98") -> bytes:
    """A frame with a TCP segment without data; built by hand, because scapy takes half a millisecond for one."""
    bits = sum(_FLAG_BITS[flag] for flag in flags)
    addresses = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
    part = struct.pack("!HHIIBBHHH", source[1], target[1], 1, 1, 5 << 4, bits, 65535, 0, 0)
    total = ones_complement(addresses + struct.pack("!HH", 6, 20) + part)
    return _frame(addresses, 6, part[:16] + (~total & 0xFFFF).to_bytes(2, "big") + part[18:], mac)


def datagram(source: tuple[str, int], target: tuple[str, int], mac: str = "02:00:00:00:00:98") -> bytes:
    """A frame with a UDP datagram without data and checksum."""
    addresses = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
    return _frame(addresses, 17, struct.pack("!HHHH", source[1], target[1], 8, 0), mac)


def _frame(addresses: bytes, protocol: int, payload: bytes, mac: str) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses
    header = header[:10] + (~ones_complement(header) & 0xFFFF).to_bytes(2, "big") + header[12:]
    return bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\x99\x08\0" + header + payload
