"""Mutated packets against the parsers of the election: nothing but their own reject, and no state changes.

A million in `make test`; LBNODE_PARSER_FUZZ says how many else. They come in chunks, each from a seed of its own, so
that what one process of many finds is found again.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import struct
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address

import pytest

from lbnode.election.authentication import Authentication, Mode, Signer
from lbnode.election.endpoint import Endpoint, Style
from lbnode.election.neighbour import announcement, answered, probe
from lbnode.election.packet import (
    PROTOCOL,
    Advert,
    Datagram,
    Reason,
    Rejected,
    checksum,
    encode,
    message,
    open_ipv4,
)
from tests.cores import cores
from tests.unit.test_election_packet import ip_packet

INPUTS = int(os.environ.get("LBNODE_PARSER_FUZZ", "1000000"))
CHUNK = 50_000
OURS, THEIRS, VIP = (ip_address(f"192.0.2.{n}") for n in (1, 2, 10))
OURS6, THEIRS6, VIP6 = ip_address("fe80::1"), ip_address("fe80::2"), ip_address("2001:db8::10")
GROUP6 = ip_address("ff02::12")
MAC = bytes.fromhex("020000000001")
ENFORCE = Authentication(Mode.ENFORCE, {1: bytes(32)}, 1)
UTC = 1_800_000_000_000_000_000


def mutants(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` packets: of each seed a few bytes overwritten, and every eighth cut, every eighth extended."""
    rng = random.Random(seed)
    noise = rng.randbytes(1 << 16)
    for number in range(count):
        bits = rng.getrandbits(62)
        base = bytearray(seeds[number % len(seeds)])
        length = len(base)
        for _ in range(1 + (bits & 3)):
            base[(bits >> 8 & 0xFFFF) % length] = bits >> 24 & 0xFF
            bits = bits >> 3 | (bits & 7) << 59
        if number & 7 == 6:
            del base[(bits >> 30 & 0xFFFF) % length :]
        elif number & 7 == 7:
            at = bits >> 30 & 0xFFFF
            base += noise[at : at + (bits & 63)]
        yield bytes(base)


def adverts(source: str, authentication: Authentication) -> list[bytes]:
    made = []
    for version, priority, count in ((3, 200, 1), (3, 0, 3), (2, 100, 2)):
        sender = ip_address(source)
        if version == 2 and sender.version == 6:
            continue
        addresses = (VIP if sender.version == 4 else VIP6,) * count
        advert = Advert(51, priority, 100, addresses, sender, version=version)
        made.append(encode(advert, None, Signer().trailer(authentication, advert, message(advert), UTC)))
    return made


def endpoint(authentication: Authentication) -> Endpoint:
    made = Endpoint()
    made.configure(51, 100, {OURS: (VIP,), OURS6: (VIP6,)}, Style(authentication=authentication))
    return made


def state(endpoint: Endpoint) -> object:
    return endpoint.alarm, endpoint._form, endpoint._verifier.skew_s, dict(endpoint._verifier._last)


def opened(version: int, packet: bytes) -> Datagram:
    return open_ipv4(packet) if version == 4 else Datagram(THEIRS6, GROUP6, 255, packet)


def repaired(datagram: Datagram) -> Datagram:
    """With a right checksum, so that what comes after that check is reached, too."""
    payload, pseudo = datagram.payload, b""
    end = len(payload)
    if datagram.source.version == 6:
        pseudo = datagram.source.packed + datagram.destination.packed + struct.pack("!II", end, PROTOCOL)
    else:  # what follows the addresses is not covered, but for version 2's authentication data
        end = 8 + 4 * payload[3] + (8 if payload[0] >> 4 == 2 else 0)
    right = checksum(pseudo + payload[:6] + bytes(2) + payload[8:end])
    payload = payload[:6] + right.to_bytes(2, "big") + payload[8:]
    return Datagram(datagram.source, datagram.destination, datagram.hop_limit, payload)


def fuzz_vrrp(version: int, authentication: Authentication, number: int) -> tuple[int, int]:
    """One chunk: (inputs, how many were rejected)."""
    router = endpoint(authentication)
    seeds = (
        [*map(ip_packet, adverts("192.0.2.2", authentication))] if version == 4 else adverts("fe80::2", authentication)
    )
    fed = rejected = 0
    before = state(router)
    packets = mutants(seeds, CHUNK, number)
    again: Datagram | None = None  # the last one, repaired
    while fed < CHUNK:
        fed += 1
        try:
            datagram, again = again or opened(version, next(packets)), None
            router.receive(datagram, 0, UTC)
            before = state(router)
        except Rejected as error:
            rejected += 1
            assert state(router) == before
            if error.reason is Reason.CHECKSUM:
                again = repaired(datagram)
                assert again != datagram
    return fed, rejected


def fuzz_neighbours(number: int) -> tuple[int, int]:
    seeds = [announcement(MAC, VIP), announcement(MAC, VIP6), probe(MAC, OURS, VIP), probe(MAC, OURS6, VIP6)]
    return CHUNK, sum(answered(frame) is None for frame in mutants(seeds, CHUNK, number))


FUZZERS = {
    "VRRP over IPv4": partial(fuzz_vrrp, 4, Authentication()),
    "VRRP over IPv4, signed": partial(fuzz_vrrp, 4, ENFORCE),
    "VRRP over IPv6": partial(fuzz_vrrp, 6, Authentication()),
    "VRRP over IPv6, signed": partial(fuzz_vrrp, 6, ENFORCE),
    "ARP and ND": fuzz_neighbours,
}


@pytest.mark.parametrize("parser", FUZZERS)
def test_mutated_packets_are_rejected_or_read(parser: str) -> None:
    wanted, fed, rejected, began = INPUTS // len(FUZZERS), 0, 0, time.monotonic()
    with multiprocessing.get_context("fork").Pool(cores()) as pool:
        chunks = range(-(-wanted // CHUNK))
        for inputs, refused in pool.imap_unordered(FUZZERS[parser], chunks):
            fed, rejected = fed + inputs, rejected + refused
    print(f"\n{parser}: {fed} inputs, {rejected} rejected, {fed / (time.monotonic() - began):.0f}/s")
    assert fed >= wanted
    assert 0 < rejected < fed  # what no check covers, or a flip that flips back, is accepted
