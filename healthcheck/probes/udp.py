"""UDP probe: a datagram is answered as expected, or at least not turned away.

Without an expected answer all that can be seen is an ICMP error: silence until the deadline is healthy.
"""

from __future__ import annotations

from healthcheck.probes.datagram import Conversation, converse, udp_socket
from healthcheck.probes.errors import ProbeFailed
from healthcheck.probes.sockets import address_of
from healthcheck.spec import Result, Target, UdpSpec

SHOWN_BYTES = 16


async def probe(target: Target) -> Result:
    """One datagram; the first that comes back counts."""
    spec = target.spec.udp or UdpSpec()

    async def talk(server: Conversation) -> None:
        await server.send(bytes.fromhex(spec.payload))
        answer = await server.receive()
        if spec.reply and not begins_with(answer, spec.reply):
            shown = answer[:SHOWN_BYTES].hex() + ("..." if len(answer) > SHOWN_BYTES else "")
            raise ProbeFailed(f"answer {shown or 'without content'} does not begin with {spec.reply}")

    return await converse(
        target, udp_socket(target), talk, address_of(target)[1], silence_is_healthy=spec.reply is None
    )


def begins_with(data: bytes, pattern: str) -> bool:
    """`pattern`: hexadecimal digits, x for any."""
    digits = data.hex()
    return len(digits) >= len(pattern) and all(
        wanted in ("x", digit) for wanted, digit in zip(pattern.lower(), digits, strict=False)
    )
