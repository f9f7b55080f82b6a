"""What keepalived.conf(5) has and lbnode has not, and what to do instead. Pure.

An error is behaviour that is lost; a warning is something that needs no equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lbnode.model import Severity

Context = Literal[
    "the file", "global_defs", "virtual_server", "real_server", "a checker", "url", "vrrp_instance", "vrrp_sync_group"
]


@dataclass(frozen=True, slots=True)
class Lack:
    severity: Severity
    hint: str


def lack_of(context: Context, word: str) -> Lack | None:
    """None: keepalived.conf(5) has no such word there."""
    return _LACKS[context].get(word)


def words_of(context: Context) -> tuple[str, ...]:
    return tuple(_LACKS[context])


def _lost(words: str, hint: str) -> Iterator[tuple[str, Lack]]:
    return ((word, Lack(Severity.ERROR, hint)) for word in words.split())


def _needless(words: str, hint: str) -> Iterator[tuple[str, Lack]]:
    return ((word, Lack(Severity.WARNING, hint)) for word in words.split())


_MAIL = "lbnode sends no mail: alert on /metrics, or follow `lbctl events -w`"
_SCRIPT = "lbnode runs no scripts: follow `lbctl events -w`, or /api/v1/stream"
_WITH_SCRIPTS = "about scripts, which lbnode does not run"
_GARP = "lbnode sends gratuitous ARP at take-over and after every contact with another active node by itself"
_TRACK = "a node whose VRRP interface is down gives up by itself; for the rest use `lbctl failover GROUP`"
_PROCESS = "about keepalived's own processes; lbnode's election has real-time priority and locked memory by itself"
_AUTHENTICATION = (
    "take it out of keepalived before it and lbnode run side by side; between lbnode's nodes, and with auth_hmac of "
    "keepalived 2.4, set [election] keys_file in node.toml"
)
_VMAC = "lbnode knows use_vmac: one MAC address for all of an instance's addresses of a family, RFC 9568's"
_SNMP = "use /metrics, or the JSON API"

_LACKS: Mapping[Context, Mapping[str, Lack]] = MappingProxyType({
    "the file": dict([
        *_needless("static_track_group track_group", "goes with static addresses, routes and rules"),
        *_lost("vrrp_script vrrp_track_process track_file vrrp_track_file bfd_instance", _TRACK),
        *_needless("garp_group", _GARP),
        *_needless("linkbeat_use_polling linkbeat_interfaces", "lbnode hears of carrier loss by netlink"),
        *_lost("interface_up_down_delays", "lbnode acts on carrier loss at once"),
        *_lost("SSL", "checks have no client certificate; for a CA set tls_verify and tls_ca_file"),
        *_lost("net_namespace net_namespace_ipvs", "start lbnoded in that namespace: nsenter --net=/run/netns/NAME"),
        *_needless("namespace_with_ipsets instance use_pid_dir child_wait_time include_check umask", _PROCESS),
        *_needless("reload_time_file reload_repeat reload_file", "lbnode follows each change of its store at once"),
    ]),
    "global_defs": dict([
        *_lost("notification_email", _MAIL),
        *_needless(
            "notification_email_from smtp_server smtp_helo_name smtp_connect_timeout smtp_alert smtp_alert_vrrp "
            "smtp_alert_checker no_email_faults no_checker_emails",
            "goes with notification_email",
        ),
        *_needless("router_id lvs_id", "a node is known by the name in its node.toml"),
        *_lost(
            "startup_script shutdown_script notify_fifo notify_fifo_script vrrp_notify_fifo vrrp_notify_fifo_script "
            "lvs_notify_fifo lvs_notify_fifo_script",
            _SCRIPT,
        ),
        *_needless(
            "startup_script_timeout shutdown_script_timeout script_user enable_script_security "
            "fifo_write_vrrp_states_on_reload vrrp_notify_priority_changes rs_init_notifies",
            _WITH_SCRIPTS,
        ),
        *_needless(
            "vrrp_garp_master_delay vrrp_garp_master_repeat vrrp_garp_lower_prio_delay vrrp_garp_lower_prio_repeat "
            "vrrp_garp_master_refresh vrrp_garp_master_refresh_repeat vrrp_garp_interval vrrp_gna_interval "
            "vrrp_min_garp vrrp_garp_extra_if",
            _GARP,
        ),
        *_lost("vrrp_mcast_group4 vrrp_mcast_group6", "lbnode uses the addresses of RFC 9568"),
        *_lost("vrrp_down_timer_adverts", "lbnode waits 3 intervals and the skew time, as RFC 9568 says"),
        *_lost("vrrp_startup_delay vrrp_delay_after_boot", "start lbnoded when the network is up"),
        *_needless(
            "vrrp_lower_prio_no_advert vrrp_higher_prio_send_advert vrrp_strict vrrp_skip_check_adv_addr "
            "vrrp_check_unicast_src vrrp_unicast_check_src",
            "lbnode follows RFC 9568 and checks every advertisement",
        ),
        *_needless(
            "nftables nftables_priority nftables_counters nftables_ifindex vrrp_iptables vrrp_ipsets "
            "disable_local_igmp",
            "lbnode uses no firewall rules for its addresses",
        ),
        *_needless(
            "nftables_ipvs nftables_ipvs_priority nftables_ipvs_start_fwmark",
            "each address of a group becomes a service of its own",
        ),
        *_needless("lvs_flush_on_stop", "a stopped lbnoded goes on forwarding; `lbnoded --unload` ends that"),
        *_lost("enable_snmp_vrrp enable_snmp_keepalived enable_snmp_checker enable_snmp_rfc enable_snmp_rfcv2 "
               "enable_snmp_rfcv3 enable_traps enable_dbus", _SNMP),
        *_needless("snmp_socket dbus_service_name dbus_no_interface_name json_version", _SNMP),
        *_needless("checker_log_all_failures", "the UI shows each server's last result"),
        *_needless("default_interface", "each address of a VIP group names its interface"),
        *_needless("dynamic_interfaces", "lbnode takes interfaces as they come and go"),
        *_needless("vmac_prefix vmac_addr_prefix", _VMAC),
        *_needless("log_unknown_vrids", "`lbctl status` shows what the election hears"),
        *_needless("reload_check_config include_check config_save_dir tmp_config_directory random_seed "
                   "data_use_instance umask", "about keepalived's own files"),
        *_needless(
            "process_names process_name vrrp_process_name checker_process_name bfd_process_name max_auto_priority "
            "min_auto_priority_delay vrrp_priority checker_priority bfd_priority vrrp_no_swap checker_no_swap "
            "bfd_no_swap vrrp_cpu_affinity checker_cpu_affinity bfd_cpu_affinity vrrp_rt_priority checker_rt_priority "
            "bfd_rt_priority vrrp_rlimit_rtime checker_rlimit_rtime bfd_rlimit_rtime vrrp_rlimit_rttime "
            "checker_rlimit_rttime bfd_rlimit_rttime vrrp_netlink_cmd_rcv_bufs vrrp_netlink_cmd_rcv_bufs_force "
            "vrrp_netlink_monitor_rcv_bufs vrrp_netlink_monitor_rcv_bufs_force lvs_netlink_cmd_rcv_bufs "
            "lvs_netlink_cmd_rcv_bufs_force lvs_netlink_monitor_rcv_bufs lvs_netlink_monitor_rcv_bufs_force "
            "process_monitor_rcv_bufs process_monitor_rcv_bufs_force vrrp_rx_bufs_policy vrrp_rx_bufs_multiplier",
            _PROCESS,
        ),
    ]),
    "virtual_server": dict([
        *_lost("quorum_up quorum_down", _SCRIPT),
        *_lost("sorry_server", "the last servers can be kept instead: when_all_down: keep-last"),
        *_needless("sorry_server_inhibit sorry_server_lvs_method", "goes with sorry_server"),
        *_lost("alpha", "a server counts as up until its first check has ended, unless it was down before a restart"),
        *_needless("omega", "about scripts at the end, which lbnode does not run"),
        *_needless("ha_suspend", "every gateway checks, so that the next active one knows who is up"),
        *_needless("warmup", "first checks are spread over the interval by themselves"),
        *_needless("smtp_alert", "goes with notification_email"),
        *_needless("snmp_name", "a service is known by what it matches"),
        *_needless("log_all_failures", "the UI shows each server's last result"),
    ]),
    "real_server": dict([
        *_lost("notify_up notify_down", _SCRIPT),
        *_lost("alpha", "a server counts as up until its first check has ended, unless it was down before a restart"),
        *_needless("warmup", "first checks are spread over the interval by themselves"),
        *_needless("smtp_alert", "goes with notification_email"),
        *_needless("snmp_name", "a server is known by its address and port"),
        *_needless("log_all_failures", "the UI shows each server's last result"),
    ]),
    "a checker": dict([
        *_lost("bindto bind_if bind_port", "checks leave by the address and port the kernel chooses"),
        *_lost("min_reply_length max_reply_length", "write the whole reply: it has to begin so"),
        *_lost("misc_dynamic", "a check says up or down; set weights with `lbctl weight`, also from scripts"),
        *_lost("user", "the script runs as lbnoded does: change the user within it"),
        *_needless("connect_port", "an echo request has no port"),
        *_lost("fwmark", "checks are not marked: they go to the server itself"),
        *_lost("alpha", "a server counts as up until its first check has ended, unless it was down before a restart"),
        *_needless("warmup", "first checks are spread over the interval by themselves"),
        *_needless("fast_recovery", "lbnode does not wait between checks beyond the interval"),
        *_needless("log_all_failures", "the UI shows each server's last result"),
    ]),
    "url": dict([
        *_lost("digest", "look for a part of the page instead: body_match, a regular expression"),
        *_lost("regex_no_match regex_min_offset regex_max_offset", "write body_match so that it fits the right page"),
        *_needless("regex_stack", "there is no limit to set"),
        *_needless("tls_compliant", "lbnode closes a connection without waiting"),
    ]),
    "vrrp_instance": dict([
        *_needless("state", "the highest priority wins"),
        *_needless("native_ipv6", "the addresses decide"),
        *_lost("track_interface track_script track_file track_process track_bfd", _TRACK),
        *_lost("dont_track_primary", "a node whose VRRP interface is down always gives up"),
        *_needless("track_src_ip", "lbnode advertises from the interface's address and reports when there is none"),
        *_lost("vrf", "lbnode runs in one routing domain"),
        *_lost("use_vmac_addr use_ipvlan", _VMAC),
        *_lost("vmac_xmit_base", "with use_vmac, advertisements by multicast leave with the virtual MAC address"),
        *_lost("mcast_src_ip mcast_dst_ip", "lbnode advertises from the interface's address to RFC 9568's group"),
        *_lost("unicast_ttl", "lbnode sends with a TTL of 255, as RFC 9568 says"),
        *_needless("unicast_fault_no_peer check_unicast_src old_unicast_checksum", "only unicast_peers are heard"),
        *_lost("authentication", _AUTHENTICATION),
        *_lost("virtual_routes virtual_rules", "route by the floating address, which every host can reach"),
        *_lost("no_accept no_virtual_ipaddress", "the active node has the addresses and answers for them"),
        *_needless("accept promote_secondaries", "lbnode does so"),
        *_lost("preempt_delay", "set preempt to false: then only `lbctl failover` moves the addresses back"),
        *_lost("down_timer_adverts", "lbnode waits 3 intervals and the skew time, as RFC 9568 says"),
        *_lost("timer_expired_backup", "lbnode follows RFC 9568"),
        *_needless(
            "garp_master_delay garp_master_repeat garp_lower_prio_delay garp_lower_prio_repeat garp_master_refresh "
            "garp_master_refresh_repeat garp_extra_if garp_extra_if_vmac",
            _GARP,
        ),
        *_needless(
            "lower_prio_no_advert higher_prio_send_advert skip_check_adv_addr strict_mode",
            "lbnode follows RFC 9568 and checks every advertisement",
        ),
        *_lost("notify notify_master notify_backup notify_fault notify_stop notify_deleted "
               "notify_master_rx_lower_pri", _SCRIPT),
        *_needless("notify_priority_changes", _WITH_SCRIPTS),
        *_needless("smtp_alert", "goes with notification_email"),
        *_needless("debug kernel_rx_buf_size", _PROCESS),
        *_needless("linkbeat_use_polling", "lbnode hears of carrier loss by netlink"),
    ]),
    "vrrp_sync_group": dict([
        *_lost("track_interface track_script track_file track_process track_bfd", _TRACK),
        *_lost("notify notify_master notify_backup notify_fault notify_stop notify_deleted", _SCRIPT),
        *_needless("notify_priority_changes", _WITH_SCRIPTS),
        *_needless("smtp_alert", "goes with notification_email"),
        *_needless("global_tracking sync_group_tracking_weight", "goes with tracking"),
    ]),
})  # fmt: skip
