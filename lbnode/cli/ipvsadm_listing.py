"""What ipvsadm(8) prints: tables, saved rules and connections from API objects. Pure.

Column widths, words and the order of services are those of ipvsadm 1.31.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, ip_address
from typing import Any

from lbnode.model import ServerId, ServiceId

Json = Mapping[str, Any]
# (address, port or None, protocol) -> text; numeric unless names were asked for.
Namer = Callable[[str, int | None, str], str]

VERSION = "IP Virtual Server version 1.2.1 (size=4096)"
FORWARD = {"masquerade": "Masq", "direct": "Route", "tunnel": "Tunnel"}
FORWARD_OPTION = {"masquerade": "-m", "direct": "-g", "tunnel": "-i"}
_PROTOCOL_ORDER = {"tcp": 6, "udp": 17, "sctp": 132}


def numeric(address: str, port: int | None, protocol: str) -> str:
    del protocol
    host = f"[{address}]" if ":" in address else address
    return host if port is None else f"{host}:{port}"


def table(
    services: Iterable[Json], view: str, namer: Namer, *, exact: bool = False, full: bool = True
) -> Iterator[str]:
    """Lines of `-L`. `view`: "", "stats", "rate" or "thresholds"; `full` False is the listing of one service."""
    if full:
        yield VERSION
    yield from _HEADERS[view]
    programmed = (service for service in services if service["effective_scheduler"] is not None)
    for service in sorted(programmed, key=_sort_key):
        yield _service_line(service, view, namer, exact)
        servers = (server for server in service["servers"] if server["effective_weight"] is not None)
        for server in sorted(servers, key=lambda server: ServerId.parse(server["id"]).sort_key()):
            yield _server_line(service, server, view, namer, exact)


_HEADERS: Mapping[str, tuple[str, str]] = {
    "": (
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
    ),
    "stats": (
        "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes",
        "  -> RemoteAddress:Port",
    ),
    "rate": (
        "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS",
        "  -> RemoteAddress:Port",
    ),
    "thresholds": (
        "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn ",
        "  -> RemoteAddress:Port",
    ),
}


def _sort_key(service: Json) -> tuple[int, int, int, int, int]:
    key = ServiceId.parse(service["id"])
    return (key.fwmark, key.family, _PROTOCOL_ORDER.get(key.protocol or "", 0), int(key.address or 0), key.port)


def service_name(key: ServiceId, namer: Namer) -> str:
    """`TCP  192.0.2.1:80`, `FWM  1 IPv6`."""
    if key.fwmark:
        return f"FWM  {key.fwmark} IPv6" if key.inet6 else f"FWM  {key.fwmark}"
    assert key.protocol is not None
    return f"{key.protocol.upper():<4} {namer(str(key.address), key.port, key.protocol)}"


def _service_line(service: Json, view: str, namer: Namer, exact: bool) -> str:
    name = service_name(ServiceId.parse(service["id"]), namer)
    if view in ("stats", "rate"):
        return f"{name:<33}{_figures(service, view, exact)}"
    words = [name, service["effective_scheduler"]]
    if service["scheduler_flags"]:
        words.append(f"({','.join(service['scheduler_flags'])})")
    if service["persistent_s"]:
        words.append(f"persistent {service['persistent_s']}")
        if (mask := _netmask(service)) is not None:
            words.append(f"mask {mask}")
    if service["one_packet"]:
        words.append("ops")
    return " ".join(words)


def _server_line(service: Json, server: Json, view: str, namer: Namer, exact: bool) -> str:
    key = ServerId.parse(server["id"])
    name = f"  -> {namer(str(key.address), key.port, str(ServiceId.parse(service['id']).protocol or 'tcp')):<28}"
    counters = server["counters"]
    if view in ("stats", "rate"):
        return f"{name:<33}{_figures(server, view, exact)}"
    if view == "thresholds":
        limits = f"{server['upper_threshold']:<10} {server['lower_threshold']:<10}"
        return f"{name} {limits} {counters['active']:<10} {counters['inactive']:<10}"
    forward, weight = FORWARD[server["forward"]], server["effective_weight"]
    return f"{name} {forward:<7} {weight:<6} {counters['active']:<10} {counters['inactive']:<10}"


def _figures(item: Json, view: str, exact: bool) -> str:
    source = item["counters"] if view == "stats" else item["rates"]
    names = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")
    return "".join(f" {large_number(round(source[name]), exact)}" for name in names)


def large_number(value: int, exact: bool) -> str:
    """Eight columns: above 99999999 in thousands, millions, ..., unless exact."""
    if exact or value <= 99_999_999:
        return f"{value:>8}"
    for unit, divisor in (("K", 10**3), ("M", 10**6), ("G", 10**9), ("T", 10**12)):
        if value // divisor <= 9_999_999 or unit == "T":
            return f"{value // divisor:>7}{unit}"
    raise AssertionError


def _netmask(service: Json) -> str | None:
    length, family = service["persistent_netmask"], ServiceId.parse(service["id"]).family
    if length is None or length == (32 if family == 4 else 128):
        return None
    return str(IPv4Network(f"0.0.0.0/{length}").netmask) if family == 4 else str(length)


def saved(services: Iterable[Json], namer: Namer) -> Iterator[str]:
    """Lines of `-S`: commands that make the same table again. Configured, not effective, weights."""
    for service in sorted(services, key=_sort_key):
        key = ServiceId.parse(service["id"])
        target = _service_option(key, namer)
        words = ["-A", target, "-s", service["scheduler"]]
        if service["persistent_s"]:
            words += ["-p", str(service["persistent_s"])]
            if (mask := _netmask(service)) is not None:
                words += ["-M", mask]
        if service["one_packet"]:
            words.append("-o")
        if service["scheduler_flags"]:
            words += ["-b", ",".join(service["scheduler_flags"])]
        yield " ".join(words)
        for server in sorted(service["servers"], key=lambda server: ServerId.parse(server["id"]).sort_key()):
            end = ServerId.parse(server["id"])
            name = namer(str(end.address), end.port, str(key.protocol or "tcp"))
            weight = f"-w {server['configured_weight']}"
            tunnel = " --tun-type ipip" if server["forward"] == "tunnel" else ""
            yield f"-a {target} -r {name} {FORWARD_OPTION[server['forward']]} {weight}{tunnel}"


def _service_option(key: ServiceId, namer: Namer) -> str:
    if key.fwmark:
        return f"-f {key.fwmark} -6" if key.inet6 else f"-f {key.fwmark}"
    option = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}[str(key.protocol)]
    return f"{option} {namer(str(key.address), key.port, str(key.protocol))}"


def connections(items: Iterable[Json], namer: Namer) -> Iterator[str]:
    """Lines of `-L -c`."""
    yield "IPVS connection entries"
    yield "pro expire state       source             virtual            destination"
    for item in items:
        seconds = int(item["expires_s"])
        source, virtual, destination = (
            namer(str(ip_address(item[end][0])), item[end][1], item["protocol"])
            for end in ("client", "virtual", "server")
        )
        expire = f"{seconds // 60:02}:{seconds % 60:02}"
        yield f"{item['protocol'].upper():<3} {expire}  {item['state']:<11} {source:<18} {virtual:<18} {destination}"
