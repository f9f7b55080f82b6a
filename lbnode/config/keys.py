"""Keys of the configuration, relative to the cluster's prefix, and what they name. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lbnode.config.fields import NAME, did_you_mean
from lbnode.config.schema import SCHEMAS
from lbnode.model import ServerId, ServiceId

NODES = "nodes/"  # written by the nodes about themselves; not configuration
OWNERS = "owners/"  # of the VIP groups, see lbnode.ownership; not configuration either


@dataclass(frozen=True, slots=True)
class Key:
    kind: str  # a key of SCHEMAS
    service: ServiceId | None = None
    server: ServerId | None = None
    name: str = ""  # of a VIP group or a check

    def __str__(self) -> str:
        if self.server is not None:
            return f"services/{self.service}/servers/{self.server}"
        if self.service is not None:
            return f"services/{self.service}"
        return f"{self.kind}/{self.name}" if self.name else self.kind


def service_key(service_id: ServiceId | str) -> str:
    return f"services/{service_id}"


def server_key(service_id: ServiceId | str, server_id: ServerId | str) -> str:
    return f"services/{service_id}/servers/{server_id}"


def is_config_key(key: str) -> bool:
    return not key.startswith((NODES, OWNERS))


def parse_key(key: str) -> Key:
    """ValueError says what is wrong with the key, and what its canonical form is."""
    kind, _, rest = key.partition("/")
    if kind == "services" and rest:
        service, slash, tail = rest.partition("/")
        service_id = ServiceId.parse(service)  # any address: IPVS takes 0.0.0.0 and multicast too
        if not slash:
            return Key("services", service_id)
        section, _, server = tail.partition("/")
        if section != "servers" or not server:
            raise ValueError(f"{tail!r} is not servers/ADDRESS:PORT")
        server_id = ServerId.parse(server)
        if server_id.address.is_multicast or server_id.address.is_unspecified:
            raise ValueError(f"{server!r} is not a unicast address")
        return Key("servers", service_id, server_id)
    if kind in ("vip-groups", "checks") and rest:
        if not NAME.fullmatch(rest):
            raise ValueError(f"{rest!r} is not a name: letters, digits, '.', '_', '-', at most 63, no slash")
        return Key(kind, name=rest)
    if key == "settings":
        return Key("settings")
    hint = did_you_mean(kind, tuple(name for name in SCHEMAS if name != "servers"))
    raise ValueError(f"no such key: {hint}")
