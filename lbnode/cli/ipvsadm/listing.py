"""What ipvsadm(8) prints: tables, saved rules, connections, timeouts and daemons. Pure.

Column widths and words are those of ipvsadm 1.31, blanks at the end of a line included. The order of services and
servers is by number (ipvsadm's own comparison overflows for addresses more than 2^31 apart).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any

from lbnode.model import Address, ServerId, ServiceId, Timeouts, flags_of

Json = Mapping[str, Any]
# (address, port, protocol or "") -> text; numeric unless names were asked for.
Namer = Callable[[str, int, str], str]

FORWARD = {"masquerade": "Masq", "direct": "Route", "tunnel": "Tunnel", "fullnat": "FullNat"}
FORWARD_OPTION = {"masquerade": "-m", "direct": "-g", "tunnel": "-i", "fullnat": "--fullnat"}
_PROTOCOL_ORDER = {"tcp": 6, "udp": 17, "sctp": 132}
_CHECKSUM = {"nocsum": "-c", "csum": "+c", "remcsum": "r+c"}

# Of several views at once, the first wins.
VIEWS = ("stats", "rate", "thresholds", "persistent-conn", "tun-info")
_SERVER_HEADER = "  -> RemoteAddress:Port"
_HEADERS: Mapping[str, tuple[str, str]] = {
    "": (
        "Prot LocalAddress:Port Scheduler Flags",
        f"{_SERVER_HEADER}           Forward Weight ActiveConn InActConn",
    ),
    "stats": ("Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes", _SERVER_HEADER),
    "rate": ("Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS", _SERVER_HEADER),
    "thresholds": ("Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn ", _SERVER_HEADER),
    "persistent-conn": (
        "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn ",
        _SERVER_HEADER,
    ),
    "tun-info": (
        "Prot LocalAddress:Port Scheduler Flags",
        f"{_SERVER_HEADER}           Forward TunnelInfo    Weight ActiveConn InActConn",
    ),
}
_SERVICE_WIDTH, _SERVER_WIDTH = 33, 28  # longer names of IPv4 are cut


def address_text(address: Address) -> str:
    """inet_ntop(3), which writes the last 32 bits of ::ffff:192.0.2.1 and of ::192.0.2.1 as IPv4."""
    number = int(address)
    if isinstance(address, IPv6Address) and (2**16 <= number < 2**32 or number >> 32 == 0xFFFF):
        return f"::{'ffff:' if number >> 32 else ''}{IPv4Address(number & 0xFFFFFFFF)}"
    return str(address)


def _written(text: str) -> str:
    """The same of a canonical address; IPv4 is so already."""
    return address_text(ip_address(text)) if ":" in text else text


def numeric(address: str, port: int, protocol: str) -> str:
    del protocol
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# Parsing addresses is most of the work, and the same ones come again: to sort, to print, in one service and the next.
_service_id, _server_id = cache(ServiceId.parse), cache(ServerId.parse)


def title(version: tuple[int, int, int] = (1, 2, 1), table_size: int = 4096) -> str:
    """`table_size`: hash buckets of the connection table."""
    return f"IP Virtual Server version {'.'.join(map(str, version))} (size={table_size})"


def view_of(options: AbstractSet[str]) -> str:
    return next((view for view in VIEWS if view in options), "")


# --- ipvsadm -L ------------------------------------------------------------------------------------------------


def table(
    services: Iterable[Json],
    view: str,
    namer: Namer,
    *,
    exact: bool = False,
    title: str | None = None,
    in_order: bool = True,
) -> Iterator[str]:
    """`view`: one of VIEWS or ""; `title` None is the listing of one service; `in_order` False is --nosort."""
    if title is not None:
        yield title
    yield from _HEADERS[view]
    programmed = [service for service in services if service["effective_scheduler"] is not None]
    for service in sorted(programmed, key=_service_order) if in_order else programmed:
        yield _service_line(service, view, namer, exact)
        servers = [server for server in service["servers"] if server["effective_weight"] is not None]
        for server in sorted(servers, key=_server_order) if in_order else servers:
            yield _server_line(service, server, view, namer, exact)


def _service_order(service: Json) -> tuple[int, int, int, int, int]:
    key = _service_id(service["id"])
    return (
        _signed(key.fwmark),
        key.family,
        _PROTOCOL_ORDER.get(key.protocol or "", 0),
        int(key.address or 0),
        key.port,
    )


def _server_order(server: Json) -> tuple[int, int, int]:
    return _server_id(server["id"]).sort_key()


def service_name(key: ServiceId, namer: Namer) -> str:
    """`TCP  192.0.2.1:80`, `FWM  1 IPv6`."""
    if key.fwmark:
        return f"FWM  {_signed(key.fwmark)}{' IPv6' if key.inet6 else ''}"
    assert key.protocol is not None and key.address is not None
    name = f"{key.protocol.upper():<4} {namer(address_text(key.address), key.port, key.protocol)}"
    return name if key.family == 6 else name[:_SERVICE_WIDTH]


def _signed(mark: int) -> int:
    """ipvsadm prints marks by %d."""
    return mark - 2**32 if mark >= 2**31 else mark


def _service_line(service: Json, view: str, namer: Namer, exact: bool) -> str:
    name = service_name(_service_id(service["id"]), namer)
    if view in ("stats", "rate"):
        return f"{name:<{_SERVICE_WIDTH}}{_figures(service, view, exact)}"
    words = [name, service["effective_scheduler"]]
    if service["scheduler_flags"]:
        words.append(f"({shown_flags(service)})")
    if service["persistent_s"]:
        words.append(f"persistent {service['persistent_s']}")
        if (mask := _netmask(service)) is not None:
            words.append(f"mask {mask}")
        if service["persistence_engine"]:
            words.append(f"pe {service['persistence_engine']}")
    if service["one_packet"]:
        words.append("ops")
    return " ".join(words)


def shown_flags(service: Json) -> str:
    """In the order of their bits; the third has no name for sh and mh, so it is not shown there."""
    scheduler = service["scheduler"]
    known = flags_of(scheduler)
    if known[0] != "flag-1":
        known = known[:2]
    return ",".join(flag for flag in known if flag in service["scheduler_flags"])


def _server_line(service: Json, server: Json, view: str, namer: Namer, exact: bool) -> str:
    key = _server_id(server["id"])
    name = namer(address_text(key.address), key.port, _service_id(service["id"]).protocol or "")
    if key.address.version == 4:
        name = name[:_SERVER_WIDTH]
    name = f"  -> {name:<{_SERVER_WIDTH}}"
    if view in ("stats", "rate"):
        return f"{name}{_figures(server, view, exact)}"
    counters, weight = server["counters"], server["effective_weight"]
    connections = f"{counters['active']:<10} {counters['inactive']:<10}"
    if view == "thresholds":
        return f"{name} {server['upper_threshold']:<10} {server['lower_threshold']:<10} {connections}"
    if view == "persistent-conn":
        return f"{name} {weight:<9} {counters['persistent']:<11} {connections}"
    tunnel = f" {tunnel_info(server):<13}" if view == "tun-info" else ""
    return f"{name} {FORWARD[server['forward']]:<7}{tunnel} {weight:<6} {connections}"


def tunnel_info(server: Json) -> str:
    """`ipip`, `gue:6080:+c`, `gre:-c`, or `n/a`."""
    if server["forward"] != "tunnel":
        return "n/a"
    tunnel = server["tunnel"]
    checksum = _CHECKSUM[tunnel["checksum"]]
    match tunnel["type"]:
        case "gue":
            return f"gue:{tunnel['port']}:{checksum}"
        case "gre":
            return f"gre:{checksum}"
        case kind:
            return str(kind)


def _figures(item: Json, view: str, exact: bool) -> str:
    source = item["counters"] if view == "stats" else item["rates"]
    names = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")
    return "".join(f" {large_number(round(source[name]), exact)}" for name in names)


def large_number(value: int, exact: bool) -> str:
    """Eight columns: from 100 million on in thousands, then millions, ..., unless exact."""
    if exact or value < 10**8:
        return f"{value:>8}"
    for below, unit, divisor in ((10**9, "K", 10**3), (10**11, "M", 10**6), (10**14, "G", 10**9)):
        if value < below:
            return f"{value // divisor:>7}{unit}"
    return f"{value // 10**12:>7}T"


def _netmask(service: Json) -> str | None:
    """None for a host; a dotted mask, which may have holes, or of IPv6 a prefix length."""
    mask, family = service["persistent_netmask"], _service_id(service["id"]).family
    if isinstance(mask, int) and family == 4:
        mask = str(IPv4Network(f"0.0.0.0/{mask}").netmask)
    return None if mask in (None, "255.255.255.255", 128) else str(mask)


# --- ipvsadm -S ------------------------------------------------------------------------------------------------


def saved(services: Iterable[Json], namer: Namer, *, full: bool = False) -> Iterator[str]:
    """Commands that make the same table again, with configured weights.

    `full`: with what ipvsadm leaves out or breaks: thresholds, flags without a name, and marks from 2^31 on, which it
    prints as negative.
    """
    for service in sorted(services, key=_service_order):
        key = _service_id(service["id"])
        target = _service_option(key, namer, full)
        words = ["-A", target, "-s", service["scheduler"]]
        if service["persistent_s"]:
            words += ["-p", str(service["persistent_s"])]
            if (mask := _netmask(service)) is not None:
                words += ["-M", mask]
        if service["persistence_engine"]:
            words += ["--pe", service["persistence_engine"]]
        if service["one_packet"]:
            words.append("-o")
        if service["scheduler_flags"]:
            words += ["-b", ",".join(service["scheduler_flags"]) if full else shown_flags(service)]
        yield " ".join(words)
        for server in sorted(service["servers"], key=_server_order):
            end = _server_id(server["id"])
            name = namer(address_text(end.address), end.port, key.protocol or "")
            words = [
                "-a",
                target,
                "-r",
                name,
                FORWARD_OPTION[server["forward"]],
                "-w",
                str(server["configured_weight"]),
            ]
            words += _tunnel_options(server)
            for option, field in (("-x", "upper_threshold"), ("-y", "lower_threshold")):
                if full and server[field]:
                    words += [option, str(server[field])]
            yield " ".join(words)


def _tunnel_options(server: Json) -> list[str]:
    if server["forward"] != "tunnel":
        return []
    tunnel = server["tunnel"]
    words = ["--tun-type", tunnel["type"]]
    if tunnel["type"] == "gue":
        words += ["--tun-port", str(tunnel["port"])]
    if tunnel["type"] != "ipip":
        words.append(f"--tun-{tunnel['checksum']}")
    return words


def _service_option(key: ServiceId, namer: Namer, full: bool) -> str:
    if key.fwmark:
        return f"-f {key.fwmark if full else _signed(key.fwmark)}{' -6' if key.inet6 else ''}"
    assert key.address is not None
    option = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}[str(key.protocol)]
    return f"{option} {namer(address_text(key.address), key.port, str(key.protocol))}"


def saved_settings(now: Timeouts, running: Mapping[str, Json]) -> Iterator[str]:
    """What `-S --full` adds."""
    if now != Timeouts():
        yield f"--set {now.tcp_s} {now.tcp_fin_s} {now.udp_s}"
    for state, daemon in sorted(running.items(), reverse=True):
        words = ["--start-daemon", state, "--mcast-interface", daemon["interface"]]
        for option in ("syncid", "sync-maxlen", "mcast-group", "mcast-port", "mcast-ttl"):
            words += [f"--{option}", str(daemon[option.rpartition("-")[2]])]
        yield " ".join(words)


# --- ipvsadm -L -c, --timeout, --daemon ------------------------------------------------------------------------


def connections(items: Iterable[Json], namer: Namer, *, persistence: bool = False) -> Iterator[str]:
    """`-L -c`; `persistence`: with what the persistence engine knows a client by."""
    yield "IPVS connection entries"
    header = "pro expire state       source             virtual            destination"
    yield f"{header}        pe name          pe_data" if persistence else header
    for item in items:
        seconds, protocol = int(item["expires_s"]), item["protocol"] or ""
        source, virtual, destination = (
            namer(_written(item[end][0]), item[end][1], protocol) for end in ("client", "virtual", "server")
        )
        expires = f"{seconds // 60:02}:{seconds % 60:02}"
        # Without a protocol: what a firewall mark's service remembers of a client.
        line = f"{(protocol or 'ip').upper():<3} {expires:<6} {item['state']:<11} {source:<18} {virtual:<18}"
        if persistence and item["pe_data"]:
            yield f"{line} {destination:<16} {item['pe_name']:<18} {item['pe_data']}"
        else:
            yield f"{line} {destination}"


def timeouts(now: Timeouts) -> str:
    return f"Timeout (tcp tcpfin udp): {now.tcp_s} {now.tcp_fin_s} {now.udp_s}"


def daemons(running: Mapping[str, Json]) -> Iterator[str]:
    """Master first."""
    for state, daemon in sorted(running.items(), reverse=True):
        yield (
            f"{state} sync daemon (mcast={daemon['interface']}, syncid={daemon['syncid']}, maxlen={daemon['maxlen']}, "
            f"group={daemon['group']}, port={daemon['port']}, ttl={daemon['ttl']})"
        )
