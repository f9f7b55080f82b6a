"""Ping probe: an ICMP echo request is answered (RFC 792, RFC 4443).

The kernel's ping sockets (icmp(7)) serve one conversation each, but only for groups that net.ipv4.ping_group_range
names, by default none; else a raw socket, which needs CAP_NET_RAW and gets copies of what others are answered, too.
"""

from __future__ import annotations

import secrets
import socket
import struct

from healthcheck.probes.datagram import Conversation, converse, open_socket
from healthcheck.probes.errors import ProbeImpossible
from healthcheck.spec import Result, Target

_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_ECHO = {4: (8, 0), 6: (128, 129)}  # request, reply
_TOKEN_BYTES = 16  # tells our replies from others'
_SOL_RAW, _ICMP_FILTER = 255, 1  # raw(7); linux/icmp.h
_ICMPV6_FILTER = 1  # linux/icmpv6.h


async def probe(target: Target) -> Result:
    """One request; its reply is known by its content."""
    sock, raw = _open(target)
    request, reply = _ECHO[target.address.version]
    token = secrets.token_bytes(_TOKEN_BYTES)

    async def talk(server: Conversation) -> None:
        await server.send(_message(request, token))
        while True:
            message = await server.receive()
            if raw and target.address.version == 4:
                message = _without_ip(message)
            if message[:1] == bytes((reply,)) and message[_HEADER.size :] == token:
                return

    return await converse(target, sock, talk, 0)


def _message(kind: int, token: bytes) -> bytes:
    """The checksum of IPv6's is the kernel's work (RFC 3542 section 3.1); computing it does not disturb that."""
    identifier = secrets.randbelow(0x10000)
    zero = _HEADER.pack(kind, 0, 0, identifier, 1) + token
    return _HEADER.pack(kind, 0, checksum(zero), identifier, 1) + token


def checksum(data: bytes) -> int:
    """RFC 1071, for an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _without_ip(packet: bytes) -> bytes:
    """Raw IPv4 sockets deliver the IP header, too; its length is in units of 4 bytes."""
    return packet[(packet[0] & 0x0F) * 4 :] if packet else b""


def _open(target: Target) -> tuple[socket.socket, bool]:
    """(socket, whether it is raw)"""
    protocol = socket.IPPROTO_ICMP if target.address.version == 4 else socket.IPPROTO_ICMPV6
    try:
        return open_socket(target, socket.SOCK_DGRAM, protocol), False
    except PermissionError:
        pass
    try:
        sock = open_socket(target, socket.SOCK_RAW, protocol)
    except PermissionError as error:
        hint = "give lbnoded CAP_NET_RAW, or its group net.ipv4.ping_group_range"
        raise ProbeImpossible(f"no ICMP socket for ping checks: {hint}") from error
    _filter(sock, target.address.version)
    return sock, True


def _filter(sock: socket.socket, family: int) -> None:
    """Let only echo replies in: a bit set is a type kept out."""
    reply = _ECHO[family][1]
    if family == 4:
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("I", 0xFFFFFFFF & ~(1 << reply)))
    else:
        words = [0xFFFFFFFF] * 8
        words[reply >> 5] &= ~(1 << (reply & 31))
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("8I", *words))
