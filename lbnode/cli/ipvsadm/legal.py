"""Which command of ipvsadm(8) takes which option, and which options exclude each other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType

from lbnode.cli.ipvsadm.values import GrammarError
from lbnode.model import TunnelType

# ipvsadm's names of options in the order in which it checks them: the first that is wrong is the one complained of.
CHECKED = (
    "numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server",
    "forwarding-method", "weight", "u-threshold", "l-threshold", "mcast-interface", "timeout", "daemon", "stats",
    "rate", "thresholds", "persistent-conn", "nosort", "syncid", "exact", "ops", "pe", "sched-flags", "mcast-group",
    "mcast-port", "mcast-ttl", "sync-maxlen", "tun-info", "tun-type", "tun-port", "tun-nocsum", "tun-csum",
    "tun-remcsum",
)  # fmt: skip
# Options that have another name in complaints; "" are looked at by no check and may be repeated.
OPTION_NAMES: Mapping[str, str] = MappingProxyType({
    "tcp-service": "service-address", "udp-service": "service-address", "sctp-service": "service-address",
    "fwmark-service": "service-address", "gatewaying": "forwarding-method", "masquerading": "forwarding-method",
    "ipip": "forwarding-method", "fullnat": "forwarding-method", "ipv6": "", "sort": "",
})  # fmt: skip

_SERVICE = frozenset({"service-address"})
_SERVER = frozenset({"service-address", "real-server"})
_SERVICE_OPTIONS = frozenset({"scheduler", "persistent", "netmask", "ops", "pe", "sched-flags"})
_SERVER_OPTIONS = frozenset({
    "forwarding-method", "weight", "u-threshold", "l-threshold", "tun-type", "tun-port", "tun-nocsum", "tun-csum",
    "tun-remcsum",
})  # fmt: skip
NEEDED: Mapping[str, frozenset[str]] = MappingProxyType({
    "add-service": _SERVICE, "edit-service": _SERVICE, "delete-service": _SERVICE,
    "add-server": _SERVER, "edit-server": _SERVER, "delete-server": _SERVER,
})  # fmt: skip
ALLOWED: Mapping[str, frozenset[str]] = MappingProxyType({
    "add-service": _SERVICE_OPTIONS,
    "edit-service": _SERVICE_OPTIONS,
    "add-server": _SERVER_OPTIONS,
    "edit-server": _SERVER_OPTIONS,
    "list": frozenset({
        "numeric", "stats", "rate", "thresholds", "persistent-conn", "nosort", "syncid", "exact", "tun-info",
    }),
    "start-daemon": frozenset({"mcast-interface", "syncid", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen"}),
    "stop-daemon": frozenset({"syncid"}),
    "save": frozenset({"numeric"}),
    "zero": _SERVICE,
})  # fmt: skip
EXCLUSIVE: Mapping[str, frozenset[str]] = MappingProxyType(
    {"list": frozenset({"connection", "service-address", "timeout", "daemon"})}
)

_TUNNEL_CHECKED = ("tun-port", "tun-nocsum", "tun-csum", "tun-remcsum")
_TUNNEL_NEEDED = {TunnelType.GUE: {"tun-port"}}
_TUNNEL_EXCLUSIVE = {
    TunnelType.GUE: {"tun-nocsum", "tun-csum", "tun-remcsum"},
    TunnelType.GRE: {"tun-nocsum", "tun-csum"},
}
_NONE: frozenset[str] = frozenset()


def check_legal(command: str, given: AbstractSet[str]) -> None:
    needed, allowed = NEEDED.get(command, _NONE), ALLOWED.get(command, _NONE)
    _check(CHECKED, given, needed, allowed, EXCLUSIVE.get(command, _NONE), f"'{command}' command")


def check_tunnel(kind: TunnelType, given: AbstractSet[str]) -> None:
    needed, exclusive = _TUNNEL_NEEDED.get(kind, _NONE), _TUNNEL_EXCLUSIVE.get(kind, _NONE)
    _check(_TUNNEL_CHECKED, given, needed, _NONE, exclusive, f"'{kind}' tunnel type")


def _check(
    order: Collection[str],
    given: AbstractSet[str],
    needed: Collection[str],
    allowed: Collection[str],
    exclusive: Collection[str],
    where: str,
) -> None:
    before = ""  # the first of the mutually exclusive options
    for option in order:
        if option not in given:
            if option in needed:
                raise GrammarError(f"You need to supply the '{option}' option for the {where}")
        elif option in exclusive:
            if before:
                raise GrammarError(f"The option '{option}' conflicts with the '{before}' option in the {where}")
            before = option
        elif option not in needed and option not in allowed:
            raise GrammarError(f"Illegal '{option}' option with the {where}")
