"""services/ID: allow, deny and new_connections, who may open connections to a service. Pure."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lbnode.config.fields import Document, invalid

MAX_PREFIXES = 4096  # of one list: the data plane writes them one by one
MAX_RATE = 1_000_000
MAX_BURST = 4_000_000  # BURST_MAX of lb_config.h: thousandths of connections in 32 bits
HOST_PREFIX = {4: 32, 6: 64}  # what one client has: over IPv6 a network (RFC 6177)


def _prefixes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise invalid(f"{value!r} is not a list of prefixes", 'example: ["192.0.2.0/24"]')
    found: dict[str, None] = {}
    for text in value:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            raise invalid(f"{text!r} is not a prefix", "examples: 192.0.2.0/24, 2001:db8::/32") from None
        if "/" in text and str(network.network_address) != str(ip_network(text.partition("/")[0]).network_address):
            raise invalid(f"{text!r} has bits behind its length", f'write "{network}"')
        if network.version == 6 and network.network_address.ipv4_mapped is not None:
            raise invalid(f"{text!r} is no address on a wire (RFC 4291 section 2.5.5.2)", "write it as IPv4")
        if str(network) in found:
            raise invalid(f"{text!r} is named twice", "once is enough")
        found[str(network)] = None
    return tuple(found)


Prefixes = Annotated[tuple[str, ...], BeforeValidator(_prefixes), Field(max_length=MAX_PREFIXES)]


class NewConnectionsDocument(Document):
    """services/ID: new_connections"""

    rate: Annotated[int, Field(ge=1, le=MAX_RATE)]  # per second and source
    burst: Annotated[int, Field(ge=1, le=MAX_BURST)] | None = None  # at once; None: as `rate`
    prefix: Annotated[int, Field(ge=0, le=128)] | None = None  # bits that make a source; None: 32, IPv6: 64
