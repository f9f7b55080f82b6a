"""The grammar of ipvsadm(8): argument list -> Command. Pure.

Options are read from left to right, and each sees only what stood before it: `-r` without a port takes the port of
the service named so far, `-M` is a prefix length after an IPv6 service. Then follows the table of which command
takes which option, then what fits together. Words, order and wording of complaints are those of ipvsadm 1.31.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lbnode.cli.ipvsadm import values as values
from lbnode.cli.ipvsadm.legal import OPTION_NAMES, check_legal, check_tunnel
from lbnode.cli.ipvsadm.values import GrammarError, Host, OptionError
from lbnode.cli.ipvsadm.words import COMMANDS, UNKNOWN, WordError, Words
from lbnode.model import (
    Address,
    L4Protocol,
    ServerId,
    ServiceId,
    SyncDaemon,
    Tunnel,
    TunnelChecksum,
    TunnelType,
)

TRY_HELP = "Try `ipvsadm -h' or 'ipvsadm --help' for more information."
USAGE = 255  # -1, as a process returns it
FORWARD = {"gatewaying": "direct", "masquerading": "masquerade", "ipip": "tunnel", "fullnat": "fullnat"}
DEFAULT_SCHEDULER, DEFAULT_INTERFACE = "wlc", "eth0"
DEFAULT_DAEMON = SyncDaemon(DEFAULT_INTERFACE)
PLAIN_TUNNEL = Tunnel()


@dataclass(frozen=True, slots=True)
class Command:
    """One ipvsadm call. `options` holds ipvsadm's names of the options that were given."""

    name: str
    options: frozenset[str] = frozenset()
    service: ServiceId | None = None
    scheduler: str = DEFAULT_SCHEDULER
    scheduler_flags: tuple[str, ...] = ()
    persistent_s: int = 0
    netmask: int | None = None  # IPv4: its 32 bits, which may have holes; IPv6: a prefix length; None: a host
    persistence_engine: str = ""
    one_packet: bool = False
    server: ServerId | None = None
    forward: str = "direct"
    weight: int = 1
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel: Tunnel = PLAIN_TUNNEL
    timeouts: tuple[int, int, int] | None = None  # tcp, tcpfin, udp in seconds; 0 keeps
    daemon_state: str = ""  # "master" | "backup"
    daemon: SyncDaemon = DEFAULT_DAEMON


def parse(argv: Sequence[str], host: Host) -> Command:
    """GrammarError in ipvsadm's words for anything that ipvsadm refuses before it asks the kernel."""
    if not argv:
        return Command("list")
    words = Words(argv)
    options = iter(words)
    try:
        first, value = next(options)
    except (WordError, StopIteration):
        raise GrammarError(TRY_HELP, USAGE) from None
    if first not in COMMANDS:
        raise GrammarError(TRY_HELP, USAGE)
    name = COMMANDS[first]
    if name in ("help", "version"):
        return Command(name)
    reading = _Reading(host)
    if name in ("start-daemon", "stop-daemon"):
        reading.daemon_state(name, value or "")
    try:
        for option, value in options:
            if option == "full" and name != "save":
                raise WordError(UNKNOWN)  # ipvsadm has none
            if option in COMMANDS:
                raise GrammarError(f"invalid option `{words.word}'")
            reading.option(option, value)
    except WordError as error:
        raise OptionError(f"{words.word}: {error}", USAGE) from None
    if name == "set":
        reading.timeouts(words.rest)
    if words.rest:
        raise GrammarError(f"unexpected argument {words.rest[0]}")
    reading.scheduler_flags()
    check_legal(name, reading.given)
    return reading.command(name)


@dataclass(slots=True)
class _Reading:
    """What has been read so far."""

    host: Host
    given: set[str] = field(default_factory=set)
    fields: dict[str, object] = field(default_factory=dict)  # of Command, as far as they need nothing else
    sync: dict[str, object] = field(default_factory=dict)  # of SyncDaemon
    protocol: L4Protocol | None = None
    address: Address | None = None
    port: int = 0
    mark: int = 0
    inet6: bool = False
    mask: int = 0xFFFFFFFF  # bits for IPv4, prefix length for IPv6
    server: values.Endpoint | None = None
    flags: str = ""
    tunnel_type: TunnelType = TunnelType.IPIP
    tunnel_port: int = 0

    def option(self, option: str, value: str | None) -> None:
        if name := OPTION_NAMES.get(option, option):
            if name in self.given:
                raise GrammarError(f"multiple '{name}' options specified")
            self.given.add(name)
        if option in _READERS:
            _READERS[option](self, option, value or "")
        elif option == "persistent":
            self.fields["persistent_s"] = values.DEFAULT_PERSISTENCE_S if value is None else values.timeout(value, 1)

    def service(self, option: str, text: str) -> None:
        self.protocol = L4Protocol(option.removesuffix("-service"))
        found = values.endpoint(text, self.protocol, self.host)
        if found is None:
            raise GrammarError("illegal virtual server address[:port] specified")
        self.address, self.port, self.inet6 = found.address, found.port or 0, found.address.version == 6
        if self.inet6:
            self.mask = 128

    def fwmark(self, _: str, text: str) -> None:
        self.protocol, self.inet6, self.mark = L4Protocol.TCP, False, values.fwmark(text)

    def ipv6(self, _option: str, _value: str) -> None:
        if not self.mark:
            raise GrammarError("-6 used before -f\n")
        self.inet6, self.mask = True, 128

    def netmask(self, _: str, text: str) -> None:
        self.mask = values.netmask6(text) if self.inet6 else values.netmask(text, self.host)

    def real_server(self, _: str, text: str) -> None:
        found = values.endpoint(text, self.protocol or "", self.host)
        if found is None:
            raise GrammarError("illegal real server address[:port] specified")
        self.server = values.Endpoint(found.address, self.port if found.port is None else found.port)

    def tunnel(self, option: str, text: str) -> None:
        if option == "tun-port":
            self.tunnel_port = values.checked(text, 1, 65535, "tunnel port")
        elif text in tuple(TunnelType):
            self.tunnel_type = TunnelType(text)
        else:
            raise GrammarError("illegal tunnel type specified")

    def daemon_state(self, command: str, text: str) -> None:
        if text not in ("master", "backup"):
            parameter = "start-daemon parameter" if command == "start-daemon" else "start_daemon"
            raise GrammarError(f"illegal {parameter} specified")
        self.fields["daemon_state"] = text

    def timeouts(self, words: list[str]) -> None:
        """`--set tcp tcpfin udp`: takes its words from the front."""
        if len(words) < 3:
            raise GrammarError("--set option requires 3 timeout values")
        self.fields["timeouts"] = tuple(values.timeout(word, 0) for word in words[:3])
        del words[:3]

    def scheduler_flags(self) -> None:
        """Read when all options are known, since there are others for each scheduler; before anything else of them."""
        scheduler = str(self.fields.get("scheduler") or DEFAULT_SCHEDULER)
        self.fields["scheduler_flags"] = values.scheduler_flags(self.flags, scheduler)

    def command(self, name: str) -> Command:
        service, fields = self._service_id(), dict(self.fields)
        if name in ("add-service", "edit-service"):
            assert service is not None
            self._check_service(service)
            fields["scheduler"] = fields.get("scheduler") or DEFAULT_SCHEDULER
            fields["netmask"] = None if self.mask == (128 if self.inet6 else 0xFFFFFFFF) else self.mask
        elif name in ("add-server", "edit-server", "delete-server"):
            assert service is not None and self.server is not None
            fields["server"] = self._server_id(name, service)
            if name != "delete-server":
                fields["tunnel"] = self._tunnel()
        elif name == "list":
            self._check_views()
        elif name == "zero" and service is not None and not _names_something(service):
            service = None
        if self.sync:
            fields["daemon"] = SyncDaemon(**{"interface": DEFAULT_INTERFACE, **self.sync})  # type: ignore[arg-type]
        return Command(name, frozenset(self.given), service, **fields)  # type: ignore[arg-type]

    def _service_id(self) -> ServiceId | None:
        if self.mark:
            return ServiceId(None, None, 0, fwmark=self.mark, inet6=self.inet6)
        if self.address is None:
            return None
        return ServiceId(self.protocol, self.address, self.port, inet6=self.inet6)

    def _check_service(self, service: ServiceId) -> None:
        if not service.fwmark and not service.port and "persistent" not in self.given:
            raise GrammarError("Zero port specified for non-persistent service")
        if "ops" in self.given and not service.fwmark and service.protocol is not L4Protocol.UDP:
            raise GrammarError("One-Packet Scheduling is only for UDP virtual services")

    def _server_id(self, name: str, service: ServiceId) -> ServerId:
        """Direct and tunnel servers always have the port of the service, unless that is a mark."""
        assert self.server is not None
        address, port = self.server.address, self.server.port or 0
        forward = self.fields.get("forward", "direct")
        if name != "delete-server":
            if not service.fwmark and forward in ("direct", "tunnel"):
                port = service.port
            if address.version != service.family and forward != "tunnel":
                raise GrammarError("Different address family is allowed only for tunneling servers")
        return ServerId(address, port)

    def _tunnel(self) -> Tunnel:
        options = {option for option in self.given if option.startswith("tun-")}
        if self.fields.get("forward") != "tunnel":
            if options:
                raise GrammarError("Tunnel options conflict with forward method")
            return PLAIN_TUNNEL
        check_tunnel(self.tunnel_type, options)
        checksum = next((kind for kind in TunnelChecksum if f"tun-{kind}" in options), TunnelChecksum.NONE)
        return Tunnel(self.tunnel_type, self.tunnel_port, checksum)

    def _check_views(self) -> None:
        other = self.given & {"connection", "timeout", "daemon"}
        if (other and self.given & {"stats", "rate", "thresholds"}) or (
            other & {"timeout", "daemon"} and "persistent-conn" in self.given
        ):
            raise GrammarError("options conflicts in the list command")


def _names_something(service: ServiceId) -> bool:
    """ipvsadm -Z takes a service without a mark, an address and a port for none, so for all."""
    return bool(service.fwmark or service.port or (service.address and int(service.address)))


def _number(name: str, high: int, what: str, low: int = 0) -> Callable[[_Reading, str, str], None]:
    def read(reading: _Reading, _: str, text: str) -> None:
        reading.fields[name] = values.checked(text, low, high, what)

    return read


def _sync_number(name: str, low: int, high: int, what: str) -> Callable[[_Reading, str, str], None]:
    def read(reading: _Reading, _: str, text: str) -> None:
        reading.sync[name] = values.checked(text, low, high, what)

    return read


def _forward(reading: _Reading, option: str, _: str) -> None:
    reading.fields["forward"] = FORWARD[option]


def _scheduler(reading: _Reading, _: str, text: str) -> None:
    reading.fields["scheduler"] = text[:15]  # IP_VS_SCHEDNAME_MAXLEN - 1


def _flags(reading: _Reading, _: str, text: str) -> None:
    reading.flags = text


def _engine(reading: _Reading, _: str, text: str) -> None:
    reading.fields["persistence_engine"] = text[:16]  # IP_VS_PENAME_MAXLEN


def _one_packet(reading: _Reading, _option: str, _value: str) -> None:
    reading.fields["one_packet"] = True


def _interface(reading: _Reading, _: str, text: str) -> None:
    reading.sync["interface"] = text[:15] or DEFAULT_INTERFACE  # IP_VS_IFNAME_MAXLEN - 1


def _group(reading: _Reading, _: str, text: str) -> None:
    reading.sync["group"] = values.multicast(text)


_READERS: Mapping[str, Callable[[_Reading, str, str], None]] = {
    "tcp-service": _Reading.service, "udp-service": _Reading.service, "sctp-service": _Reading.service,
    "fwmark-service": _Reading.fwmark, "ipv6": _Reading.ipv6, "netmask": _Reading.netmask,
    "scheduler": _scheduler, "sched-flags": _flags, "pe": _engine, "ops": _one_packet,
    "real-server": _Reading.real_server, "gatewaying": _forward, "masquerading": _forward, "ipip": _forward,
    "fullnat": _forward,
    "weight": _number("weight", values.INT_MAX, "weight"),
    "u-threshold": _number("upper_threshold", values.INT_MAX, "u_threshold"),
    "l-threshold": _number("lower_threshold", values.INT_MAX, "l_threshold"),
    "tun-type": _Reading.tunnel, "tun-port": _Reading.tunnel,
    "mcast-interface": _interface, "mcast-group": _group,
    "syncid": _sync_number("syncid", 0, 255, "syncid"),
    "mcast-port": _sync_number("port", 1, 65535, "mcast-port"),
    "mcast-ttl": _sync_number("ttl", 1, 255, "mcast-ttl"),
    "sync-maxlen": _sync_number("maxlen", 1, 65535 - 20 - 8, "sync-maxlen"),
}  # fmt: skip
