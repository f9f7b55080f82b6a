"""UDP probes against real sockets on loopback."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthcheck import probes
from healthcheck.probes.udp import begins_with
from healthcheck.spec import CheckType, Result, UdpSpec
from tests.health.servers import serve_datagrams, target


async def ask(spec: UdpSpec, *answers: bytes, timeout_s: float = 5.0) -> tuple[Result, list[bytes]]:
    seen: list[bytes] = []

    def answer(data: bytes) -> tuple[bytes, ...]:
        seen.append(data)
        return answers

    async with serve_datagrams(answer) as port:
        return await probes.start(target(port, CheckType.UDP, udp=spec, timeout_s=timeout_s)), seen


@pytest.mark.parametrize(
    ("reply", "answer", "reason"),
    [
        ("", b"\x07", ""),
        ("01", b"\x01\x02", ""),
        ("01x2", b"\x01\xf2", ""),
        ("ABx", b"\xab\xc0", ""),
        ("0102", b"\x01", "answer 01 does not begin with 0102"),
        ("xx02", b"\x01\x03", "answer 0103 does not begin with xx02"),
        ("00", b"\x01" * 20, f"answer {'01' * 16}... does not begin with 00"),
    ],
)
async def test_the_answer_is_as_expected(reply: str, answer: bytes, reason: str) -> None:
    result, seen = await ask(UdpSpec("c0ffee", reply), answer)
    assert (result.ok, result.reason, seen) == (not reason, reason, [b"\xc0\xff\xee"])


async def test_an_answer_that_does_not_come() -> None:
    result, _ = await ask(UdpSpec("00", ""), timeout_s=0.2)
    assert not result.ok and result.reason == "timeout after 0.2 s waiting for the answer"


async def test_silence_is_healthy_where_no_answer_is_expected() -> None:
    result, seen = await ask(UdpSpec("00"), timeout_s=0.2)
    assert result.ok and result.latency_s >= 0.2 and seen == [b"\0"]


@pytest.mark.parametrize("reply", [None, "", "00"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_port_where_nobody_listens(reply: str | None, address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    result = await probes.start(target(port, CheckType.UDP, address, udp=UdpSpec("00", reply)))
    assert not result.ok and result.reason == "port unreachable"


@given(st.binary(max_size=8), st.binary(max_size=8), st.sets(st.integers(0, 15)))
def test_a_pattern_fits_what_it_was_made_of(start: bytes, rest: bytes, holes: set[int]) -> None:
    pattern = "".join("x" if position in holes else digit for position, digit in enumerate(start.hex()))
    assert begins_with(start + rest, pattern)
    assert begins_with(start[:-1], pattern) == (not start)
