"""SMTP probes against small servers on loopback, and against one that is well known."""

from __future__ import annotations

import asyncio

import pytest

from healthcheck import probes
from healthcheck.spec import CheckType, Result, SmtpSpec
from tests.health.servers import Handler, serve, target


def speaking(*replies: bytes, said: list[bytes] | None = None) -> Handler:
    """Sends the first reply, and each further one after a line of the client; then closes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number, reply in enumerate(replies):
            if number:
                line = await reader.readline()
                if said is not None:
                    said.append(line)
            writer.write(reply)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    return handler


async def run(handler: Handler, helo: str = "lb.example", timeout_s: float = 5.0) -> Result:
    async with serve(handler) as port:
        return await probes.start(target(port, CheckType.SMTP, smtp=SmtpSpec(helo), timeout_s=timeout_s))


async def test_a_session() -> None:
    said: list[bytes] = []
    result = await run(speaking(b"220 mail ready\r\n", b"250 hello\r\n", b"221 bye\r\n", said=said))
    assert result.ok and said == [b"HELO lb.example\r\n", b"QUIT\r\n"]


async def test_replies_of_several_lines_and_in_pieces() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (b"2", b"20-mail\r\n220-rea", b"dy\r\n22", b"0 now\r", b"\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await reader.readline()
        writer.write(b"250-hello\r\n250 there\r\n")
        await reader.readline()
        writer.write(b"221\r\n")
        await reader.read()

    assert (await run(handler)).reason == ""


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ((b"554 not you\r\n",), "greeting: 554 not you"),
        ((b"220 hi\r\n", b"501 who\x1b?\r\n"), "answer to HELO: 501 who ?"),
        ((b"220 hi\r\n", b"250 ok\r\n", b"500\r\n"), "answer to QUIT: 500"),
        ((b"220 hi\r\n", b"421 going down\r\n"), "answer to HELO: 421 going down"),
        ((b"",), "greeting: the server closed the connection"),
        ((b"220-never ends\r\n" * 2000,), "greeting: not SMTP"),
        ((b"SSH-2.0-x\r\n",), "greeting: the server closed the connection"),
    ],
)
async def test_what_is_not_as_expected(replies: tuple[bytes, ...], reason: str) -> None:
    result = await run(speaking(*replies))
    assert not result.ok and result.reason == reason


async def test_no_greeting_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert (await run(silent, timeout_s=0.2)).reason == "timeout after 0.2 s waiting for the greeting"


async def test_the_name_of_this_machine_is_the_default() -> None:
    said: list[bytes] = []
    await run(speaking(b"220 a\r\n", b"250 b\r\n", b"221 c\r\n", said=said), helo="")
    assert len(said[0].split()) == 2
