"""A million mutated packets against the parsers of the election: nothing but their own reject, and no state changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from lbnode.election.authentication import Authentication, Mode, Signer
from lbnode.election.endpoint import Endpoint, Style
from lbnode.election.neighbour import announcement, answered, probe
from lbnode.election.packet import Advert, Datagram, Rejected, encode, message, open_ipv4
from tests.unit.test_election_packet import ip_packet

INPUTS = 1_000_000
OURS, THEIRS, VIP = (ip_address(f"192.0.2.{n}") for n in (1, 2, 10))
OURS6, THEIRS6, VIP6 = ip_address("fe80::1"), ip_address("fe80::2"), ip_address("2001:db8::10")
GROUP6 = ip_address("ff02::12")
ENFORCE = Authentication(Mode.ENFORCE, {1: bytes(32)}, 1)
UTC = 1_800_000_000_000_000_000


def mutants(seeds: list[bytes], count: int, seed: int) -> list[bytes]:
    """`count` packets: of each seed a few bytes overwritten, and every eighth cut, every eighth extended."""
    rng = random.Random(seed)
    noise = rng.randbytes(1 << 16)
    made = []
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
        made.append(bytes(base))
    return made


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


def feed(endpoint: Endpoint, packets: list[bytes], opened: Callable[[bytes], Datagram]) -> int:
    """The number of rejected packets."""
    rejected, before = 0, state(endpoint)
    for packet in packets:
        try:
            endpoint.receive(opened(packet), 0, UTC)
            before = state(endpoint)
        except Rejected:
            rejected += 1
            assert state(endpoint) == before
    return rejected


@pytest.mark.parametrize("authentication", [Authentication(), ENFORCE], ids=["plain", "signed"])
@pytest.mark.parametrize("version", [4, 6])
def test_vrrp(version: int, authentication: Authentication) -> None:
    count = INPUTS * 3 // 20
    if version == 4:
        seeds = [ip_packet(payload) for payload in adverts("192.0.2.2", authentication)]
        opened: Callable[[bytes], Datagram] = open_ipv4
    else:
        seeds = adverts("fe80::2", authentication)

        def opened(packet: bytes) -> Datagram:
            return Datagram(THEIRS6, GROUP6, 255, packet)

    rejected = feed(endpoint(authentication), mutants(seeds, count, version), opened)
    assert count * 9 // 10 < rejected < count  # a flip that flips back, or in what no check covers, is accepted


def test_arp_and_neighbour_discovery() -> None:
    count = INPUTS * 4 // 10
    mac = bytes.fromhex("020000000001")
    seeds = [announcement(mac, VIP), announcement(mac, VIP6), probe(mac, OURS, VIP), probe(mac, OURS6, VIP6)]
    told = [answered(frame) for frame in mutants(seeds, count, 1)]
    assert 0 < sum(found is not None for found in told) < count
