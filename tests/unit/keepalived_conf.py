"""A whole keepalived.conf, and what the importer makes of pieces of one."""

from __future__ import annotations

from typing import Any

from lbnode.config.imported import Imported
from lbnode.config.keepalived.importer import Source, import_keepalived

# Every directive here has an effect: see test_each_line_counts.
GATEWAY = """\
global_defs {
    vrrp_version 3
    lvs_timeouts tcp 600 tcpfin 60 udp 200
    lvs_sync_daemon eth1 inst WEB id 7 maxlen 1400 port 8849 ttl 2 group 224.0.0.82
    lvs_flush
}
vrrp_instance WEB {
    interface eth0
    virtual_router_id 51
    priority 150
    advert_int 0.5
    nopreempt
    virtual_ipaddress {
        192.0.2.10/24
        192.0.2.11/24 dev eth2
    }
    virtual_ipaddress_excluded {
        192.0.2.12/24
    }
}
vrrp_instance INSIDE {
    interface eth1
    virtual_router_id 51
    priority 150
    advert_int 0.5
    nopreempt
    virtual_ipaddress {
        198.51.100.1/24
    }
}
vrrp_sync_group BOTH {
    group {
        WEB
        INSIDE
    }
}
virtual_server_group DNS {
    192.0.2.20-21 53
    fwmark 7
}
virtual_server 192.0.2.10 80 {
    protocol TCP
    lb_algo sh
    sh-port
    flag-1
    lb_kind DR
    persistence_timeout 120
    persistence_granularity 255.255.255.0
    delay_loop 5
    retry 2
    delay_before_retry 5
    inhibit_on_failure
    virtualhost www.example.net
    real_server 198.51.100.21 80 {
        weight 3
        uthreshold 100
        lthreshold 50
        lvs_method TUN type gue port 6080 csum
        HTTP_GET {
            connect_port 8080
            connect_timeout 3
            url {
                path /health
                status_code 200 204-206
                regex "^ok$"
                regex_options caseless multiline
            }
        }
    }
    real_server 198.51.100.23 80 {
        HTTP_GET {
            connect_port 8080
            connect_timeout 3
            url {
                path /health
                status_code 200 204-206
                regex "^ok$"
                regex_options caseless multiline
            }
        }
    }
}
virtual_server group DNS {
    protocol UDP
    lvs_sched wrr
    lvs_method NAT
    ops
    real_server 198.51.100.22 5353 {
        TCP_CHECK {
            connect_port 53
        }
    }
}
"""
DEFAULTS = {"    lvs_method NAT"}  # lines of GATEWAY that say what is the default


def load(text: str, node: str = "gw1") -> Imported:
    return import_keepalived([Source(node, "k.conf", text)], no_files)


def no_files(pattern: str, _file: str) -> list[tuple[str, str]]:
    raise FileNotFoundError(f"no file {pattern}")


def told(text: str) -> list[str]:
    return [f"{problem.severity}: {problem}" for problem in load(text).problems]


def service(body: str, head: str = "192.0.2.10 80") -> Any:
    text = f"virtual_server {head} {{\nprotocol TCP\n{body}\n}}\n"
    return next(iter(load(text).document["services"].values()))
