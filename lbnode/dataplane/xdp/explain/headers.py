"""A frame's headers in words, a line for each, tunnels included. Pure."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from lbnode.dataplane.xdp.explain.probe import ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6
from lbnode.model import format_endpoint

_ICMP, _IPIP, _TCP, _UDP, _IPV6, _GRE, _ICMP6, _SCTP = 1, 4, 6, 17, 41, 47, 58, 132
_MSS, _TOA = 2, 254  # kinds of TCP options
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
# (protocol, type, code): those that the data plane sends (RFC 792, RFC 4443)
_ICMP_NAMES = {
    (_ICMP, 3, 3): "port unreachable",
    (_ICMP, 3, 4): "fragmentation needed",
    (_ICMP, 11, 0): "time exceeded",
    (_ICMP6, 1, 4): "port unreachable",
    (_ICMP6, 2, 0): "packet too big",
    (_ICMP6, 3, 0): "time exceeded",
}


def mac(data: bytes) -> str:
    return data.hex(":")


def describe(frame: bytes, gue_port: int = 0) -> tuple[str, ...]:
    """`gue_port`: UDP to this port carries a GUE header and an IP packet; 0 = none does."""
    lines = [f"Ethernet {mac(frame[6:12])} -> {mac(frame[:6])}"]
    kind, at = int.from_bytes(frame[12:14], "big"), 14
    if kind == ETH_P_8021Q:
        lines[0] += f", VLAN {int.from_bytes(frame[14:16], 'big') & 0xFFF}"
        kind, at = int.from_bytes(frame[16:18], "big"), 18
    lines += _ip(frame[at:], gue_port) if kind in (ETH_P_IP, ETH_P_IPV6) else [f"type 0x{kind:04x}"]
    return tuple(lines)


def _ip(packet: bytes, gue_port: int) -> list[str]:
    if packet[0] >> 4 == 4:
        length, ttl, protocol = int.from_bytes(packet[2:4], "big"), packet[8], packet[9]
        addresses, payload = packet[12:20], packet[(packet[0] & 15) * 4 :]
    else:
        length, protocol, ttl = 40 + int.from_bytes(packet[4:6], "big"), packet[6], packet[7]
        addresses, payload = packet[8:40], packet[40:]
    half = len(addresses) // 2
    source, target = ip_address(addresses[:half]), ip_address(addresses[half:])
    name = "IPv4" if half == 4 else "IPv6"
    line = f"{name} {source} -> {target}, {'TTL' if half == 4 else 'hop limit'} {ttl}, {length} bytes"
    return [line, *_payload(protocol, payload, gue_port)]


def _options(options: bytes) -> str:
    """What the data plane may change: the MSS (clamp.h), and whom full NAT names to the server (toa.h).

    RFC 9293 3.2: two kinds of options are one byte.
    """
    text = ""
    while len(options) > 1:
        kind, length = options[0], 1 if options[0] < 2 else options[1]
        if kind == _MSS and length == 4 and len(options) >= length:
            text += f", MSS {int.from_bytes(options[2:4], 'big')}"
        if kind == _TOA and length in (8, 20) and len(options) >= length:
            address, port = ip_address(options[4:length]), int.from_bytes(options[2:4], "big")
            text += f", TOA {format_endpoint(address, port)}"
        options = options[max(1, length) :]
    return text


def _payload(protocol: int, data: bytes, gue_port: int) -> list[str]:
    if protocol in (_IPIP, _IPV6):
        return _ip(data, 0)
    if protocol == _GRE:
        checksum = bool(data[0] & 0x80)
        return ["GRE" + (" with checksum" if checksum else ""), *_ip(data[8 if checksum else 4 :], 0)]
    if protocol in (_ICMP, _ICMP6):
        name = _ICMP_NAMES.get((protocol, data[0], data[1]), f"type {data[0]} code {data[1]}")
        return [f"ICMP{'v6' if protocol == _ICMP6 else ''} {name}"]
    source, target = struct.unpack_from("!HH", data)
    if protocol == _TCP:
        flags = " ".join(flag for bit, flag in enumerate(_FLAGS) if data[13] >> bit & 1)
        return [f"TCP port {source} -> {target}, {flags}{_options(data[20 : (data[12] >> 4) * 4])}"]
    if protocol == _UDP and gue_port and target == gue_port:
        # GUE variant 0: the low five bits of its first byte count the words that follow its first word.
        return [f"UDP port {source} -> {target}", "GUE", *_ip(data[8 + 4 + (data[8] & 31) * 4 :], 0)]
    return [f"{'UDP' if protocol == _UDP else 'SCTP'} port {source} -> {target}"]
