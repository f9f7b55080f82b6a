"""What the XDP/tcx data plane can do, and the words for what it cannot. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lbnode.dataplane.base import Capabilities, Op, PutServer, PutService, SetSyncDaemons
from lbnode.dataplane.xdp.layout import FORWARDING, POOL_ADDRESSES, SCHEDULERS
from lbnode.errors import Unsupported
from lbnode.model import (
    MAX_WEIGHT,
    ForwardingMethod,
    L4Protocol,
    ProgrammedServer,
    ProgrammedService,
    ServiceId,
    flags_of,
)

CAPABILITIES = Capabilities(
    kind="xdp",
    schedulers=frozenset(SCHEDULERS),
    forwarding=frozenset(FORWARDING),
    protocols=frozenset(L4Protocol),
    families=frozenset({4, 6}),
    persistence=True,
    access=True,
    own_timeouts=True,
)
_PLANE = "the XDP/tcx data plane"
_TRANSLATED = (ForwardingMethod.MASQUERADE, ForwardingMethod.FULLNAT)


def check(op: Op) -> None:
    """Raise Unsupported, naming what is supported, if the operation can never succeed."""
    match op:
        case PutService(service):
            _check_service(service)
        case PutServer(service_id, server):
            _check_server(service_id, server)
        case SetSyncDaemons(daemons) if daemons:
            raise Unsupported(
                f"sync daemon {' and '.join(daemons)}: only IPVS has them; {_PLANE} synchronises connections by [sync] "
                "in node.toml"
            )
        case _:
            pass


def check_hooks(service_id: ServiceId, at_xdp: Sequence[str]) -> None:
    """Raise Unsupported if the service cannot be served on these interfaces, which are attached at XDP."""
    if service_id.fwmark and at_xdp:
        raise Unsupported(
            f"{service_id}: only socket buffers have a firewall mark, and {', '.join(at_xdp)} is served at XDP: set "
            'attach = "tcx" in node.toml, section [dataplane]'
        )


def check_entries(service: ProgrammedService, servers: Iterable[ProgrammedServer]) -> None:
    """Raise Unsupported if the service cannot have these servers: they need an entry of the connection table that no
    packet leaves, or their answers pass by a SYN proxy."""
    for server in servers:
        if service.syn_proxy is not None and server.forward not in _TRANSLATED:
            raise Unsupported(
                f"{service.id}: server {server.id}: a SYN proxy (syn_proxy) translates what the server answers, too: "
                f"its servers must be forwarded to by masquerade or fullnat, not {server.forward}"
            )
        if service.one_packet and server.forward is ForwardingMethod.FULLNAT:
            raise Unsupported(
                f"{service.id}: server {server.id}: fullnat finds a reply's client by its connection, and one-packet "
                "scheduling keeps none"
            )


def _check_service(service: ProgrammedService) -> None:
    service_id = service.id
    if not service_id.fwmark and service_id.protocol not in CAPABILITIES.protocols:
        known = " ".join(sorted(CAPABILITIES.protocols))
        raise Unsupported(f"{service_id}: {_PLANE} has no protocol {service_id.protocol}; it has: {known}")
    if service_id.address is not None and service_id.address.is_multicast:
        raise Unsupported(f"{service_id}: {_PLANE} balances unicast addresses, not {service_id.address}")
    if service_id.port == 0 and not service_id.fwmark and not service.persistent_s:
        raise Unsupported(f"{service_id}: port 0 (all ports of the address) needs persistence: set `persistent`")
    if service.scheduler not in CAPABILITIES.schedulers:
        known = " ".join(sorted(CAPABILITIES.schedulers))
        raise Unsupported(f"{service_id}: {_PLANE} has no scheduler {service.scheduler}; it has: {known}")
    allowed = flags_of(service.scheduler)
    if wrong := sorted(service.scheduler_flags.difference(allowed)):
        raise Unsupported(
            f"{service_id}: scheduler {service.scheduler} has no flag {' '.join(wrong)}; it has: {' '.join(allowed)}"
        )
    if service.persistence_engine:
        raise Unsupported(f"{service_id}: {_PLANE} has no persistence engine {service.persistence_engine}; IPVS has")
    if service.one_packet and service_id.protocol in (L4Protocol.TCP, L4Protocol.SCTP):
        raise Unsupported(f"{service_id}: one-packet scheduling is for udp services and firewall marks")


def _check_server(service_id: ServiceId, server: ProgrammedServer) -> None:
    where = f"{service_id}: server {server.id}"
    if server.id.address.version != service_id.family and server.forward is not ForwardingMethod.TUNNEL:
        raise Unsupported(
            f"{where}: {server.forward} cannot lead from IPv{service_id.family} to another family; tunnel can"
        )
    if server.forward not in CAPABILITIES.forwarding:
        raise Unsupported(
            f"{where}: {_PLANE} forwards by {', '.join(sorted(CAPABILITIES.forwarding))}, not {server.forward}"
        )
    if server.weight > MAX_WEIGHT:
        raise Unsupported(f"{where}: weights go up to {MAX_WEIGHT}, not {server.weight}")
    if server.forward is ForwardingMethod.FULLNAT:
        _check_local_addresses(where, server)
    if service_id.fwmark or server.forward in (ForwardingMethod.MASQUERADE, ForwardingMethod.FULLNAT):
        return
    if server.id.port != service_id.port:
        raise Unsupported(
            f"{where}: {server.forward} leaves the port as it is, so the server's port must be {service_id.port}; "
            "use masquerade to change it"
        )


def _check_local_addresses(where: str, server: ProgrammedServer) -> None:
    family = server.id.address.version
    if not server.local_addresses:
        raise Unsupported(
            f"{where}: fullnat needs a local address of IPv{family}: name one in `local_addresses` of the service's "
            "VIP group, or of this node in the settings"
        )
    if any(address.version != family for address in server.local_addresses):
        raise Unsupported(f"{where}: its local addresses are not all of IPv{family}")
    if len(server.local_addresses) > POOL_ADDRESSES:
        raise Unsupported(f"{where}: {_PLANE} takes at most {POOL_ADDRESSES} local addresses")
