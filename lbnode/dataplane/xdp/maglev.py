"""Maglev's table (Eisenbud et al., NSDI 2016) as IPVS builds it (ip_vs_mh.c): both choose the same server. Pure.

Every server walks the slots in an order of its own and takes the next free one when its turn comes, as many in a row as
its share of the weights. Servers that come or go therefore move few clients of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from lbnode.model import Address, ServerId

SLOTS = 4093  # prime: IPVS's default, CONFIG_IP_VS_MH_TAB_INDEX 12
_SLOT_BITS = 12
_OFFSET_KEY, _SKIP_KEY = 2654435761, 2654446892  # each is both halves of a SipHash key
_MASK = (1 << 64) - 1


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def siphash13(word: int, key: int) -> int:
    """SipHash-1-3 (Aumasson, Bernstein) of a 32-bit word, its low 32 bits; the kernel's hsiphash_1u32 on 64 bits."""
    v0, v1, v2, v3 = (
        constant ^ key for constant in (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    )
    block = 4 << 56 | word

    def mix() -> None:
        nonlocal v0, v1, v2, v3
        v0 = v0 + v1 & _MASK
        v1 = _rotate(v1, 13) ^ v0
        v0 = _rotate(v0, 32)
        v2 = v2 + v3 & _MASK
        v3 = _rotate(v3, 16) ^ v2
        v0 = v0 + v3 & _MASK
        v3 = _rotate(v3, 21) ^ v0
        v2 = v2 + v1 & _MASK
        v1 = _rotate(v1, 17) ^ v2
        v2 = _rotate(v2, 32)

    v3 ^= block
    mix()
    v0 ^= block
    v2 ^= 0xFF
    mix()
    mix()
    mix()
    return (v0 ^ v1 ^ v2 ^ v3) & 0xFFFFFFFF


def fold(address: Address) -> int:
    """IPv4 as it is, the four words of IPv6 by exclusive or."""
    value = int(address)
    return (value ^ value >> 32 ^ value >> 64 ^ value >> 96) & 0xFFFFFFFF


def turns(weights: Sequence[int]) -> list[int]:
    """How many slots each server takes in a row: the weights without common divisor, scaled down to fit the table."""
    if not any(weights):
        return [0] * len(weights)
    divisor = gcd(*weights)
    shift = max(0, (max(weights) // divisor).bit_length() - _SLOT_BITS)
    return [(weight // divisor >> shift) or int(weight > 0) for weight in weights]


def table(servers: Sequence[ServerId], weights: Sequence[int]) -> list[int | None]:
    """SLOTS positions in `servers` (newest first, as IPVS lists them); None everywhere if no server has weight."""
    result: list[int | None] = [None] * SLOTS
    walks = []
    for position, (server, share) in enumerate(zip(servers, turns(weights), strict=True)):
        if share:
            word = fold(server.address) + server.port & 0xFFFFFFFF
            offset = siphash13(word, _OFFSET_KEY) % SLOTS
            walks.append([position, share, offset, siphash13(word, _SKIP_KEY) % (SLOTS - 1) + 1])
    free = SLOTS if walks else 0
    while free:
        for walk in walks:
            position, share, at, skip = walk
            for _ in range(min(share, free)):
                while result[at] is not None:
                    at = (at + skip) % SLOTS
                result[at] = position
            free -= min(share, free)
            walk[2] = at
    return result
