"""Between the model's words and ip_vs's, and from the kernel's errors to sentences. Pure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from lbnode.dataplane.base import (
    DeleteServer,
    DeleteService,
    Op,
    PutServer,
    PutService,
    SetDropRules,
    SetSyncDaemons,
    SetSysctls,
    SetTimeouts,
)
from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Daemon, Destination, Flags, Method, Service, Stats, TunnelFlags
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.model import (
    IPIP,
    SCHEDULERS,
    Counters,
    DropRules,
    ForwardingMethod,
    Netmask,
    OwnTimeouts,
    ProgrammedServer,
    ProgrammedService,
    Rates,
    ServerId,
    ServiceCounters,
    ServiceId,
    Tunnel,
    TunnelChecksum,
    TunnelType,
    flags_of,
)

_METHODS = {
    ForwardingMethod.MASQUERADE: Method.MASQUERADE,
    ForwardingMethod.DIRECT: Method.DIRECT,
    ForwardingMethod.TUNNEL: Method.TUNNEL,
}
FORWARDING = frozenset(_METHODS)
# LOCAL and BYPASS leave packets as they are, as direct routing does; the kernel never reports them for a server.
_FORWARDING = {method: forward for forward, method in _METHODS.items()}
_TUNNEL_TYPES = {
    TunnelType.IPIP: codec.TunnelType.IPIP,
    TunnelType.GUE: codec.TunnelType.GUE,
    TunnelType.GRE: codec.TunnelType.GRE,
}
_TUNNEL_NAMES = {number: name for name, number in _TUNNEL_TYPES.items()}
_TUNNEL_CHECKSUMS = {
    TunnelChecksum.NONE: TunnelFlags.NO_CHECKSUM,
    TunnelChecksum.FULL: TunnelFlags.CHECKSUM,
    TunnelChecksum.REMOTE: TunnelFlags.REMOTE_CHECKSUM,
}
_CHECKSUM_NAMES = {flags: name for name, flags in _TUNNEL_CHECKSUMS.items()}
_HOST_NETMASK = {4: 0xFFFFFFFF, 6: 128}
_SCHEDULER_BITS = (Flags.SCHED_1, Flags.SCHED_2, Flags.SCHED_3)  # in the order of flags_of()


def available_schedulers(module_files: Iterable[str]) -> frozenset[str]:
    """The schedulers among the kernel's modules: `module_files` are modules.dep and modules.builtin as text. All of
    them if these name none: then the kernel tells on first use."""
    text = "\n".join(module_files)
    named = frozenset(name for name in SCHEDULERS if f"/ip_vs_{name}.ko" in text)
    return named or frozenset(SCHEDULERS)


def to_service(service: ProgrammedService) -> Service:
    flags = Flags(0)
    if service.persistent_s:
        flags |= Flags.PERSISTENT
    if service.one_packet:
        flags |= Flags.ONE_PACKET
    for name, bit in zip(flags_of(service.scheduler), _SCHEDULER_BITS, strict=True):
        if name in service.scheduler_flags:
            flags |= bit
    netmask = _to_netmask(service.persistent_netmask, service.id.family)
    return Service(service.id, service.scheduler, flags, service.persistent_s, netmask, service.persistence_engine)


def _to_netmask(netmask: Netmask | None, family: int) -> int:
    if netmask is None:
        return _HOST_NETMASK[family]
    if isinstance(netmask, IPv4Address):
        return int(netmask)
    return netmask if family == 6 else _mask(netmask)


def _from_netmask(netmask: int, family: int) -> Netmask | None:
    """None for one host."""
    if netmask == _HOST_NETMASK[family]:
        return None
    if family == 6:
        return netmask
    prefix_len = netmask.bit_count()
    return prefix_len if netmask == _mask(prefix_len) else IPv4Address(netmask)


def _mask(prefix_len: int) -> int:
    return 0xFFFFFFFF << (32 - prefix_len) & 0xFFFFFFFF


def to_programmed(service: Service, destinations: Iterable[Destination]) -> ProgrammedService:
    persistent = Flags.PERSISTENT in service.flags
    names = zip(flags_of(service.scheduler), _SCHEDULER_BITS, strict=True)
    return ProgrammedService(
        service.id,
        service.scheduler,
        scheduler_flags=frozenset(name for name, bit in names if bit in service.flags),
        persistent_s=service.timeout_s if persistent else 0,
        persistent_netmask=_from_netmask(service.netmask, service.id.family) if persistent else None,
        persistence_engine=service.pe_name,
        one_packet=Flags.ONE_PACKET in service.flags,
        servers={item.id: _from_destination(item) for item in destinations},
    )


def to_destination(server: ProgrammedServer) -> Destination:
    return Destination(
        server.id,
        _METHODS[server.forward],
        server.weight,
        server.upper_threshold,
        server.lower_threshold,
        _TUNNEL_TYPES[server.tunnel.type],
        server.tunnel.port,
        _TUNNEL_CHECKSUMS[server.tunnel.checksum],
    )


def _from_destination(item: Destination) -> ProgrammedServer:
    forward = _FORWARDING.get(item.method, ForwardingMethod.DIRECT)
    tunnel = IPIP
    if item.method is Method.TUNNEL:
        checksum = _CHECKSUM_NAMES.get(item.tunnel_flags, TunnelChecksum.NONE)
        tunnel = Tunnel(_TUNNEL_NAMES[item.tunnel_type], item.tunnel_port, checksum)
    return ProgrammedServer(item.id, item.weight, forward, item.upper_threshold, item.lower_threshold, tunnel)


def to_counters(service: Service, items: Sequence[Destination]) -> ServiceCounters:
    """With the kernel's own rates: its counters stand still for two seconds, so a difference over one tells nothing."""
    rates: dict[ServerId | None, Rates] = {item.id: _rates(item.stats) for item in items}
    rates[None] = _rates(service.stats)
    servers = {item.id: _counters(item.stats, [item]) for item in items}
    return ServiceCounters(_counters(service.stats, items), servers, rates)


def _rates(stats: Stats) -> Rates:
    return Rates(
        *(stats.connections_rate, stats.packets_in_rate, stats.packets_out_rate),
        *(stats.bytes_in_rate, stats.bytes_out_rate),
    )


def _counters(stats: Stats, items: Sequence[Destination]) -> Counters:
    """Totals from `stats`, gauges from the destinations they are about."""
    return Counters(
        *(stats.connections, stats.packets_in, stats.packets_out, stats.bytes_in, stats.bytes_out),
        active=sum(item.active for item in items),
        inactive=sum(item.inactive for item in items),
        persistent=sum(item.persistent for item in items),
    )


# --- what cannot work, and what went wrong -------------------------------------------------------------------


def check(op: Op) -> None:
    """Raise Unsupported for what the kernel would take and never do, or refuse without saying why."""
    match op:
        case PutService(service):
            allowed = flags_of(service.scheduler)
            if wrong := sorted(service.scheduler_flags.difference(allowed)):
                raise Unsupported(
                    f"{service.id}: scheduler {service.scheduler} has no flag {' '.join(wrong)}; "
                    f"it has only: {' '.join(allowed)}"
                )
            access = (
                ("allow", service.access.allow),
                ("deny", service.access.deny),
                ("new_connections", service.access.rate),
            )
            if lists := ", ".join(name for name, given in access if given):
                raise Unsupported(f"{service.id}: {lists}: ip_vs looks at no client; the XDP/tcx data plane does")
            if service.timeouts != OwnTimeouts():
                raise Unsupported(
                    f"{service.id}: timeouts: ip_vs has one set for all services (settings); the XDP/tcx data plane "
                    "has them per service, too"
                )
            if service.syn_proxy is not None:
                raise Unsupported(f"{service.id}: IPVS has no SYN proxy (syn_proxy), only the XDP/tcx data plane has")
            if service.mss is not None:
                raise Unsupported(f"{service.id}: mss: ip_vs looks at no TCP option; the XDP/tcx data plane does")
        case PutServer(service_id, server):
            _check_server(service_id, server)
        case SetDropRules(rules) if rules != DropRules():
            names = [name for name in ("ip_options", "bad_checksums") if getattr(rules, name)]
            raise Unsupported(f"drop: {', '.join(names)}: ip_vs cannot look at that; the XDP/tcx data plane can")
        case _:
            pass


def _check_server(service_id: ServiceId, server: ProgrammedServer) -> None:
    if reason := _why_not(service_id, server):
        raise Unsupported(f"{service_id}: server {server.id}: {reason}")


def _why_not(service_id: ServiceId, server: ProgrammedServer) -> str:
    """Empty: nothing is wrong."""
    forward = server.forward
    if forward not in FORWARDING:
        return f"IPVS has no {forward}, only the XDP/tcx data plane has; it forwards by {', '.join(sorted(FORWARDING))}"
    if forward is not ForwardingMethod.TUNNEL and server.id.address.version != service_id.family:
        return (
            f"{forward} cannot reach an IPv{server.id.address.version} server of an IPv{service_id.family} service; "
            "only tunnel can"
        )
    if forward is ForwardingMethod.MASQUERADE or service_id.fwmark or server.id.port == service_id.port:
        return ""
    return (
        f"{forward} leaves the port as it is, so the server's port must be {service_id.port}; "
        "use masquerade to change it"
    )


def explain(op: Op, code: int) -> DataPlaneError:
    """The kernel's errno for `op` as a message that names the object and what to do."""
    match op:
        case PutService(service):
            words = {"scheduler": service.scheduler, "engine": service.persistence_engine}
            known = _ENGINE_ERRORS if service.persistence_engine else {}
            return _error(f"{service.id}", code, {**_SERVICE_ERRORS, **known}, **words)
        case PutServer(service_id, server):
            thresholds = {"upper": server.upper_threshold, "lower": server.lower_threshold}
            where = f"{service_id}: server {server.id}"
            return _error(where, code, _SERVER_ERRORS, service=service_id, weight=server.weight, **thresholds)
        case DeleteService(service_id):
            return _error(f"{service_id}: deleting it", code, {})
        case DeleteServer(service_id, server_id):
            return _error(f"{service_id}: deleting server {server_id}", code, {})
        case SetTimeouts(timeouts):
            return _error(f"time-outs {timeouts.tcp_s} {timeouts.tcp_fin_s} {timeouts.udp_s}", code, _TIMEOUT_ERRORS)
        case SetSyncDaemons() | SetSysctls() | SetDropRules():
            return explain_request("sync daemons" if isinstance(op, SetSyncDaemons) else "net.ipv4.vs", code)


def explain_daemon(daemon: Daemon, code: int) -> DataPlaneError:
    where = f"sync daemon ({daemon.state.name.lower()}, interface {daemon.interface}, id {daemon.sync_id})"
    return _error(where, code, _DAEMON_ERRORS, interface=daemon.interface)


def explain_request(what: str, code: int) -> DataPlaneError:
    """For requests that are about no single object."""
    return _error(what, code, {})


NO_IP_VS = (
    "this kernel has no ip_vs: install the modules of the running kernel (modprobe ip_vs must succeed), "
    "or use the XDP data plane"
)
# Ever: retrying is pointless until somebody changes the configuration or the kernel.
_PERMANENT = frozenset({errno.EINVAL, errno.ERANGE, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})

_COMMON_ERRORS = {
    errno.EPERM: "not permitted: lbnoded needs CAP_NET_ADMIN (run it as root)",
    errno.ENOMEM: "the kernel has no memory for it",
    errno.ENOBUFS: "the kernel has no memory for the answer",
}
_SERVICE_ERRORS = {
    errno.ENOENT: "this kernel has no scheduler {scheduler}: load the module ip_vs_{scheduler}, or choose another",
    errno.ESRCH: "somebody else deleted it at the same moment",
    errno.EEXIST: "somebody else added it at the same moment",
    errno.EINVAL: "ip_vs refuses its parameters: check address, netmask and scheduler {scheduler}",
    errno.EPROTONOSUPPORT: "this kernel's ip_vs was built without this protocol",
    errno.EAFNOSUPPORT: "this kernel's ip_vs was built without this address family",
}
_ENGINE_ERRORS = {
    errno.ENOENT: "this kernel has no scheduler {scheduler}, or no persistence engine {engine}: load the modules "
    "ip_vs_{scheduler} and ip_vs_pe_{engine}, or choose others",
}
_SERVER_ERRORS = {
    errno.ESRCH: "there is no service {service}; put the service first",
    errno.ENOENT: "somebody else deleted it at the same moment",
    errno.EEXIST: "somebody else added it at the same moment",
    errno.ERANGE: "weight {weight}, upper threshold {upper}, lower threshold {lower}: the lower threshold must not be "
    "above the upper one, and no weight below 0",
    errno.EINVAL: "ip_vs refuses its address: it must be a unicast address that has a route, and a server of another "
    "address family excludes the kernel's sync daemon",
}
_TIMEOUT_ERRORS = {errno.EINVAL: "each must be from 1 to 2147483 seconds"}
_DAEMON_ERRORS = {
    errno.ENODEV: "there is no interface {interface}; name one that is there and up",
    errno.EEXIST: "it runs already; stop it first to change its options",
    errno.ESRCH: "it does not run",
    errno.EINVAL: "ip_vs refuses it: it cannot run beside servers of another address family than their service",
    errno.EADDRNOTAVAIL: "interface {interface} has no address to send from",
}


def _error(where: str, code: int, known: dict[int, str], **details: object) -> DataPlaneError:
    reason = known.get(code) or _COMMON_ERRORS.get(code) or f"the kernel says: {os.strerror(code)}"
    kind = Unsupported if code in _PERMANENT else DataPlaneError
    return kind(f"{where}: {reason.format(**details)}", code)
