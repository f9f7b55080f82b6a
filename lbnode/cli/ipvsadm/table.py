"""What ip_vs answers to a command that changes its table, acted out on an lbnode document. Pure.

Checks and their order are those of ip_vs_ctl.c in Linux 6.1, the words those of ipvsadm 1.31 for each error number.
A `Table` is a copy that commands change one after the other; `changes` tells what to put and to delete.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from lbnode.cli.ipvsadm.grammar import DEFAULT_INTERFACE, Command
from lbnode.cli.ipvsadm.values import Host, Refused
from lbnode.model import (
    DEFAULT_SYNC_GROUP,
    PERSISTENCE_ENGINES,
    SCHEDULERS,
    Address,
    ServerId,
    ServiceId,
    Timeouts,
    Tunnel,
)

Json = Mapping[str, Any]

SERVICE_EXISTS, SERVICE_UNKNOWN, SERVICE_UNDEFINED = "Service already exists", "No such service", "Service not defined"
SERVER_EXISTS, SERVER_UNKNOWN = "Destination already exists", "No such destination"
SCHEDULER_UNKNOWN = "Scheduler or persistence engine not found"
DAEMON_EXISTS, DAEMON_UNKNOWN, INTERFACE_UNKNOWN = "Daemon has already run", "No daemon is running", "No such device"
OUT_OF_RANGE = "Numerical result out of range"
INVALID = "Invalid operation.  Possibly wrong module version, address not unicast, ..."

# What ipvsadm sets, given or not; the rest of a document (checks, VIP group, drain) is lbnode's own and stays.
_SERVICE_FIELDS = frozenset(
    {"scheduler", "flags", "persistent", "persistent_netmask", "persistence_engine", "one_packet"}
)
_SERVER_FIELDS = frozenset({
    "weight", "forward", "upper_threshold", "lower_threshold", "tunnel_type", "tunnel_port", "tunnel_checksum",
})  # fmt: skip


class Table:
    """`document`: as GET /api/v1/document gives it; not changed."""

    def __init__(self, document: Json, host: Host) -> None:
        self._before = document
        self._host = host
        self.services: dict[str, dict[str, Any]] = copy.deepcopy(dict(document.get("services") or {}))
        self.settings: dict[str, Any] = copy.deepcopy(dict(document.get("settings") or {}))

    def execute(self, command: Command) -> None:
        """Refused changes nothing."""
        match command.name:
            case "add-service" | "edit-service":
                self._put_service(command)
            case "delete-service":
                self.require(command.service)
                del self.services[str(command.service)]
            case "flush":
                self.services.clear()
            case "add-server" | "edit-server" | "delete-server":
                self._server(command)
            case "set":
                self._set(command)
            case "start-daemon":
                self._start(command)
            case "stop-daemon":
                if self.daemons.get(command.daemon_state) is None:
                    raise Refused(DAEMON_UNKNOWN)
                self.settings["sync_daemons"] = _without(self.settings["sync_daemons"], {command.daemon_state})
            case _:
                raise AssertionError(command.name)

    def changes(self) -> tuple[dict[str, Json], list[str]]:
        """(keys to put, keys to delete); a service's servers go with it."""
        before = dict(_keys(self._before.get("services") or {}, self._before.get("settings") or {}))
        after = dict(_keys(self.services, self.settings))
        put = {key: value for key, value in after.items() if before.get(key) != value}
        gone = before.keys() - after.keys()
        return put, sorted(key for key in gone if "/servers/" not in key or key.partition("/servers/")[0] not in gone)

    @property
    def timeouts(self) -> Timeouts:
        given, default = self.settings.get("timeouts") or {}, Timeouts()
        return Timeouts(
            given.get("tcp", default.tcp_s), given.get("tcp_fin", default.tcp_fin_s), given.get("udp", default.udp_s)
        )

    @property
    def daemons(self) -> Json:
        daemons: Json = self.settings.get("sync_daemons") or {}
        return {state: daemons[state] for state in ("master", "backup") if daemons.get(state) is not None}

    def require(self, service: ServiceId | None) -> None:
        if str(service) not in self.services:
            raise Refused(SERVICE_UNKNOWN)

    # --- services: ip_vs_add_service(), ip_vs_edit_service() -------------------------------------------------

    def _put_service(self, command: Command) -> None:
        name = str(command.service)
        there = name in self.services
        if command.name == "add-service" and there:
            raise Refused(SERVICE_EXISTS)
        if command.name == "edit-service" and not there:
            raise Refused(SERVICE_UNKNOWN)
        if command.scheduler not in SCHEDULERS or command.persistence_engine not in ("", *PERSISTENCE_ENGINES):
            raise Refused(SCHEDULER_UNKNOWN)
        document = _without(self.services.get(name, {}), _SERVICE_FIELDS)
        document["scheduler"] = command.scheduler
        if command.scheduler_flags:
            document["flags"] = list(command.scheduler_flags)
        if command.persistent_s:
            document["persistent"] = command.persistent_s
            if command.netmask is not None:
                document["persistent_netmask"] = _netmask(command)
        if command.persistence_engine:
            document["persistence_engine"] = command.persistence_engine
        if command.one_packet:
            document["one_packet"] = True
        self.services[name] = document

    # --- servers: ip_vs_add_dest(), ip_vs_edit_dest(), ip_vs_del_dest() ---------------------------------------

    def _server(self, command: Command) -> None:
        service = self.services.get(str(command.service))
        if service is None:
            raise Refused(SERVICE_UNDEFINED)
        assert command.server is not None and command.service is not None
        servers: dict[str, Any] = service.setdefault("servers", {})
        name = str(command.server)
        if command.name == "delete-server":
            if name not in servers:
                raise Refused(SERVER_UNKNOWN)
            del servers[name]
            return
        if command.server.address.version != command.service.family and self.daemons:
            raise Refused(INVALID)  # the synchronisation protocol has no room for two families
        if command.lower_threshold > command.upper_threshold:
            raise Refused(OUT_OF_RANGE)
        if command.name == "add-server" and name in servers:
            raise Refused(SERVER_EXISTS)
        if command.name == "edit-server" and name not in servers:
            raise Refused(SERVER_UNKNOWN)
        if not self._is_unicast(command.server.address):
            raise Refused(INVALID)
        replaced = _SERVER_FIELDS if command.forward == "fullnat" else _SERVER_FIELDS | {"toa"}
        servers[name] = _without(servers.get(name, {}), replaced) | _server_document(command)

    def _is_unicast(self, address: Address) -> bool:
        """inet_addr_type() and ipv6_addr_type(): link-local and IPv4-mapped addresses are no servers."""
        if isinstance(address, IPv6Address):
            mapped = address.ipv4_mapped is not None
            return not (address.is_multicast or address.is_unspecified or address.is_link_local or mapped)
        return not (address.is_multicast or address.is_unspecified or self._host.is_broadcast(str(address)))

    # --- settings: ip_vs_set_timeout(), start_sync_thread(), stop_sync_thread() -------------------------------

    def _set(self, command: Command) -> None:
        assert command.timeouts is not None
        now = self.timeouts
        names, before = ("tcp", "tcp_fin", "udp"), (now.tcp_s, now.tcp_fin_s, now.udp_s)
        new = {name: given or kept for name, given, kept in zip(names, command.timeouts, before, strict=True)}
        self.settings["timeouts"] = new

    def _start(self, command: Command) -> None:
        if any(_is_mixed(ServiceId.parse(name), service) for name, service in self.services.items()):
            raise Refused(INVALID)
        if self._host.mtu_of(command.daemon.interface) is None:
            raise Refused(INTERFACE_UNKNOWN)
        if command.daemon_state in self.daemons:
            raise Refused(DAEMON_EXISTS)
        daemon = asdict(command.daemon) | {"group": str(command.daemon.group)}
        self.settings["sync_daemons"] = {**(self.settings.get("sync_daemons") or {}), command.daemon_state: daemon}


def _netmask(command: Command) -> int | str | None:
    """A prefix length, or the IPv4 mask if it has holes."""
    assert command.service is not None
    bits = command.netmask
    if bits is None or command.service.family == 6:
        return bits
    length = bits.bit_count()
    return length if bits == 0xFFFFFFFF << 32 - length & 0xFFFFFFFF else str(IPv4Address(bits))


def _server_document(command: Command) -> dict[str, Any]:
    document: dict[str, Any] = {"weight": command.weight, "forward": command.forward}
    if command.upper_threshold:
        document["upper_threshold"] = command.upper_threshold
    if command.lower_threshold:
        document["lower_threshold"] = command.lower_threshold
    if command.tunnel != Tunnel():
        document["tunnel_type"] = str(command.tunnel.type)
        document["tunnel_checksum"] = str(command.tunnel.checksum)
        if command.tunnel.port:
            document["tunnel_port"] = command.tunnel.port
    return document


def _is_mixed(service: ServiceId, document: Json) -> bool:
    return any(ServerId.parse(name).address.version != service.family for name in document.get("servers") or {})


def _without(document: Json, fields: frozenset[str] | set[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in fields}


def _keys(services: Json, settings: Json) -> Iterator[tuple[str, Json]]:
    """Document -> store keys with their values."""
    for name, service in services.items():
        yield f"services/{name}", _without(service, {"servers"})
        for server, value in (service.get("servers") or {}).items():
            yield f"services/{name}/servers/{server}", value
    if settings:
        yield "settings", settings


def running(configured: Json, host: Host) -> Json:
    """The sync daemons with what start_sync_thread() of Linux 6.1 makes of their configuration.

    Without a length of messages given, they are what 1500 bytes (a backup: the interface's MTU, if that is more) hold
    behind the IP and UDP headers.
    """
    return {state: _running(state, daemon, host) for state, daemon in configured.items()}


def _running(state: str, daemon: Json, host: Host) -> Json:
    interface, group = daemon.get("interface", DEFAULT_INTERFACE), daemon.get("group", str(DEFAULT_SYNC_GROUP))
    headers = 48 if ":" in group else 28
    mtu = min(max(host.mtu_of(interface) or 1500, 1500), 65535) if state == "backup" else 1500
    shortest = 1024 if state == "backup" else 1
    given = daemon.get("maxlen", 0)
    return {
        "interface": interface,
        "syncid": daemon.get("syncid", 0),
        "maxlen": min(max(given, shortest), 65535 - headers) if given else mtu - headers,
        "group": group,
        "port": daemon.get("port", 8848),
        "ttl": daemon.get("ttl", 1),
    }


# --- how a table would be listed that is not in force yet ------------------------------------------------------

_NO_COUNTERS = dict.fromkeys(
    ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out", "active", "inactive", "persistent"), 0
)


def rows(table: Table) -> Iterator[Json]:
    """The services as GET /api/v1/services would give them, before anybody has used them."""
    for name, service in table.services.items():
        yield {
            "id": name,
            "scheduler": service.get("scheduler", "wlc"),
            "effective_scheduler": service.get("scheduler", "wlc"),
            "scheduler_flags": service.get("flags", ()),
            "persistent_s": service.get("persistent", 0),
            "persistent_netmask": service.get("persistent_netmask"),
            "persistence_engine": service.get("persistence_engine", ""),
            "one_packet": service.get("one_packet", False),
            "counters": _NO_COUNTERS,
            "rates": _NO_COUNTERS,
            "servers": [_row(server, value) for server, value in (service.get("servers") or {}).items()],
        }


def _row(name: str, server: Json) -> Json:
    weight = server.get("weight", 1)
    return {
        "id": name,
        "forward": server.get("forward", "masquerade"),
        "configured_weight": weight,
        "effective_weight": 0 if server.get("drain") else weight,
        "upper_threshold": server.get("upper_threshold", 0),
        "lower_threshold": server.get("lower_threshold", 0),
        "tunnel": {
            "type": server.get("tunnel_type", "ipip"),
            "port": server.get("tunnel_port", 0),
            "checksum": server.get("tunnel_checksum", "nocsum"),
        },
        "counters": _NO_COUNTERS,
        "rates": _NO_COUNTERS,
    }
