"""The sysctl profile of a gateway and the history of its names. Pure.

Connection-tracking time-outs are those of the kernel's nf_conntrack (Documentation/networking/
nf_conntrack-sysctl.rst). Up to Linux 2.6.x they were called net.ipv4.netfilter.ip_conntrack_*; files with those names
are still around, so they are recognised here and mapped, or reported as gone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

OLD_PREFIX = "net.ipv4.netfilter.ip_conntrack_"
OLDER_PREFIX = "net.ipv4.ip_conntrack_"
NEW_PREFIX = "net.netfilter.nf_conntrack_"

# Old names without a present equivalent, and why.
GONE: Mapping[str, str] = {
    "tcp_timeout_syn_sent2": "nf_conntrack has no setting for a simultaneous open; it uses tcp_timeout_syn_sent",
}
# Everything else keeps its name behind the prefix; these are the ones that existed.
KEPT = frozenset(
    {
        "generic_timeout", "icmp_timeout", "udp_timeout", "udp_timeout_stream", "max", "buckets", "count", "checksum",
        "log_invalid", "tcp_be_liberal", "tcp_loose", "tcp_max_retrans",
        *(
            f"tcp_timeout_{state}"
            for state in (
                "close", "close_wait", "established", "fin_wait", "last_ack", "max_retrans", "syn_recv", "syn_sent",
                "time_wait",
            )
        ),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    key: str  # present name
    value: str
    why: str
    old_name: str = ""  # the name it was asked for by, if that is out of date


CONNTRACK_TIMEOUTS_S: Mapping[str, int] = {
    "generic_timeout": 600,
    "icmp_timeout": 30,
    "tcp_timeout_close": 10,
    "tcp_timeout_close_wait": 60,
    "tcp_timeout_established": 432000,
    "tcp_timeout_fin_wait": 120,
    "tcp_timeout_last_ack": 30,
    "tcp_timeout_max_retrans": 300,
    "tcp_timeout_syn_recv": 60,
    "tcp_timeout_syn_sent": 120,
    "tcp_timeout_time_wait": 120,
    "udp_timeout": 30,
    "udp_timeout_stream": 180,
}

GATEWAY: tuple[Setting, ...] = (
    Setting("net.ipv4.ip_forward", "1", "masquerade and health checks route between networks"),
    Setting("net.ipv6.conf.all.forwarding", "1", "the same for IPv6; routers are then not learnt by advertisements"),
    Setting("net.ipv4.conf.all.arp_ignore", "1", "answer ARP only on the interface that holds the address"),
    Setting("net.ipv4.conf.all.arp_announce", "2", "never announce a floating address as ARP source elsewhere"),
    Setting("net.ipv4.conf.all.rp_filter", "0", "replies of direct routing take another way than requests"),
    Setting("net.ipv4.conf.default.rp_filter", "0", "the same for interfaces that come later"),
    Setting("net.ipv4.conf.all.send_redirects", "0", "one-armed balancing must not teach hosts to go round us"),
    Setting("net.core.somaxconn", "4096", "backlog of the node's own listeners under load"),
    Setting("net.ipv4.tcp_max_syn_backlog", "4096", "half-open connections to the node itself"),
    Setting("net.core.netdev_max_backlog", "10000", "packets queued per CPU before the stack takes them"),
)

# Of ip_vs (Documentation/networking/ipvs-sysctl.rst). By default a connection is synchronised at its third packet.
IPVS_PREFIX = "net.ipv4.vs."
IPVS: tuple[Setting, ...] = (
    Setting("net.ipv4.vs.sync_threshold", "0 0", "synchronise a connection when it is established, not by packets"),
    Setting("net.ipv4.vs.sync_refresh_period", "10", "and again when its time-out has moved by as many seconds"),
    Setting("net.ipv4.vs.sync_retries", "2", "a lost message is made good: nobody acknowledges them"),
    Setting("net.ipv4.vs.sloppy_tcp", "1", "take up connections in the middle: those that were not synchronised"),
    Setting("net.ipv4.vs.expire_quiescent_template", "1", "persistent clients leave a server whose weight is 0"),
)


class UnknownSetting(ValueError):
    """A name in the old style that never existed, or one that is gone; the message says which and what to do."""


def present_name(key: str) -> str:
    """The name that today's kernel uses for `key` (dots; slashes are taken too). UnknownSetting if there is none."""
    key = key.strip().replace("/", ".")
    for prefix in (OLD_PREFIX, OLDER_PREFIX):
        if key.startswith(prefix):
            rest = key.removeprefix(prefix)
            if rest in GONE:
                raise UnknownSetting(f"{key} is gone: {GONE[rest]}; remove it")
            if rest not in KEPT:
                near = difflib.get_close_matches(rest, KEPT, 1)
                hint = f"; did you mean {prefix}{near[0]}?" if near else ""
                raise UnknownSetting(f"{key} never existed{hint}")
            return NEW_PREFIX + rest
    return key


def profile(overrides: Mapping[str, str] | None = None, interfaces: Iterable[str] = ()) -> tuple[Setting, ...]:
    """The gateway's settings in a stable order; `overrides` (present or old names) replace or add values.

    interfaces: those that exist already. The kernel takes the larger of an interface's own rp_filter and that of
    "all", so each needs its own line; a dot in a name is written as a slash, as sysctl(8) does.
    Raises UnknownSetting for an override whose name is gone.
    """
    wanted = {setting.key: setting for setting in GATEWAY}
    for name in sorted(interfaces):
        key = f"net.ipv4.conf.{name.replace('.', '/')}.rp_filter"
        wanted[key] = Setting(key, "0", "the same for an interface that is here already")
    for rest, seconds in CONNTRACK_TIMEOUTS_S.items():
        wanted[NEW_PREFIX + rest] = Setting(NEW_PREFIX + rest, str(seconds), "connection tracking time-out, seconds")
    for key, value in (overrides or {}).items():
        name = present_name(key)
        why = wanted[name].why if name in wanted else "set by the cluster's settings"
        wanted[name] = Setting(name, str(value), why, key if key != name else "")
    return tuple(wanted.values())


def ipvs_sysctls(overrides: Mapping[str, str]) -> dict[str, str]:
    """What ip_vs shall have: its profile, and those of `overrides` that are about it."""
    wanted = {setting.key: setting.value for setting in IPVS}
    asked = {key.strip().replace("/", "."): value for key, value in overrides.items()}
    return wanted | {key: value for key, value in asked.items() if key.startswith(IPVS_PREFIX)}


def render(settings: Iterable[Setting]) -> str:
    """A sysctl.d(5) file."""
    lines = ["# Kernel settings of an lbnode gateway. Load with: sysctl --system"]
    for setting in settings:
        was = f" (was {setting.old_name})" if setting.old_name else ""
        lines += [f"# {setting.why}{was}", f"{setting.key} = {setting.value}"]
    return "\n".join(lines) + "\n"


def parse(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, key, value) of a sysctl.conf(5) text. ValueError names the line that is no setting."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip().removeprefix("-").strip()
        if not stripped or stripped[0] in "#;":
            continue
        key, separator, value = stripped.partition("=")
        if not separator or not key.strip():
            raise ValueError(f"line {number}: {line.strip()!r} is not KEY = VALUE")
        yield number, key.strip(), value.strip()
