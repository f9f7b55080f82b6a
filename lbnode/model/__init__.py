"""The vocabulary of lbnode as frozen values. Pure: no I/O, no clock, imports only healthcheck.spec.

A virtual service's id *is* its match condition (`tcp:192.0.2.10:80`, `fwmark:7`), so two services with the same
match cannot exist. Durations are float seconds and end in `_s`; addresses are `ipaddress` objects.

Everybody imports from here; the modules are for reading: identity (ids), services, vip_groups, settings, config (all
that is configured), programmed (what the data plane holds), traffic (counters, connections).
"""

from lbnode.model.config import Config, Problem, Severity
from lbnode.model.identity import (
    Address,
    L4Protocol,
    Netmask,
    Network,
    ServerId,
    ServiceId,
    format_endpoint,
    parse_endpoint,
)
from lbnode.model.programmed import ObjectStatus, Programmed, ProgrammedServer, ProgrammedService
from lbnode.model.services import (
    GENERIC_FLAGS,
    IPIP,
    MAX_WEIGHT,
    PERSISTENCE_ENGINES,
    SCHEDULER_FLAGS,
    SCHEDULERS,
    Access,
    ConnectionRate,
    ForwardingMethod,
    OwnTimeouts,
    RealServer,
    Tunnel,
    TunnelChecksum,
    TunnelType,
    VirtualService,
    WhenAllDown,
    WhenDown,
    flags_of,
)
from lbnode.model.settings import DEFAULT_SYNC_GROUP, DropRules, Settings, SyncDaemon, Timeouts
from lbnode.model.traffic import Admission, Connection, Counters, Rates, ServiceCounters
from lbnode.model.vip_groups import Role, Track, VipAddress, VipGroup, VrrpState

__all__ = [
    "DEFAULT_SYNC_GROUP",
    "GENERIC_FLAGS",
    "IPIP",
    "MAX_WEIGHT",
    "PERSISTENCE_ENGINES",
    "SCHEDULERS",
    "SCHEDULER_FLAGS",
    "Access",
    "Address",
    "Admission",
    "Config",
    "Connection",
    "ConnectionRate",
    "Counters",
    "DropRules",
    "ForwardingMethod",
    "L4Protocol",
    "Netmask",
    "Network",
    "ObjectStatus",
    "OwnTimeouts",
    "Problem",
    "Programmed",
    "ProgrammedServer",
    "ProgrammedService",
    "Rates",
    "RealServer",
    "Role",
    "ServerId",
    "ServiceCounters",
    "ServiceId",
    "Settings",
    "Severity",
    "SyncDaemon",
    "Timeouts",
    "Track",
    "Tunnel",
    "TunnelChecksum",
    "TunnelType",
    "VipAddress",
    "VipGroup",
    "VirtualService",
    "VrrpState",
    "WhenAllDown",
    "WhenDown",
    "flags_of",
    "format_endpoint",
    "parse_endpoint",
]
