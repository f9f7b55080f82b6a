"""Ping probes to the loopback of a network namespace of our own, by raw sockets and by the kernel's ping sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP

from healthcheck import probes
from healthcheck.probes.ping import checksum
from healthcheck.spec import CheckType
from tests.health.servers import target
from tests.uml.own_netns import own_netns


def test_checksum() -> None:
    packet = IP(bytes(IP() / ICMP(type=8, id=7, seq=1) / (b"\xff\xff" * 40)))
    body = bytes(packet[ICMP])
    assert checksum(body[:2] + b"\0\0" + body[4:]) == packet[ICMP].chksum


SYSCTL = Path("/proc/sys/net/ipv4")  # of the namespace that the opening thread is in


@pytest.fixture(params=["ping socket", "raw socket"])
def namespace(request: pytest.FixtureRequest) -> Iterator[None]:
    with own_netns():
        allowed = "0 2147483647" if request.param == "ping socket" else "1 0"
        (SYSCTL / "ping_group_range").write_text(allowed)
        yield


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_echo_is_healthy(namespace: None, address: str) -> None:
    result = await probes.start(target(0, CheckType.PING, address))
    assert result.ok and result.reason == "" and 0 < result.latency_s < 5


@pytest.mark.root
async def test_many_at_once_do_not_take_each_others_answers(namespace: None) -> None:
    started = [probes.start(target(0, CheckType.PING, f"127.0.0.{number}")) for number in range(1, 200)]
    assert all([(await probe).ok for probe in started])


@pytest.mark.root
async def test_silence_is_a_timeout(namespace: None) -> None:
    (SYSCTL / "icmp_echo_ignore_all").write_text("1")
    result = await probes.start(target(0, CheckType.PING, timeout_s=0.2))
    assert not result.ok and result.reason == "timeout after 0.2 s waiting for the answer"


@pytest.mark.root
async def test_no_way_to_the_server(namespace: None) -> None:
    result = await probes.start(target(0, CheckType.PING, "192.0.2.1"))
    assert not result.ok and result.reason == "no route to the server's network"
