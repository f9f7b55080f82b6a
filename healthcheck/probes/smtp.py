"""SMTP probe: a mail server greets, takes a HELO, and lets us go (RFC 5321)."""

from __future__ import annotations

import re
import socket

from healthcheck.probes.channel import Channel, attempt
from healthcheck.probes.errors import ProbeFailed
from healthcheck.spec import Result, SmtpSpec, Target

MAX_REPLY_BYTES = 16 * 1024  # of one reply with all its lines
SHOWN_CHARACTERS = 100
_LAST_LINE = re.compile(rb"^(\d{3})(?: ([^\r\n]*))?\r?\n", re.MULTILINE)  # section 4.2.1: others have a hyphen


async def probe(target: Target) -> Result:
    """One session, within spec.timeout_s from connect to the answer to QUIT."""
    return await attempt(target, _session)


async def _session(target: Target, channel: Channel) -> None:
    """ProbeFailed says which reply was not as expected."""
    spec = target.spec.smtp or SmtpSpec()
    await channel.connect()
    await _expect(channel, "greeting", 220)
    await channel.send(b"HELO %s\r\n" % (spec.helo or socket.gethostname()).encode("ascii", "replace"))
    await _expect(channel, "answer to HELO", 250)
    await channel.send(b"QUIT\r\n")
    await _expect(channel, "answer to QUIT", 221)


async def _expect(channel: Channel, what: str, code: int) -> None:
    channel.phase = f"waiting for the {what}"
    received = b""
    while (last := _LAST_LINE.search(received)) is None:
        if len(received) > MAX_REPLY_BYTES:
            raise ProbeFailed(f"{what}: not SMTP")
        data = await channel.receive()
        if not data:
            raise ProbeFailed(f"{what}: the server closed the connection")
        received += data
    if int(last[1]) != code:
        text = "".join(c if c.isprintable() else " " for c in (last[2] or b"").decode("utf-8", "replace"))
        raise ProbeFailed(f"{what}: {last[1].decode()} {text}".rstrip()[:SHOWN_CHARACTERS])
