"""The documents people write, field by field: names, defaults, ranges. Everything else is reported, never ignored.

Strict on purpose: YAML 1.1 reads `no` as false and `12:30` as 750, and a weight of true is no weight. Durations are
seconds. A key names its kind: services/ID, services/ID/servers/ADDR:PORT, vip-groups/NAME, checks/NAME, settings.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from lbnode.config.access_document import NewConnectionsDocument, Prefixes
from lbnode.config.check_document import CheckDocument
from lbnode.config.fields import MAX_SECONDS, Document, Port, WholeSeconds, did_you_mean, invalid
from lbnode.config.vip_group_document import VipGroupDocument, interface_name, local_addresses
from lbnode.model import MAX_WEIGHT, PERSISTENCE_ENGINES, SCHEDULERS, Address, flags_of

Connections = Annotated[int, Field(ge=0, le=2**32 - 1)]
MSS_MIN = 88  # what Linux sends segments of at least (TCP_MIN_MSS)
MSS_MAX = 0xFFFF - 40  # IPv4's longest packet without its headers


class ServerDocument(Document):
    """services/ID/servers/ADDR:PORT"""

    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)] = 1
    forward: Literal["masquerade", "direct", "tunnel", "fullnat"] = "masquerade"
    drain: bool = False
    upper_threshold: Connections = 0
    lower_threshold: Connections = 0
    tunnel_type: Literal["ipip", "gue", "gre"] = "ipip"
    tunnel_port: Port = 0
    tunnel_checksum: Literal["nocsum", "csum", "remcsum"] = "nocsum"
    toa: bool = True  # of fullnat: TCP tells the server the client's address in an option

    @model_validator(mode="after")
    def _tunnel_options_fit_together(self) -> ServerDocument:
        given = {"tunnel_type", "tunnel_port", "tunnel_checksum"} & self.model_fields_set
        if given and self.forward != "tunnel":
            raise invalid(f"{min(given)}: not for forward {self.forward}", 'set "forward" to "tunnel"')
        if self.tunnel_type == "gue" and not self.tunnel_port:
            raise invalid("tunnel_port: a gue tunnel needs one", 'example: "tunnel_port": 6080')
        if self.tunnel_type != "gue" and self.tunnel_port:
            raise invalid(f"tunnel_port: {self.tunnel_type} has none", "only gue has")
        legal = {"ipip": ("nocsum",), "gre": ("nocsum", "csum"), "gue": ("nocsum", "csum", "remcsum")}
        if self.tunnel_checksum not in legal[self.tunnel_type]:
            known = ", ".join(legal[self.tunnel_type])
            raise invalid(f"tunnel_checksum: {self.tunnel_type} has no {self.tunnel_checksum}", f"it has: {known}")
        return self

    @model_validator(mode="after")
    def _toa_is_full_nat(self) -> ServerDocument:
        if "toa" in self.model_fields_set and self.forward != "fullnat":
            raise invalid(f"toa: not for forward {self.forward}", "there the server sees the client's address anyway")
        return self

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> ServerDocument:
        if self.lower_threshold and self.lower_threshold > self.upper_threshold:
            raise invalid(
                f"lower_threshold {self.lower_threshold} is above upper_threshold {self.upper_threshold}",
                "the server is back in use below the lower one",
            )
        return self


def _check_form(value: Any) -> str:
    return "name" if isinstance(value, str) else "inline"


CheckReference = Annotated[
    Annotated[str, Tag("name")] | Annotated[CheckDocument, Tag("inline")], Discriminator(_check_form)
]


class OwnTimeoutsDocument(Document):
    """services/ID: timeouts; what is left out is the cluster's"""

    tcp: WholeSeconds | None = None
    tcp_fin: WholeSeconds | None = None
    udp: WholeSeconds | None = None


class ServiceDocument(Document):
    """services/ID (its servers have keys of their own)"""

    scheduler: str = "wlc"
    flags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    persistent: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = 0
    persistent_netmask: int | str | None = None  # prefix length, or for IPv4 a mask: "255.255.255.0", "255.0.255.0"
    persistence_engine: str = ""
    one_packet: bool = False
    syn_proxy: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None  # half-open connections
    mss: Annotated[int, Field(ge=MSS_MIN, le=MSS_MAX)] | None = None  # octets
    allow: Prefixes = ()
    deny: Prefixes = ()
    new_connections: NewConnectionsDocument | None = None
    timeouts: OwnTimeoutsDocument = OwnTimeoutsDocument()
    vip_group: str | None = None
    check: CheckReference | None = None
    when_down: Literal["weight-zero", "remove"] = "weight-zero"
    when_all_down: Literal["refuse", "keep-last"] = "refuse"

    @field_validator("scheduler")
    @classmethod
    def _scheduler_exists(cls, value: str) -> str:
        if value not in SCHEDULERS:
            raise invalid(f"{value!r} is not a scheduler", did_you_mean(value, SCHEDULERS))
        return value

    @field_validator("persistent_netmask", mode="before")
    @classmethod
    def _netmask_is_a_length_or_a_mask(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return str(IPv4Address(value))
            except ValueError:
                raise invalid(f"{value!r} is not an IPv4 mask", 'examples: 24, "255.255.255.0"') from None
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 128):
            raise invalid(f"{value!r} is not a prefix length from 0 to 128", 'examples: 24, "255.255.255.0"')
        return value

    @field_validator("persistence_engine")
    @classmethod
    def _engine_exists(cls, value: str) -> str:
        if value and value not in PERSISTENCE_ENGINES:
            raise invalid(f"{value!r} is not a persistence engine", did_you_mean(value, PERSISTENCE_ENGINES))
        return value

    @field_validator("flags", mode="before")
    @classmethod
    def _flags_are_a_list(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise invalid(f"{value!r} is not a list of names", "example: [sh-port, sh-fallback]")
        return tuple(value)

    @model_validator(mode="after")
    def _options_fit_together(self) -> ServiceDocument:
        legal = flags_of(self.scheduler)
        if wrong := [flag for flag in self.flags if flag not in legal]:
            hint = did_you_mean(wrong[0], legal)
            raise invalid(f"flags: {wrong[0]!r} is not a flag of scheduler {self.scheduler}", hint)
        if self.persistent_netmask is not None and not self.persistent:
            raise invalid("persistent_netmask without persistent", 'set "persistent" to a number of seconds')
        return self


class TimeoutsDocument(Document):
    tcp: WholeSeconds = 900
    tcp_fin: WholeSeconds = 120
    udp: WholeSeconds = 300


class SyncDaemonDocument(Document):
    """settings.sync_daemons.master or .backup, as `ipvsadm --start-daemon` takes them; only IPVS acts upon it."""

    interface: str = "eth0"
    syncid: Annotated[int, Field(ge=0, le=255)] = 0
    maxlen: Annotated[int, Field(ge=0, le=65507)] = 0  # 0: what fits into the interface's MTU
    group: str = "224.0.0.81"
    port: Annotated[int, Field(ge=1, le=65535)] = 8848
    ttl: Annotated[int, Field(ge=1, le=255)] = 1

    @field_validator("interface")
    @classmethod
    def _interface_is_a_name(cls, value: str) -> str:
        return interface_name(value)

    @field_validator("group")
    @classmethod
    def _group_is_multicast(cls, value: str) -> str:
        try:
            if ip_address(value).is_multicast:
                return value
        except ValueError:
            pass
        raise invalid(f"{value!r} is not a multicast address", "example: 224.0.0.81")


class SyncDaemonsDocument(Document):
    by_role: bool = False  # master only while the node is active in a VIP group, backup only while it is backup in one
    master: SyncDaemonDocument | None = None
    backup: SyncDaemonDocument | None = None


class DropDocument(Document):
    """settings.drop: what else shall not pass; only the XDP/tcx data plane acts upon it."""

    ip_options: bool = False
    bad_checksums: bool = False


class SettingsDocument(Document):
    """settings"""

    timeouts: TimeoutsDocument = TimeoutsDocument()
    sysctl: dict[str, str] = Field(default_factory=dict)  # changes to the kernel profile, present or former names
    maintenance: Annotated[tuple[str, ...], Field(strict=False)] = ()  # names of nodes
    foreign_services: Literal["keep", "remove"] = "keep"
    dataplane: Literal["auto", "xdp", "ipvs"] = "auto"  # of nodes whose node.toml says "auto"; read when they start
    sync_daemons: SyncDaemonsDocument = SyncDaemonsDocument()
    drop: DropDocument = DropDocument()
    local_addresses: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # by node

    @field_validator("local_addresses", mode="before")
    @classmethod
    def _each_is_one_nodes(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise invalid(f"{value!r} is not a map of nodes", 'example: {"gw1": ["198.51.100.4"]}')
        owners: dict[Address, str] = {}
        for node, texts in value.items():
            for address in local_addresses(texts):
                if address in owners:
                    raise invalid(f"{address} of {node} is an address of {owners[address]} already", "each has its own")
                owners[address] = str(node)
        return {str(node): tuple(texts) for node, texts in value.items()}

    @field_validator("sysctl", mode="before")
    @classmethod
    def _kernel_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise invalid(f"{value!r} is not a map of kernel settings", 'example: {"net.core.somaxconn": "8192"}')
        for name, setting in value.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)+", str(name)):
                raise invalid(f"{name!r} is not the name of a kernel setting", "example: net.core.somaxconn")
            if isinstance(setting, bool) or not re.fullmatch(r"-?\d+([ \t]+-?\d+)*", str(setting)):
                raise invalid(f"{name}: {setting!r} is not a number or a list of numbers", 'example: "8192"')
        return {str(name): str(setting) for name, setting in value.items()}


SCHEMAS: dict[str, type[Document]] = {
    "services": ServiceDocument,
    "servers": ServerDocument,
    "vip-groups": VipGroupDocument,
    "checks": CheckDocument,
    "settings": SettingsDocument,
}
# Fields that are objects themselves, for hints about their unknown fields.
_NESTED: dict[str, type[Document]] = {
    "check": CheckDocument,
    "new_connections": NewConnectionsDocument,
    "timeouts": TimeoutsDocument,
    "sync_daemons": SyncDaemonsDocument,
    "drop": DropDocument,
    "master": SyncDaemonDocument,
    "backup": SyncDaemonDocument,
}


def fields_at(kind: str, path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Names of the fields of the object at `path` (without the last component) in a document of this kind."""
    parent = path[-2] if len(path) > 1 else None
    schema = _NESTED.get(cast("str", parent), SCHEMAS[kind]) if parent else SCHEMAS[kind]
    return tuple(schema.model_fields)
