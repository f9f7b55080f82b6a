"""Which of the tracked connections somebody wants to see. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from lbnode.errors import ConfigError
from lbnode.model import Connection, L4Protocol, ServerId, ServiceId


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """All of these at once; None and "" mean any. Of a firewall mark's service only the templates tell the mark."""

    service: ServiceId | None = None
    server: ServerId | None = None
    client: IPv4Network | IPv6Network | None = None
    state: str = ""  # as listed, in capitals

    @classmethod
    def parse(cls, service: str = "", server: str = "", client: str = "", state: str = "") -> ConnectionFilter:
        """ConfigError says what is wrong."""
        try:
            return cls(
                ServiceId.parse(service) if service else None,
                ServerId.parse(server) if server else None,
                ip_network(client, strict=False) if client else None,
                state.upper(),
            )
        except ValueError as error:
            raise ConfigError(f"which connections: {error}") from None

    def matches(self, one: Connection) -> bool:
        if self.state and one.state != self.state:
            return False
        if self.server is not None and one.server != (self.server.address, self.server.port):
            return False
        if self.client is not None and one.client[0] not in self.client:
            return False
        return self.service is None or _is_for(one, self.service)


def _is_for(one: Connection, service: ServiceId) -> bool:
    address, port = one.virtual
    if service.fwmark:
        mark = int(address) >> (96 if address.version == 6 else 0)
        return one.protocol is None and mark == service.fwmark and (address.version == 6) == service.inet6
    protocol: L4Protocol | None = service.protocol
    return one.protocol is protocol and address == service.address and port in (service.port, port * (not service.port))


EVERY = ConnectionFilter()
