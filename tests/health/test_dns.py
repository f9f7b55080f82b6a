"""DNS probes against a small name server on loopback; scapy reads the questions and writes the answers."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR

from healthcheck import probes
from healthcheck.probes.dns import TYPES, question_of
from healthcheck.spec import CheckType, DnsSpec
from tests.health.servers import serve_datagrams, target


async def ask(*answers: bytes | None, spec: DnsSpec | None = None, timeout_s: float = 5.0) -> tuple[str, list[DNS]]:
    """(reason, the questions the server saw); each answer is sent in turn, None stands for the right one."""
    seen = []

    def answer(data: bytes) -> list[bytes]:
        question = DNS(data)
        seen.append(question)
        right = DNS(id=question.id, qr=1, qd=question.qd, an=DNSRR(rrname="x", rdata="192.0.2.1"))
        return [bytes(right) if item is None else item[:2].replace(b"ID", data[:2]) + item[2:] for item in answers]

    async with serve_datagrams(answer) as port:
        result = await probes.start(target(port, CheckType.DNS, dns=spec, timeout_s=timeout_s))
    assert result.ok == (not result.reason)
    return result.reason, seen


async def test_the_default_question_is_for_the_root() -> None:
    reason, [question] = await ask(None)
    assert reason == ""
    assert (question.qr, question.rd, question.qdcount) == (0, 1, 1)
    assert (question.qd[0].qname, question.qd[0].qtype, question.qd[0].qclass) == (b".", TYPES["SOA"], 1)


async def test_a_question_of_ones_own() -> None:
    reason, [question] = await ask(None, spec=DnsSpec("www.example.net", "AAAA"))
    assert reason == ""
    assert (question.qd[0].qname, question.qd[0].qtype) == (b"www.example.net.", 28)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(2, "answer SERVFAIL"), (3, "answer NXDOMAIN"), (5, "answer REFUSED"), (9, "answer with response code 9")],
)
async def test_an_error_is_no_health(code: int, reason: str) -> None:
    assert (await ask(b"ID" + bytes(DNS(qr=1, rcode=code, qd=[]))[2:]))[0] == reason


async def test_what_is_no_answer_to_the_question_is_passed_over() -> None:
    other = bytes(DNS(qr=1, qd=DNSQR(qname="other.example", qtype="SOA")))
    strangers = [b"", b"x", bytes(DNS(id=0, qr=1, rcode=2)), b"ID" + other[2:], b"ID" + bytes(DNS(qr=0, rcode=2))[2:]]
    assert (await ask(*strangers, timeout_s=0.2))[0] == "timeout after 0.2 s waiting for the answer"
    assert (await ask(*strangers, None))[0] == ""


async def test_no_descriptor_is_left_when_it_is_cancelled() -> None:
    async with serve_datagrams(lambda _: []) as port:
        gc.collect()  # what other tests left to it is not closed meanwhile
        before = len(os.listdir("/proc/self/fd"))
        started = [probes.start(target(port, CheckType.DNS)) for _ in range(50)]
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before + 50
        for probe in started:
            probe.cancel()
        ended = await asyncio.gather(*started, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["x" * 60] * 5), "é"])
async def test_a_name_that_is_none_is_the_checks_own_fault(name: str) -> None:
    result = await probes.start(target(9, CheckType.DNS, dns=DnsSpec(name)))
    assert result.reason.startswith("the check's own question: ")


LABEL = st.text("abz09-_", min_size=1, max_size=63)


@given(st.lists(LABEL, max_size=3).map(".".join), st.sampled_from(sorted(TYPES)))
def test_questions_are_what_scapy_reads(name: str, kind: str) -> None:
    question = DNSQR(question_of(name, kind))
    assert question.qname.decode() == (f"{name}." if name else ".")
    assert question.qtype == TYPES[kind]
