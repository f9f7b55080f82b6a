"""The enumerations and flags of lb.h; what each member means is documented there."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, IntFlag


class State(IntEnum):
    """`enum conn_state`; the names are IPVS's."""

    NONE = 0
    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT = 4
    TIME_WAIT = 5
    CLOSE = 6
    CLOSE_WAIT = 7
    LAST_ACK = 8
    LISTEN = 9
    SYNACK = 10
    UDP = 11
    TEMPLATE = 12


class Scheduler(IntEnum):
    """`enum scheduler`: those that the data plane knows."""

    RR = 1
    WRR = 2
    WLC = 3
    SH = 4
    MH = 5
    LC = 6
    SED = 7
    NQ = 8
    FO = 9
    OVF = 10
    DH = 11
    LBLC = 12
    LBLCR = 13
    TWOS = 14


SCHEDULERS: Mapping[str, Scheduler] = {member.name.lower(): member for member in Scheduler}


class ServiceFlag(IntFlag):
    FLAG_1 = 1
    FLAG_2 = 2
    FLAG_3 = 4
    ONE_PACKET = 8
    MARKED = 16
    ALL_PORTS = 32
    SYN_PROXY = 64
    LISTS = 128
    RATE = 256


class ServerFlag(IntFlag):
    HOP = 1
    GONE = 2
    KEEP_PORT = 4
    TUNNEL_CHECKSUM = 8
    TUNNEL_REMOTE = 16
    LOCAL = 32
    TOA = 64
    CLAMP = 128


class ConfigFlag(IntFlag):
    SYNC = 1
    DROP_IP_OPTIONS = 2
    DROP_BAD_CHECKSUMS = 4
    SUCCESSOR = 8


class Event(IntEnum):
    """`enum event`."""

    ENTRIES = 0
    EVICTED = 1
    UNTRACKED = 2
    NO_CONNECTION = 3
    FRAGMENT = 4
    NO_NEIGHBOUR = 5
    STACK = 6
    ECHO = 7
    ICMP_TRANSLATED = 8
    ICMP_SENT = 9
    SYNC_LOST = 10
    IMPORTED = 11
    TOA_LEFT_OUT = 12
    COOKIE_SENT = 13
    COOKIE_ACCEPTED = 14
    COOKIE_REFUSED = 15
    DROP_NO_SERVER = 16
    DROP_TABLE_FULL = 17
    DROP_SERVER_GONE = 18
    DROP_IP_HEADER = 19
    DROP_TOO_BIG = 20
    DROP_NO_ROUTE = 21
    DROP_TTL = 22
    DROP_ERROR = 23
    DROP_NO_LEASE = 24
    DROP_SOLICITATION = 25
    DROP_CLAIM = 26
    DROP_BUNDLE = 27
    DROP_NO_LOCAL_PORT = 28
    DROP_NOT_OPEN = 29
    DROP_IP_CHECKSUM = 30
    DROP_L4_HEADER = 31
    DROP_L4_CHECKSUM = 32
    DROP_TCP_FLAGS = 33
    DROP_LAND = 34
    DROP_IP_OPTIONS = 35
    DROP_DENIED = 36
    DROP_RATE = 37
    DROP_UNFRAGMENTED = 38
    DROP_OVERLOADED = 39

    @property
    def label(self) -> str:
        """For people and /metrics: `no-server` of DROP_NO_SERVER."""
        return self.name.removeprefix("DROP_").lower().replace("_", "-")


FIRST_DROP = 16


class AccessKind(IntEnum):
    """`enum access`."""

    ALLOW = 1
    DENY = 2
    OTHERS = 3
