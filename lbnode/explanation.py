"""What would become of a packet, and why: the question and the answer of `lbctl explain`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from lbnode.errors import ConfigError
from lbnode.model import L4Protocol, ServerId, format_endpoint, parse_endpoint

MAX_LENGTH = 3000  # BPF_PROG_TEST_RUN gives a packet one page, headroom and the kernel's own notes included


@dataclass(frozen=True, slots=True)
class Question:
    """One packet, as it would come in. Source and target are of one family."""

    protocol: L4Protocol
    source: ServerId
    target: ServerId
    interface: str = ""  # empty: the one that the node's answers to `source` leave by
    mark: int = 0  # firewall mark
    length: int = 0  # bytes of the IP packet, at most MAX_LENGTH; 0 or too few: headers alone

    @classmethod
    def parse(cls, protocol: str, source: str, target: str, interface: str, mark: int, length: int) -> Self:
        """From an operator's words; ConfigError says which of them is wrong."""
        if protocol not in tuple(L4Protocol):
            raise ConfigError(f"protocol: {protocol!r} is none of {', '.join(L4Protocol)}")
        ends = []
        for name, text in (("source", source), ("target", target)):
            try:
                ends.append(ServerId(*parse_endpoint(text)))
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from error
        if ends[0].address.version != ends[1].address.version:
            raise ConfigError(f"target: {target} is of another address family than the source, {source}")
        return cls(L4Protocol(protocol), ends[0], ends[1], interface, mark, length)

    def __str__(self) -> str:
        source, target = (format_endpoint(one.address, one.port) for one in (self.source, self.target))
        return f"{self.protocol} {source} -> {target}"


@dataclass(frozen=True, slots=True)
class NextHop:
    interface: str  # empty: not known
    address: str  # of the neighbour; empty: not known
    mac: str  # empty: not resolved


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server of the service, and whether the scheduler may choose it for a new connection."""

    server: str
    weight: int
    active: int  # connections, before this packet
    inactive: int
    why_not: str  # empty: it may


@dataclass(frozen=True, slots=True)
class Explanation:
    question: str
    packet: str  # what was run through the program: "TCP SYN", "TCP ACK", "UDP", "SCTP INIT", "SCTP DATA"
    interface: str
    hook: str  # "xdp" | "tcx" | "tc"
    verdict: str  # "to-server" | "to-client" | "local" | "passed" (to the network stack) | "answered" | "dropped"
    reason: str  # one word for programs: "new-connection", "connection", "reply", "no-service", a drop reason, ...
    text: str  # the same as a sentence
    service: str = ""
    scheduler: str = ""
    connection: str = ""  # what the connection table has, or gets
    server: str = ""
    forward: str = ""
    next_hop: NextHop | None = None
    before: tuple[str, ...] = ()  # the headers from outside to inside, a line for each
    after: tuple[str, ...] = ()  # as it leaves; empty: it does not
    answer: tuple[str, ...] = ()  # headers of what the sender gets back for it: an ICMP error, a SYN-ACK
    candidates: tuple[Candidate, ...] = ()
    candidates_left_off: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)  # what the program would have counted
    notes: tuple[str, ...] = ()
