"""Who may open connections: lists of prefixes, and the rate of new connections, beside models in Python."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random

import pytest

from lbnode.dataplane.xdp.layout import Event
from lbnode.model import Access, ConnectionRate, Network, ProgrammedService, ServiceId
from tests.packets.bench import Bench
from tests.packets.traffic import client_of, ip, tcp, udp
from tests.packets.wire import CLIENT, VIP, VIP6

pytestmark = pytest.mark.root
both_families = pytest.mark.parametrize("vip", [VIP, VIP6])


def lists(allow: str = "", deny: str = "") -> Access:
    return Access(frozenset(map(ip_network, allow.split())), frozenset(map(ip_network, deny.split())))


def served(bench: Bench, vip: str, access: Access, protocol: str = "tcp", **fields: bool) -> ServiceId:
    text, server = (vip, "198.51.100.11") if ":" not in vip else (f"[{vip}]", "[2001:db8:b::11]")
    service = bench.service(f"{protocol}:{text}:80", access=access, **fields)
    bench.server(service, f"{server}:8080")
    return service


CASES = [
    ("", "", "203.0.113.5", True),
    ("203.0.113.0/24", "", "203.0.113.5", True),
    ("203.0.112.0/24", "", "203.0.113.5", False),
    ("", "203.0.113.5/32", "203.0.113.5", False),
    ("", "203.0.113.5/32", "203.0.113.6", True),
    ("203.0.113.0/24", "203.0.113.0/25", "203.0.113.5", False),
    ("203.0.113.0/24 203.0.113.5/32", "203.0.113.0/25", "203.0.113.5", True),
    ("", "0.0.0.0/0", "203.0.113.5", False),
    ("0.0.0.0/0", "203.0.113.0/24", "203.0.113.5", False),
    ("2001:db8:c::/48", "", "2001:db8:c::5", True),
    ("2001:db8:d::/48", "", "2001:db8:c::5", False),
    ("", "2001:db8:c::5/128", "2001:db8:c::5", False),
    ("", "::/0", "2001:db8:c::5", False),
    ("2001:db8:c::/64", "::/0", "2001:db8:c::5", True),
    ("::/0", "2001:db8:c::/64", "2001:db8:c::5", False),
]


@pytest.mark.parametrize(("allow", "deny", "client", "let_in"), CASES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_longest_prefix_decides(
    bench: Bench, allow: str, deny: str, client: str, protocol: str, *, let_in: bool
) -> None:
    vip = VIP6 if ":" in client else VIP
    served(bench, vip, lists(allow, deny), protocol)
    packet = (tcp if protocol == "tcp" else udp)(vip=vip, client=client, dport=80)
    assert bench.send(packet).verdict == ("send" if let_in else "drop")
    assert bench.events() == ({} if let_in else {Event.DROP_DENIED: 1}) and len(bench.records()) == let_in


def may(access: Access, client: IPv4Address | IPv6Address) -> bool:
    """The model: longest match, by looking at every network."""
    known = [(one.prefixlen, True) for one in access.allow if client in one]
    known += [(one.prefixlen, False) for one in access.deny if client in one]
    return max(known)[1] if known else not access.allow


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_any_lists_beside_the_model(bench: Bench, family: int, seed: int) -> None:
    """Two services with lists of their own, changed again and again; they survive being read back from the maps."""
    dice, vip = Random(f"{family} {seed}"), VIP if family == 4 else VIP6
    base = ip_address("203.0.113.0" if family == 4 else "2001:db8:c::")
    bits = base.max_prefixlen

    def network() -> Network:
        length = dice.choice((0, *range(bits - 8, bits + 1)))
        return ip_network((int(base) + dice.randrange(256), length), strict=False)

    def some() -> frozenset[Network]:
        return frozenset(network() for _ in range(dice.randrange(5)))

    for turn in range(8):
        allow, other = some(), Access(some(), frozenset())
        access = Access(allow, some() - allow)
        service = served(bench, vip, access)
        served(bench, vip, other, "udp")
        for last in dice.sample(range(256), 12):
            client = base + last
            for which, make in ((access, tcp), (other, udp)):
                out = bench.send(make(1000 + turn, vip=vip, client=str(client), dport=80))
                assert out.verdict == ("send" if may(which, client) else "drop"), (which, client)
        found = bench.tables._prefixes.__class__(bench.maps)
        read = found.load({one.entry.index: family for one in bench.tables.services.values()})
        index = bench.tables.services[service].entry.index
        assert read.get(index, Access()) == access
    for one in list(bench.tables.services):
        bench.remove(one)
    assert list(bench.maps["prefixes"].items()) == []


@both_families
def test_connections_that_are_open_stay(bench: Bench, vip: str) -> None:
    service = served(bench, vip, Access())
    bench.establish(vip=vip)
    bench.tables.put_service(
        ProgrammedService(service, "rr", access=lists(deny=f"{client_of(vip)}/{32 if vip == VIP else 128}"))
    )
    assert bench.send(tcp(flags="A", vip=vip)).verdict == "send"
    assert bench.send(tcp(40001, vip=vip)).verdict == "drop" and bench.events() == {Event.DROP_DENIED: 1}


def test_datagrams_without_entries_are_each_asked(bench: Bench) -> None:
    service = served(bench, VIP, Access(), "udp", one_packet=True)
    assert bench.send(udp(dport=80)).verdict == "send"
    bench.tables.put_service(ProgrammedService(service, "rr", access=lists(deny="203.0.113.0/24"), one_packet=True))
    assert bench.send(udp(dport=80)).verdict == "drop"


# --- rate -----------------------------------------------------------------------------------------------------------


class Bucket:
    """The model, in exact thousandths of a connection."""

    def __init__(self, rate: ConnectionRate, now_ms: int) -> None:
        self.rate, self.tokens, self.at = rate, rate.burst * 1000, now_ms

    def take(self, now_ms: int) -> bool:
        self.tokens = min(self.rate.burst * 1000, self.tokens + (now_ms - self.at) * self.rate.rate)
        self.at = now_ms
        if self.tokens < 1000:
            return False
        self.tokens -= 1000
        return True


@both_families
@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (3, 2), (100, 200), (999, 1), (1_000_000, 4_000_000)])
def test_the_rate_beside_the_model(bench: Bench, vip: str, rate: int, burst: int) -> None:
    limit = ConnectionRate(rate, burst, 24 if vip == VIP else 64)
    served(bench, vip, Access(rate=limit))
    bench.configure(icmp_rate=0)
    dice, buckets, port, refused = Random(rate), dict[str, Bucket](), 1024, 0
    for _ in range(120):
        net = dice.choice(("203.0.113", "172.16.0") if vip == VIP else ("2001:db8:c:", "2001:db8:c:1"))
        client = f"{net}.{dice.randrange(1, 250)}" if vip == VIP else f"{net}:{dice.randrange(1, 250):x}"
        if vip != VIP:
            client = str(ip_address(f"{net}:1:2:3:{dice.randrange(1, 250):x}" if net.endswith("1") else client))
        source = str(ip_network((client, limit.prefix_len), strict=False))
        bench.advance(dice.choice((0, 0, 0.001, 0.007, 0.3, 1.0)))
        port += 1
        let_in = buckets.setdefault(source, Bucket(limit, bench.now_ms)).take(bench.now_ms)
        verdict = bench.send(tcp(port, vip=vip, client=client)).verdict
        assert (verdict != "drop") == let_in, (source, port)
        refused += not let_in
    assert bench.event(Event.DROP_RATE) == refused and (refused > 0) == (burst < 100)


def test_segments_of_open_connections_and_those_without_syn_are_not_counted(bench: Bench) -> None:
    service = bench.service(scheduler="sh", access=Access(rate=ConnectionRate(1, 1, 32)))
    bench.server(service, "198.51.100.11:8080")
    bench.establish()
    for port in range(50000, 50005):  # found again by the hash, as after a failover
        assert bench.send(tcp(port, "A")).verdict == "send"
    assert bench.send(tcp(40001)).verdict == "drop" and bench.events() == {Event.DROP_RATE: 1}


def test_a_service_that_comes_anew_begins_with_full_buckets(bench: Bench) -> None:
    for port in (1, 3):
        service = served(bench, VIP, Access(rate=ConnectionRate(1, 1, 32)))
        assert bench.send(tcp(port)).verdict == "send" and bench.send(tcp(port + 1)).verdict == "drop"
        bench.remove(service)
    assert list(bench.maps["sources"].items()) == []


def test_the_clock_wraps(bench: Bench) -> None:
    served(bench, VIP, Access(rate=ConnectionRate(10, 1, 32)))
    bench.now_ms = 0xFFFFFFFF - 50
    bench.advance(0)
    assert bench.send(tcp(1)).verdict == "send" and bench.send(tcp(2)).verdict == "drop"
    bench.advance(0.099)
    assert bench.send(tcp(3)).verdict == "drop"
    bench.advance(0.001)
    assert bench.send(tcp(4)).verdict == "send"


def test_a_denied_client_takes_no_tokens(bench: Bench) -> None:
    access = Access(deny=frozenset({ip_network("203.0.113.64/26")}), rate=ConnectionRate(1, 1, 24))
    served(bench, VIP, access)
    assert bench.send(tcp(client="203.0.113.70")).verdict == "drop"
    assert bench.send(ip(CLIENT, VIP) / tcp().payload).verdict == "send"
    assert bench.events() == {Event.DROP_DENIED: 1}
