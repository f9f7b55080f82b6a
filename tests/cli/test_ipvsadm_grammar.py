"""ipvsadm's grammar: what is understood, and what is refused in which words with which exit code."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.cli.ipvsadm.grammar import TRY_HELP, Command, parse
from lbnode.cli.ipvsadm.values import GrammarError
from lbnode.model import ServerId, ServiceId, Tunnel, TunnelChecksum, TunnelType
from tests.reference.host import ReferenceHost

WEB = ServiceId.of("tcp", "192.168.1.1", 80)


def command(line: str) -> Command:
    return parse(shlex.split(line), ReferenceHost())


def test_the_everyday_lines() -> None:
    assert command("-A -t 192.168.1.1:80 -s rr") == Command(
        "add-service", frozenset({"service-address", "scheduler"}), WEB, scheduler="rr"
    )
    direct = command("-a -t 192.168.1.1:80 -r 192.168.2.2 -w 1 -g")
    assert (direct.server, direct.weight, direct.forward) == (ServerId.parse("192.168.2.2:80"), 1, "direct")
    masquerade = command("-a -t 192.168.1.1:80 -r 192.168.2.3:8080 -w 2 -m")
    assert (masquerade.server, masquerade.forward) == (ServerId.parse("192.168.2.3:8080"), "masquerade")
    assert command("-C").name == "flush"
    assert command("-D -t 192.168.1.1:80").service == WEB
    for line in ("-Ln", "-l -n", "-L -n", "--list --numeric"):
        assert command(line) == Command("list", options=frozenset({"numeric"})), line
    assert command("-Lnc").options == command("-lnc").options == {"numeric", "connection"}
    assert command("-Ln --stats").options == {"numeric", "stats"}
    assert command("").name == "list"


def test_values_glued_separate_or_with_equals() -> None:
    lines = ("-A -t192.168.1.1:80 -srr", "-A -t 192.168.1.1:80 -s rr", "-A --tcp-service=192.168.1.1:80 --scheduler rr")
    assert len({command(line) for line in lines}) == 1


def test_port_of_direct_and_tunnel_servers_is_the_services() -> None:
    for option in ("-g", "-i", ""):
        assert command(f"-a -t 192.168.1.1:80 -r 192.168.2.2:8080 {option}").server == ServerId.parse("192.168.2.2:80")
    assert command("-d -t 192.168.1.1:80 -r 192.168.2.2:8080").server == ServerId.parse("192.168.2.2:8080")


def test_full_nat_is_an_option_of_our_own_and_has_a_port_of_its_own() -> None:
    found = command("-a -t 192.168.1.1:80 -r 192.168.2.2:8080 --fullnat")
    assert (found.forward, found.server) == ("fullnat", ServerId.parse("192.168.2.2:8080"))


def test_persistence_takes_an_optional_time() -> None:
    assert command("-A -t 192.168.1.1:80 -p").persistent_s == 360
    assert command("-A -t 192.168.1.1:80 -p 30 -s rr").persistent_s == 30
    assert command("-A -p -t 192.168.1.1:80 -M 255.255.255.0").netmask == 0xFFFFFF00


def test_ipv6_and_fwmark() -> None:
    assert command("-A -t [2001:db8::80]:80").service == ServiceId.parse("tcp:[2001:db8::80]:80")
    assert command("-A -f 7 -s rr").service == ServiceId.parse("fwmark:7")
    assert command("-A -f 7 -6 -s rr").service == ServiceId.parse("fwmark:7:inet6")


def test_tunnel_options() -> None:
    gue = command("-a -t 192.0.2.1:80 -r 2001:db8::9 -i --tun-type gue --tun-port 6080 --tun-remcsum")
    assert gue.tunnel == Tunnel(TunnelType.GUE, 6080, TunnelChecksum.REMOTE)
    assert gue.server == ServerId.parse("[2001:db8::9]:80")


def test_daemons_and_timeouts() -> None:
    start = command("--start-daemon backup --mcast-interface eth1 --syncid 7 --mcast-group ff02::81 --mcast-ttl 3")
    assert (start.daemon_state, start.daemon.interface, start.daemon.syncid) == ("backup", "eth1", 7)
    assert (str(start.daemon.group), start.daemon.port, start.daemon.ttl) == ("ff02::81", 8848, 3)
    assert command("--set 900 0 300").timeouts == (900, 0, 300)


def test_names_are_looked_up_for_the_protocol() -> None:
    assert command("-A -t vip.example:http").service == ServiceId.of("tcp", "192.0.2.1", 80)
    with pytest.raises(GrammarError):
        command("-A -u vip.example:http")


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("-A -t 192.0.2.1 -s rr", 2, "Zero port specified for non-persistent service"),
        ("-a -t 192.0.2.1:80 -r 198.51.100.9 -w x", 2, "illegal weight specified"),
        ("-a -t 192.0.2.1:80 -r 198.51.100.9 -w -1", 2, "illegal weight specified"),
        ("-a -t 192.0.2.1:80 -r 198.51.100.9 -w 1.5", 2, "illegal weight specified"),
        ("-a -t 192.0.2.1:80 -r x.x.x.x", 2, "illegal real server address[:port] specified"),
        ("-A -t 192.0.2.1:99999", 2, "illegal virtual server address[:port] specified"),
        ("-A -t 192.0.2.1:80 -t 192.0.2.2:80", 2, "multiple 'service-address' options specified"),
        ("-A -t 192.0.2.1:80 -f 3", 2, "multiple 'service-address' options specified"),
        ("-a -t 192.0.2.1:80 -r 198.51.100.1 -m -g", 2, "multiple 'forwarding-method' options specified"),
        ("-L -n -n", 2, "multiple 'numeric' options specified"),
        ("-A -t 192.0.2.1:80 -w 1", 2, "Illegal 'weight' option with the 'add-service' command"),
        ("-a -t 192.0.2.1:80 -r 198.51.100.1 -s rr", 2, "Illegal 'scheduler' option with the 'add-server' command"),
        ("-C -n", 2, "Illegal 'numeric' option with the 'flush' command"),
        ("-A -s rr", 2, "You need to supply the 'service-address' option for the 'add-service' command"),
        ("-a -t 192.0.2.1:80", 2, "You need to supply the 'real-server' option for the 'add-server' command"),
        ("-A -f 0", 2, "invalid fwmark value `0' specified"),
        ("-A -f 4294967296", 2, "invalid fwmark value `4294967296' specified"),
        ("-A -t 192.0.2.1:80 -p 2678401", 2, "invalid timeout value `2678401' specified"),
        ("-A -t 192.0.2.1:80 -o", 2, "One-Packet Scheduling is only for UDP virtual services"),
        ("-A -t", 255, "-t: missing argument"),
        ("-L -1", 255, "-1: unknown option"),
        ("-L -nq", 255, "-nq: unknown option"),
        ("-L --num", 255, "--num: unknown option"),
        ("-L --numeric=1", 255, "--numeric=1: option does not take an argument"),
        ("-1", 255, TRY_HELP),
        ("-nL", 255, TRY_HELP),
        ("-L -A", 2, "invalid option `-A'"),
        ("-L -n -6", 2, "-6 used before -f\n"),
        ("-A -t 192.0.2.1:80 -b mh-port -s sh", 2, "incompatible scheduler flag `mh-port'"),
        ("-A -t 192.0.2.1:80 -b nosuch", 2, "invalid scheduler flag `nosuch'"),
        ("-D -t 192.0.2.1:80 -b nosuch", 2, "invalid scheduler flag `nosuch'"),
        ("-A -t [2001:db8::1]:80 -p -M 129", 2, "illegal ipv6 netmask specified"),
        ("-A -f 1 -r 192.0.2.9", 2, "Illegal 'real-server' option with the 'add-service' command"),
        (
            "-a -f 1 -r 192.0.2.9 -i --tun-type gue", 2,
            "You need to supply the 'tun-port' option for the 'gue' tunnel type",
        ),
        ("-a -f 1 -r 192.0.2.9 -i --tun-port 7", 2, "Illegal 'tun-port' option with the 'ipip' tunnel type"),
        ("-a -f 1 -r 192.0.2.9 -m --tun-csum", 2, "Tunnel options conflict with forward method"),
        (
            "-a -f 1 -r 192.0.2.9 -i --tun-type gue --tun-port 9 --tun-csum --tun-nocsum", 2,
            "The option 'tun-csum' conflicts with the 'tun-nocsum' option in the 'gue' tunnel type",
        ),
        ("-a -f 1 -r 192.0.2.9 -y -1", 2, "illegal l_threshold specified"),
        ("--start-daemon slave", 2, "illegal start-daemon parameter specified"),
        ("--stop-daemon slave", 2, "illegal start_daemon specified"),
        ("--stop-daemon master --mcast-interface lo", 2,
            "Illegal 'mcast-interface' option with the 'stop-daemon' command"),
        ("--start-daemon master --syncid 256", 2, "illegal syncid specified"),
        ("--start-daemon master --mcast-group 10.0.0.1", 2, "invalid IPv4 mcast-group `10.0.0.1'"),
        ("--start-daemon master --mcast-group fe80::1", 2, "invalid IPv6 mcast-group `fe80::1'"),
        ("--set 1 2", 2, "--set option requires 3 timeout values"),
        ("-L --stats -c", 2, "options conflicts in the list command"),
        ("-L --full", 255, "--full: unknown option"),
        ("-L foo", 2, "unexpected argument foo"),
        (
            "-L -c -t 192.0.2.1:80", 2,
            "The option 'service-address' conflicts with the 'connection' option in the 'list' command",
        ),
    ],
)  # fmt: skip
def test_complaints(line: str, code: int, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        command(line)
    assert (str(caught.value), caught.value.exit_code) == (message, code)


@given(st.lists(st.sampled_from(["-A", "-a", "-t", "-r", "-w", "-p", "-Ln", "1", "x", "192.0.2.1:80", "--", "-", ""])))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    try:
        assert parse(words, ReferenceHost()).name
    except GrammarError as error:
        assert str(error)
        assert error.exit_code in (2, 255)
