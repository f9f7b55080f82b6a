"""Validated documents -> the model's values. Pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

from healthcheck.spec import CheckSpec, CheckType, DnsSpec, HttpSpec, ScriptSpec, SmtpSpec, UdpSpec
from lbnode.config.access_document import HOST_PREFIX
from lbnode.config.check_document import SCRIPTS, CheckDocument, status_range
from lbnode.config.schema import ServerDocument, ServiceDocument, SettingsDocument
from lbnode.config.vip_group_document import TrackDocument, VipGroupDocument, local_addresses, vip_address
from lbnode.model import (
    Access,
    ConnectionRate,
    DropRules,
    ForwardingMethod,
    Netmask,
    OwnTimeouts,
    RealServer,
    ServerId,
    ServiceId,
    Settings,
    SyncDaemon,
    Timeouts,
    Track,
    Tunnel,
    TunnelChecksum,
    TunnelType,
    VipGroup,
    VirtualService,
    WhenAllDown,
    WhenDown,
)


def check_spec(document: CheckDocument) -> CheckSpec:
    spec = CheckSpec(
        type=CheckType(document.type),
        interval_s=float(document.interval),
        timeout_s=float(document.timeout),
        rise=document.rise,
        fall=document.fall,
        jitter=float(document.jitter),
        port=document.port,
    )
    match document.type:
        case "http" | "https":
            return replace(spec, http=_http_spec(document))
        case "dns":
            return replace(spec, dns=DnsSpec(document.dns_name, document.dns_type))
        case "udp":
            return replace(spec, udp=UdpSpec(document.payload, document.reply))
        case "smtp":
            return replace(spec, smtp=SmtpSpec(document.helo))
        case "script":
            return replace(spec, script=ScriptSpec(f"{SCRIPTS}/{document.script}", document.arguments))
    return spec


def _http_spec(document: CheckDocument) -> HttpSpec:
    statuses = (code for item in document.expected_statuses for code in status_range(item))
    return HttpSpec(
        method=document.method,
        path=document.path,
        host=document.host,
        expected_statuses=frozenset(statuses),
        body_match=document.body_match,
        tls_verify=document.tls_verify,
        tls_ca_file=document.tls_ca_file,
        tls_server_name=document.tls_server_name,
    )


def real_server(server_id: ServerId, document: ServerDocument) -> RealServer:
    return RealServer(
        id=server_id,
        weight=document.weight,
        forward=ForwardingMethod(document.forward),
        drain=document.drain,
        upper_threshold=document.upper_threshold,
        lower_threshold=document.lower_threshold,
        tunnel=Tunnel(TunnelType(document.tunnel_type), document.tunnel_port, TunnelChecksum(document.tunnel_checksum)),
        toa=document.toa and document.forward == "fullnat",
    )


def netmask(value: int | str | None) -> Netmask | None:
    """A dotted mask without holes is the same as its prefix length."""
    if not isinstance(value, str):
        return value
    mask = IPv4Address(value)
    prefix_len = int(mask).bit_count()
    return prefix_len if int(mask) == 0xFFFFFFFF << 32 - prefix_len & 0xFFFFFFFF else mask


def virtual_service(
    service_id: ServiceId,
    document: ServiceDocument,
    check: CheckSpec | None,
    servers: tuple[RealServer, ...],
    revision: int,
) -> VirtualService:
    return VirtualService(
        id=service_id,
        scheduler=document.scheduler,
        scheduler_flags=frozenset(document.flags),
        persistent_s=document.persistent,
        persistent_netmask=netmask(document.persistent_netmask),
        persistence_engine=document.persistence_engine,
        one_packet=document.one_packet,
        syn_proxy=document.syn_proxy,
        mss=document.mss,
        access=access(document, service_id.family),
        timeouts=OwnTimeouts(document.timeouts.tcp, document.timeouts.tcp_fin, document.timeouts.udp),
        vip_group=document.vip_group,
        check=check,
        when_down=WhenDown(document.when_down),
        when_all_down=WhenAllDown(document.when_all_down),
        servers=servers,
        revision=revision,
    )


def access(document: ServiceDocument, family: int) -> Access:
    limit = document.new_connections
    rate = None
    if limit is not None:
        prefix_len = HOST_PREFIX[family] if limit.prefix is None else limit.prefix
        rate = ConnectionRate(limit.rate, limit.rate if limit.burst is None else limit.burst, prefix_len)
    return Access(frozenset(map(ip_network, document.allow)), frozenset(map(ip_network, document.deny)), rate)


def vip_group(name: str, document: VipGroupDocument, revision: int) -> VipGroup:
    return VipGroup(
        name=name,
        vrid=document.vrid,
        addresses=tuple(vip_address(text) for text in document.addresses),
        priorities=dict(document.priorities),
        interface=document.interface,
        advert_interval_s=round(document.advert_interval, 2),
        preempt=document.preempt,
        preempt_delay_s=document.preempt_delay,
        startup_delay_s=document.startup_delay,
        version=document.version,
        checksum=document.checksum,
        unicast_peers=tuple(ip_address(text) for text in document.unicast_peers),
        authentication=document.authentication,
        virtual_mac=document.virtual_mac,
        policy=document.policy,
        track=tuple(_track(entry) for entry in document.track),
        local_addresses=local_addresses(document.local_addresses),
        revision=revision,
    )


def _track(document: TrackDocument) -> Track:
    kinds = ("gateway", "interface", "dataplane", "sync", "service", "script", "file")
    kind = next(kind for kind in kinds if getattr(document, kind) is not None)
    value = getattr(document, kind)
    what = "" if value is True else str(ip_address(value)) if kind == "gateway" else value
    return Track(kind, what, document.weight, document.share, document.interval)


def settings(document: SettingsDocument) -> Settings:
    timeouts, daemons = document.timeouts, document.sync_daemons
    return Settings(
        Timeouts(timeouts.tcp, timeouts.tcp_fin, timeouts.udp),
        sysctl=dict(document.sysctl),
        maintenance=tuple(document.maintenance),
        foreign_services=document.foreign_services,
        dataplane=document.dataplane,
        sync_daemons={
            state: SyncDaemon(
                daemon.interface, daemon.syncid, daemon.maxlen, ip_address(daemon.group), daemon.port, daemon.ttl
            )
            for state, daemon in (("master", daemons.master), ("backup", daemons.backup))
            if daemon is not None
        },
        sync_by_role=daemons.by_role,
        local_addresses={node: local_addresses(texts) for node, texts in document.local_addresses.items()},
        drop=DropRules(document.drop.ip_options, document.drop.bad_checksums),
    )
