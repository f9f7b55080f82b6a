"""DNS probe: a name server answers a question over UDP without error (RFC 1035)."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Mapping
from types import MappingProxyType

from healthcheck.probes.datagram import Conversation, converse, udp_socket
from healthcheck.probes.errors import ProbeFailed
from healthcheck.probes.sockets import address_of
from healthcheck.spec import DnsSpec, Result, Target

# RFC 1035 section 3.2.2; AAAA: RFC 3596; SRV: RFC 2782; RRSIG, DNSKEY: RFC 4034.
TYPES: Mapping[str, int] = MappingProxyType({
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "RRSIG": 46,
    "DNSKEY": 48,
})  # fmt: skip
_CLASS_IN = 1
_HEADER = struct.Struct("!HHHHHH")  # section 4.1.1: ID, flags, then the counts of the four sections
_RESPONSE, _RECURSION_DESIRED, _RCODE = 0x8000, 0x0100, 0x000F
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


async def probe(target: Target) -> Result:
    """Ask once; datagrams that are no answer to this question are passed over."""
    spec = target.spec.dns or DnsSpec()
    number = secrets.randbelow(0x10000)

    async def talk(server: Conversation) -> None:
        try:
            question = question_of(spec.name, spec.type)
        except ValueError as error:
            raise ProbeFailed(f"the check's own question: {error}") from error
        await server.send(_HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0) + question)
        while not _answers(await server.receive(), number, question):
            pass

    return await converse(target, udp_socket(target), talk, address_of(target)[1])


def question_of(name: str, kind: str) -> bytes:
    """The question section (4.1.2). ValueError: not a domain name or no such type."""
    if kind not in TYPES:
        raise ValueError(f"{kind!r} is not a record type")
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")] if name.strip(".") else []
    if any(not 0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise ValueError(f"{name!r} is not a domain name: labels of 1 to 63 bytes, 253 together")
    encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return encoded + struct.pack("!HH", TYPES[kind], _CLASS_IN)


def _answers(message: bytes, number: int, question: bytes) -> bool:
    """ProbeFailed if it answers with an error. A server that cannot read questions repeats none."""
    if len(message) < _HEADER.size:
        return False
    identifier, flags, questions, *_ = _HEADER.unpack_from(message)
    if identifier != number or not flags & _RESPONSE:
        return False
    repeated = message[_HEADER.size : _HEADER.size + len(question)]
    if questions and repeated.lower() != question.lower():
        return False
    if rcode := flags & _RCODE:
        raise ProbeFailed(f"answer {_RCODES.get(rcode, f'with response code {rcode}')}")
    return True
