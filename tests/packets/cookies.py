"""SYN cookies by the words of bpf/cookie.h, written apart from it."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from lbnode.dataplane.xdp.layout import pack_address

SLOT_MS = 1 << 16
NO_SCALE = 15
_64_BITS = (1 << 64) - 1


def siphash24(key: bytes, message: bytes) -> int:
    """Aumasson, Bernstein: SipHash, a fast short-input PRF (2012), section 2.3; 64 bits."""
    k0, k1 = struct.unpack("<QQ", key)
    state = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        state[3] ^= word
        _rounds(state, 2)
        state[0] ^= word
    state[2] ^= 0xFF
    _rounds(state, 4)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _64_BITS


def _rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        for a, b, first, second in ((0, 1, 13, 32), (2, 3, 16, 0), (0, 3, 21, 0), (2, 1, 17, 32)):
            v[a] = (v[a] + v[b]) & _64_BITS
            v[b] = _rotated(v[b], first) ^ v[a]
            if second:
                v[a] = _rotated(v[a], second)


def info_of(mss_index: int, sack: bool, scale: int) -> int:
    return mss_index << 6 | sack << 5 | scale << 1


def cookie(key: int, client: str, port: int, vip: str, vip_port: int, isn: int, now_ms: int, info: int) -> int:
    """That the gateway gives to a SYN with this initial sequence number at this time."""
    slot = now_ms // SLOT_MS
    info |= slot & 1
    addresses = [pack_address(ip_address(one)) for one in (client, vip)]
    if ":" not in vip:
        addresses = [one[8:] for one in addresses]
    head = addresses if ":" not in vip else [addresses[0][:8], addresses[1][:8], addresses[0][8:], addresses[1][8:]]
    ports = struct.pack("!HHB3x", port, vip_port, 6)
    more = struct.pack("<Q", isn << 32 | slot << 8 | info)
    return siphash24(key.to_bytes(16, "little"), b"".join(head) + ports + more) & 0xFFFFFF00 | info
