"""ipvsadm's output, column for column; the expected lines were printed by ipvsadm 1.31."""

from __future__ import annotations

from typing import Any

import pytest

from lbnode.cli.ipvsadm import listing
from lbnode.model import Timeouts

COUNTERS = {"connections": 0, "packets_in": 0, "packets_out": 0, "bytes_in": 0, "bytes_out": 0}


def server(name: str, forward: str, weight: int, **more: Any) -> dict[str, Any]:
    return {
        "id": name, "forward": forward, "configured_weight": weight, "effective_weight": weight,
        "counters": {**COUNTERS, "active": 0, "inactive": 0, "persistent": 0}, "rates": COUNTERS,
        "upper_threshold": 0, "lower_threshold": 0,
        "tunnel": {"type": "ipip", "port": 0, "checksum": "nocsum"}, **more,
    }  # fmt: skip


def service(name: str, scheduler: str, *servers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": name, "scheduler": scheduler, "effective_scheduler": scheduler, "scheduler_flags": [],
        "persistent_s": 0, "persistent_netmask": None, "persistence_engine": "",
        "one_packet": False, "counters": COUNTERS, "rates": COUNTERS, "servers": servers, **more,
    }  # fmt: skip


SERVICES = [
    service("fwmark:101:inet6", "lc", server("[2001:db8::5]:0", "direct", 1)),
    service("tcp:[2001:db8::80]:80", "dh", server("[2001:db8:0:1:2:3:4:5]:80", "masquerade", 1)),
    service("udp:192.0.2.1:53", "rr", server("198.51.100.3:53", "masquerade", 1), one_packet=True),
    service(
        "tcp:192.0.2.1:443",
        "sh",
        server("198.51.100.2:443", "tunnel", 50),
        server("198.51.100.1:443", "direct", 100, upper_threshold=1000, lower_threshold=800),
        scheduler_flags=["sh-fallback", "sh-port"],
        persistent_s=600,
        persistent_netmask=24,
    ),
    service(
        "tcp:192.0.2.1:80",
        "wlc",
        server("198.51.100.1:80", "masquerade", 1),
        server("198.51.100.2:8080", "masquerade", 0),
        server("198.51.100.7:80", "masquerade", 1, effective_weight=None),
    ),
]


def lines(text: str) -> list[str]:
    return text.strip("\n").split("\n")


def test_plain_table() -> None:
    expected = """
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.1:80 wlc
  -> 198.51.100.1:80              Masq    1      0          0         
  -> 198.51.100.2:8080            Masq    0      0          0         
TCP  192.0.2.1:443 sh (sh-fallback,sh-port) persistent 600 mask 255.255.255.0
  -> 198.51.100.1:443             Route   100    0          0         
  -> 198.51.100.2:443             Tunnel  50     0          0         
UDP  192.0.2.1:53 rr ops
  -> 198.51.100.3:53              Masq    1      0          0         
TCP  [2001:db8::80]:80 dh
  -> [2001:db8:0:1:2:3:4:5]:80    Masq    1      0          0         
FWM  101 IPv6 lc
  -> [2001:db8::5]:0              Route   1      0          0         
"""  # noqa: W291 - ipvsadm pads the last column
    assert list(listing.table(SERVICES, "", listing.numeric, title=listing.title())) == lines(expected)


def test_the_table_is_of_the_data_plane_not_of_the_configuration() -> None:
    """A service that the data plane refused is not listed; one whose new scheduler it refused, with the former one."""
    services = [
        service("fwmark:3", "rr", effective_scheduler=None),
        service("tcp:192.0.2.1:80", "lblc", effective_scheduler="wrr"),
    ]
    assert list(listing.table(services, "", listing.numeric))[2:] == ["TCP  192.0.2.1:80 wrr"]
    assert "-A -t 192.0.2.1:80 -s lblc" in list(listing.saved(services, listing.numeric))


def test_stats_and_large_numbers() -> None:
    figures = {"connections": 12, "packets_in": 3375, "packets_out": 2007, "bytes_in": 130180123, "bytes_out": 104729}
    one = service("tcp:172.16.0.50:80", "rr", server("10.1.0.11:80", "masquerade", 1), counters=figures)
    expected = """
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  172.16.0.50:80                     12     3375     2007  130180K   104729
  -> 10.1.0.11:80                        0        0        0        0        0
"""
    assert list(listing.table([one], "stats", listing.numeric)) == lines(expected)
    exact = list(listing.table([one], "stats", listing.numeric, exact=True))
    assert exact[2].endswith(" 130180123   104729")


def test_rates_and_thresholds() -> None:
    table = list(listing.table(SERVICES, "thresholds", listing.numeric))
    assert "  -> 198.51.100.1:443             1000       800        0          0         " in table
    assert list(listing.table([], "rate", listing.numeric)) == [
        "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS",
        "  -> RemoteAddress:Port",
    ]


def test_full_nat_in_listings_and_saved_rules() -> None:
    one = {**SERVICES[0], "servers": [{**SERVICES[0]["servers"][0], "forward": "fullnat"}]}
    assert " FullNat " in list(listing.table([one], "", listing.numeric))[-1]
    assert " --fullnat -w " in list(listing.saved([one], listing.numeric))[-1]


def test_saved_rules() -> None:
    assert list(listing.saved(SERVICES[:4], listing.numeric)) == [
        "-A -t 192.0.2.1:443 -s sh -p 600 -M 255.255.255.0 -b sh-fallback,sh-port",
        "-a -t 192.0.2.1:443 -r 198.51.100.1:443 -g -w 100",
        "-a -t 192.0.2.1:443 -r 198.51.100.2:443 -i -w 50 --tun-type ipip",
        "-A -u 192.0.2.1:53 -s rr -o",
        "-a -u 192.0.2.1:53 -r 198.51.100.3:53 -m -w 1",
        "-A -t [2001:db8::80]:80 -s dh",
        "-a -t [2001:db8::80]:80 -r [2001:db8:0:1:2:3:4:5]:80 -m -w 1",
        "-A -f 101 -6 -s lc",
        "-a -f 101 -6 -r [2001:db8::5]:0 -g -w 1",
    ]


def test_saved_in_full() -> None:
    many = service("fwmark:4294967295", "rr", server("198.51.100.1:0", "direct", 1, upper_threshold=9))
    assert list(listing.saved([many], listing.numeric)) == ["-A -f -1 -s rr", "-a -f -1 -r 198.51.100.1:0 -g -w 1"]
    assert list(listing.saved([many], listing.numeric, full=True)) == [
        "-A -f 4294967295 -s rr",
        "-a -f 4294967295 -r 198.51.100.1:0 -g -w 1 -x 9",
    ]
    daemon = {"interface": "eth1", "syncid": 3, "maxlen": 1472, "group": "224.0.0.81", "port": 8848, "ttl": 1}
    assert list(listing.saved_settings(Timeouts(1, 2, 3), {"backup": daemon})) == [
        "--set 1 2 3",
        (
            "--start-daemon backup --mcast-interface eth1 --syncid 3 --sync-maxlen 1472 "
            "--mcast-group 224.0.0.81 --mcast-port 8848 --mcast-ttl 1"
        ),
    ]


def test_long_names_of_ipv4_are_cut() -> None:
    one = service("tcp:192.0.2.7:80", "rr", server("198.51.100.7:80", "direct", 1))
    shown = list(listing.table([one], "", lambda *_: "a-very-long-virtual-host-name.example:http"))
    assert shown[2:] == [
        "TCP  a-very-long-virtual-host-nam rr",
        "  -> a-very-long-virtual-host-nam Route   1      0          0         ",
    ]


def test_connections() -> None:
    item = {
        "protocol": "tcp", "client": ["172.16.0.100", 42434], "virtual": ["172.16.0.50", 81],
        "server": ["172.16.0.12", 81], "pe_name": "", "pe_data": "", "state": "ESTABLISHED", "expires_s": 895.7,
    }  # fmt: skip
    assert list(listing.connections([item], listing.numeric)) == [
        "IPVS connection entries",
        "pro expire state       source             virtual            destination",
        "TCP 14:55  ESTABLISHED 172.16.0.100:42434 172.16.0.50:81     172.16.0.12:81",
    ]


def test_templates_of_a_mark_and_of_a_persistence_engine() -> None:
    ends = {"client": ["172.16.0.100", 0], "server": ["10.1.0.12", 0], "state": "ASSURED"}
    mark = {"protocol": None, "virtual": ["0.0.0.1", 0], "expires_s": 45.0, "pe_name": "", "pe_data": "", **ends}
    call = {"protocol": "udp", "virtual": ["172.16.0.50", 5060], "expires_s": 6000.0, **ends}
    call |= {"pe_name": "sip", "pe_data": "384@client.example"}
    assert list(listing.connections([mark, call], listing.numeric, persistence=True))[1:] == [
        "pro expire state       source             virtual            destination        pe name          pe_data",
        "IP  00:45  ASSURED     172.16.0.100:0     0.0.0.1:0          10.1.0.12:0",
        (
            "UDP 100:00 ASSURED     172.16.0.100:0     172.16.0.50:5060   10.1.0.12:0      sip                "
            "384@client.example"
        ),
    ]
    assert list(listing.connections([call], listing.numeric))[2].endswith(" 10.1.0.12:0")


def test_a_flag_without_a_name_and_a_persistence_engine() -> None:
    """ipvsadm prints the brackets of sh's third flag with nothing inside, and an engine in -L only if persistent."""
    flagged = service("tcp:192.0.2.1:80", "sh", scheduler_flags=["flag-3"], persistence_engine="sip")
    held = service("udp:192.0.2.1:80", "rr", persistent_s=9, persistent_netmask="255.0.255.0", persistence_engine="sip")
    assert list(listing.table([flagged, held], "", listing.numeric))[2:] == [
        "TCP  192.0.2.1:80 sh ()",
        "UDP  192.0.2.1:80 rr persistent 9 mask 255.0.255.0 pe sip",
    ]
    assert list(listing.saved([flagged, held], listing.numeric)) == [
        "-A -t 192.0.2.1:80 -s sh --pe sip -b ",
        "-A -u 192.0.2.1:80 -s rr -p 9 -M 255.0.255.0 --pe sip",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (99_999_999, "99999999"),
        (100_000_000, " 100000K"),
        (10**9, "   1000M"),
        (10**10, "  10000M"),
        (10**13, "  10000G"),
    ],
)
def test_large_number(value: int, text: str) -> None:
    assert listing.large_number(value, exact=False) == text
