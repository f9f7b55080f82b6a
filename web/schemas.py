"""What goes over HTTP beside control.py's own types: request bodies (validated) and the envelopes of lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lbnode.capture import MAX_COUNT, MAX_RATE, MAX_SECONDS, MAX_SNAP
from lbnode.control import ServiceInfo
from lbnode.explanation import MAX_LENGTH
from lbnode.journal import Event
from lbnode.model import MAX_WEIGHT, Problem
from lbnode.tuning.kernel import SysctlFinding


class Body(BaseModel):
    """Strict: a number in quotes, or a field nobody reads, is a mistake worth telling."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DiffBody(Body):
    document: dict[str, Any]
    prune: bool = Field(default=False, description="Count what the document does not name as deleted.")


class ApplyBody(Body):
    document: dict[str, Any]
    prune: bool = Field(default=False, description="Delete what the document does not name.")
    expect_revision: int | None = Field(default=None, ge=0, description="Refuse (409) if changed after this revision.")
    dry_run: bool = Field(default=False, description="Report what would change, change nothing.")


class ChangesBody(Body):
    put: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Relative key -> document.")
    delete: list[str] = Field(default_factory=list, description="Relative keys; a service's servers go with it.")
    expect_revision: int | None = Field(default=None, ge=0)
    dry_run: bool = False


class ServerPatch(Body):
    """Only the fields that are present are changed."""

    weight: int = Field(default=1, ge=0, le=MAX_WEIGHT)
    drain: bool = Field(default=False, description="Effective weight 0: established connections stay.")
    forward: Literal["masquerade", "direct", "tunnel", "fullnat"] = "masquerade"
    upper_threshold: int = Field(default=0, ge=0)
    lower_threshold: int = Field(default=0, ge=0)


class ZeroBody(Body):
    service: str | None = Field(default=None, description="Service id; null = all services.")


class EventsQuery(BaseModel):
    """Query strings are text, so not strict."""

    model_config = ConfigDict(extra="forbid")

    since: int = Field(default=0, ge=0, description="Events newer than this sequence number.")
    limit: int = Field(default=500, ge=1, le=2000, description="At most the newest N of them.")


class ConnectionsQuery(BaseModel):
    """Which connections; all of it at once, empty = any."""

    model_config = ConfigDict(extra="forbid")

    service: str = Field(default="", description="Its id, tcp:192.0.2.10:80.")
    server: str = Field(default="", description="ADDRESS:PORT.")
    client: str = Field(default="", description="Address or prefix, 203.0.113.0/24.")
    state: str = Field(default="", description="ESTABLISHED, SYN_RECV, ... as listed.")
    limit: int = Field(default=0, ge=0, description="At most so many; 0 = all of them.")


class HandoverQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    to: str = ""  # the node that shall take over; empty: the best one


class ExplainQuery(BaseModel):
    """One packet, as it would come in."""

    model_config = ConfigDict(extra="forbid")

    protocol: Literal["tcp", "udp", "sctp"]
    source: str = Field(description="ADDRESS:PORT of its sender.")
    target: str = Field(description="ADDRESS:PORT it is for.")
    interface: str = Field(default="", description="It comes in here; empty = where answers to its sender leave.")
    mark: int = Field(default=0, ge=0, lt=2**32, description="Firewall mark.")
    length: int = Field(default=0, ge=0, le=MAX_LENGTH, description="Bytes of the IP packet; 0 = headers alone.")


class CaptureBody(Body):
    """Which packets (all that is given must hold), and how many at most."""

    service: str = Field(default="", description="Service id; both directions.")
    server: str = Field(default="", description="ADDRESS or ADDRESS:PORT of a real server.")
    client: str = Field(default="", description="ADDRESS or ADDRESS/BITS that either end is in.")
    protocol: str = Field(default="", description="tcp, udp, sctp, icmp or icmp6.")
    port: int = Field(default=0, ge=0, le=65535, description="Of either end; 0 = any.")
    verdicts: list[str] = Field(default=[], description="to-server, to-client, dropped, passed, answered; none = all.")
    reason: str = Field(default="", description="Why it is dropped: a name of the drop counters.")
    count: int = Field(default=1000, ge=1, le=MAX_COUNT, description="Packets.")
    seconds: float = Field(default=60.0, gt=0, le=MAX_SECONDS)
    snap: int = Field(default=256, ge=14, le=MAX_SNAP, description="Bytes of each frame.")
    rate: int = Field(default=1000, ge=1, le=MAX_RATE, description="Packets per second; others are left out.")


@dataclass(frozen=True, slots=True)
class ServiceList:
    services: Sequence[ServiceInfo]


@dataclass(frozen=True, slots=True)
class Document:
    revision: int
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventList:
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class SysctlList:
    findings: Sequence[SysctlFinding]


@dataclass(frozen=True, slots=True)
class Session:
    """How this request is authenticated; `csrf` goes into X-CSRF-Token with each change (empty: not needed)."""

    node: str
    authenticated_by: str  # "cookie" | "bearer" | "socket"
    csrf: str


@dataclass(frozen=True, slots=True)
class Heir:
    node: str  # gives the VIP group up
    to: str  # takes it over; empty: the best Backup, if there is one, which heartbeats and the store do not tell


@dataclass(frozen=True, slots=True)
class Done:
    done: bool = True


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """kind: config | bad-request | unauthorized | not-found | conflict | limit | data-plane | store-unavailable"""

    kind: str
    message: str
    problems: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class ErrorBody:
    error: ErrorDetail
