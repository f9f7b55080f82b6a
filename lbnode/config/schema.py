"""The documents people write, field by field: names, defaults, ranges. Everything else is reported, never ignored.

Strict on purpose: YAML 1.1 reads `no` as false and `12:30` as 750, and a weight of true is no weight. Durations are
seconds. A key names its kind: services/ID, services/ID/servers/ADDR:PORT, vip-groups/NAME, checks/NAME, settings.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from lbnode.config.check_document import CheckDocument
from lbnode.config.fields import MAX_SECONDS, Document, Port, WholeSeconds, did_you_mean, invalid
from lbnode.model import MAX_WEIGHT, PERSISTENCE_ENGINES, SCHEDULERS, VipAddress, flags_of

Connections = Annotated[int, Field(ge=0, le=2**32 - 1)]


class ServerDocument(Document):
    """services/ID/servers/ADDR:PORT"""

    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)] = 1
    forward: Literal["masquerade", "direct", "tunnel"] = "masquerade"
    drain: bool = False
    upper_threshold: Connections = 0
    lower_threshold: Connections = 0
    tunnel_type: Literal["ipip", "gue", "gre"] = "ipip"
    tunnel_port: Port = 0
    tunnel_checksum: Literal["nocsum", "csum", "remcsum"] = "nocsum"

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


class ServiceDocument(Document):
    """services/ID (its servers have keys of their own)"""

    scheduler: str = "wlc"
    flags: Annotated[tuple[str, ...], Field(strict=False)] = ()
    persistent: Annotated[int, Field(ge=0, le=MAX_SECONDS)] = 0
    persistent_netmask: int | str | None = None  # prefix length, or for IPv4 a mask: "255.255.255.0", "255.0.255.0"
    persistence_engine: str = ""
    one_packet: bool = False
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


class TrackDocument(Document):
    """One of the seven, and what it is worth."""

    gateway: str | None = None
    interface: str | None = None
    dataplane: Literal[True] | None = None
    sync: Literal[True] | None = None
    service: str | None = None
    script: str | None = None
    file: str | None = None
    weight: Annotated[int, Field(ge=1, le=253)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    interval: Annotated[float, Field(ge=0.1, le=3600)] = 1.0

    @model_validator(mode="after")
    def _one_thing(self) -> TrackDocument:
        kinds = ("gateway", "interface", "dataplane", "sync", "service", "script", "file")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise invalid(f"{len(given)} things to track in one entry", f"give one of {', '.join(kinds)}")
        if self.gateway is not None:
            try:
                ip_address(self.gateway)
            except ValueError as error:
                raise invalid(f"gateway: {error}", "an address of the network, like 192.0.2.254") from None
        if self.interface is not None:
            _interface(self.interface)
        for path in (self.file, self.script):
            if path is not None and not path.startswith("/"):
                raise invalid(f"{path!r} does not begin with /", "give the whole path")
        return self


class VipGroupDocument(Document):
    """vip-groups/NAME"""

    vrid: Annotated[int, Field(ge=1, le=255)]
    addresses: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    priorities: Annotated[dict[str, Annotated[int, Field(ge=1, le=254)]], Field(min_length=1)]
    interface: str | None = None
    advert_interval: Annotated[float, Field(ge=0.01, le=40.95)] = 0.1
    preempt: bool = False
    version: Literal[2, 3] = 3
    checksum: Literal["auto", "rfc9568", "pseudo-header"] = "auto"
    unicast_peers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    authentication: Literal["auto", "off", "receive-only", "permissive", "enforce"] = "auto"
    policy: Literal["availability", "consistency"] = "availability"
    track: Annotated[tuple[TrackDocument, ...], Field(strict=False)] = ()

    @field_validator("addresses", mode="before")
    @classmethod
    def _addresses_are_a_list(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise invalid(f"{value!r} is not a list of addresses", 'example: ["192.0.2.10/24"]')
        parsed = [vip_address(item) for item in value]
        if len({vip.address for vip in parsed}) < len(parsed):
            raise invalid("the same address twice")
        return tuple(value)

    @field_validator("interface")
    @classmethod
    def _interface_is_a_name(cls, value: str | None) -> str | None:
        return None if value is None else _interface(value)

    @field_validator("advert_interval")
    @classmethod
    def _interval_is_in_centiseconds(cls, value: float) -> float:
        if abs(value * 100 - round(value * 100)) > 1e-6:  # RFC 9568 section 5.2.7: Max Advertise Interval
            raise invalid(f"{value!r} is not a multiple of 0.01", "VRRP carries hundredths of a second")
        return value

    @field_validator("unicast_peers")
    @classmethod
    def _peers_are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ip_address(text)
            except ValueError as error:
                raise invalid(str(error), "the addresses from which the members send: [192.0.2.2, 192.0.2.3]") from None
        return value

    @model_validator(mode="after")
    def _version_2_has_its_limits(self) -> VipGroupDocument:
        if self.version == 2:  # RFC 3768
            if self.advert_interval % 1 or self.advert_interval < 1:
                raise invalid("version 2 with an interval of less than a second", "set advert_interval to 1")
            if any(":" in address for address in self.addresses):
                raise invalid("version 2 with IPv6 addresses", "put those into a group of their own with version 3")
        return self


def _interface(name: str) -> str:
    if not re.fullmatch(r"[^\s/:]{1,15}", name) or name in (".", ".."):  # dev_valid_name() in Linux
        raise invalid(f"{name!r} is not an interface name", "at most 15 characters, no space, slash or colon")
    return name


def vip_address(text: str) -> VipAddress:
    """`192.0.2.10/24` or `198.51.100.1/24 dev eth1`."""
    match = re.fullmatch(r"([0-9a-fA-F:.]+)/(\d{1,3})(?: dev (\S+))?", text)
    try:
        if match is None:
            raise ValueError("the form is ADDRESS/PREFIX, optionally followed by ' dev INTERFACE'")
        address, prefix = ip_address(match[1]), int(match[2])
    except ValueError as error:
        raise invalid(f"{text!r} is not a floating address: {error}", "example: 192.0.2.10/24") from None
    if prefix > address.max_prefixlen:
        raise invalid(f"{text!r}: a prefix of {prefix} bits is longer than the address")
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise invalid(f"{text!r} is not a unicast address that could move between nodes")
    return VipAddress(address, prefix, _interface(match[3]) if match[3] else None)


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
        return _interface(value)

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


class SettingsDocument(Document):
    """settings"""

    timeouts: TimeoutsDocument = TimeoutsDocument()
    sysctl: dict[str, str] = Field(default_factory=dict)  # changes to the kernel profile, present or former names
    foreign_services: Literal["keep", "remove"] = "keep"
    dataplane: Literal["auto", "xdp", "ipvs"] = "auto"  # of nodes whose node.toml says "auto"; read when they start
    sync_daemons: SyncDaemonsDocument = SyncDaemonsDocument()

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
    "timeouts": TimeoutsDocument,
    "sync_daemons": SyncDaemonsDocument,
    "master": SyncDaemonDocument,
    "backup": SyncDaemonDocument,
}


def fields_at(kind: str, path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Names of the fields of the object at `path` (without the last component) in a document of this kind."""
    parent = path[-2] if len(path) > 1 else None
    schema = _NESTED.get(cast("str", parent), SCHEMAS[kind]) if parent else SCHEMAS[kind]
    return tuple(schema.model_fields)
