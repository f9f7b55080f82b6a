"""The sysctl profile: present names, old names, files, and checking against a tree like /proc/sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbnode.errors import DataPlaneError
from lbnode.tuning import kernel
from lbnode.tuning.profile import GONE, KEPT, UnknownSetting, parse, present_name, profile, render

WANTED = {
    "generic_timeout": 600, "icmp_timeout": 30, "tcp_timeout_close": 10, "tcp_timeout_close_wait": 60,
    "tcp_timeout_established": 432000, "tcp_timeout_fin_wait": 120, "tcp_timeout_last_ack": 30,
    "tcp_timeout_max_retrans": 300, "tcp_timeout_syn_recv": 60, "tcp_timeout_syn_sent": 120,
    "tcp_timeout_time_wait": 120, "udp_timeout": 30, "udp_timeout_stream": 180,
}  # fmt: skip


def tree(root: Path, **values: str) -> Path:
    for key, value in values.items():
        path = root / key.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return root


def test_the_profile_holds_the_time_outs_under_present_names() -> None:
    values = {setting.key: setting.value for setting in profile()}
    for rest, seconds in WANTED.items():
        assert values[f"net.netfilter.nf_conntrack_{rest}"] == str(seconds)
    assert values["net.ipv4.ip_forward"] == "1"


@pytest.mark.parametrize("rest", sorted(KEPT))
def test_old_names_are_mapped(rest: str) -> None:
    assert present_name(f"net.ipv4.netfilter.ip_conntrack_{rest}") == f"net.netfilter.nf_conntrack_{rest}"
    assert present_name(f"net/ipv4/netfilter/ip_conntrack_{rest}") == f"net.netfilter.nf_conntrack_{rest}"


@pytest.mark.parametrize("rest", sorted(GONE))
def test_gone_names_say_so(rest: str) -> None:
    with pytest.raises(UnknownSetting, match="is gone"):
        present_name(f"net.ipv4.netfilter.ip_conntrack_{rest}")


def test_misspelt_old_names_get_a_hint() -> None:
    with pytest.raises(UnknownSetting, match=r"did you mean .*udp_timeout_stream"):
        present_name("net.ipv4.netfilter.ip_conntrack_udp_timeout_steam")


def test_overrides_replace_and_name_their_origin() -> None:
    settings = {s.key: s for s in profile({"net.ipv4.netfilter.ip_conntrack_udp_timeout": "45", "net.ipv4.tos": "1"})}
    assert settings["net.netfilter.nf_conntrack_udp_timeout"].value == "45"
    assert settings["net.netfilter.nf_conntrack_udp_timeout"].old_name.endswith("ip_conntrack_udp_timeout")
    assert settings["net.ipv4.tos"].value == "1"


def test_a_rendered_file_parses_back() -> None:
    assert {key: value for _, key, value in parse(render(profile()))} == {s.key: s.value for s in profile()}


def test_a_line_that_is_no_setting_is_named() -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(parse("# fine\nnet.ipv4.ip_forward\n"))


def test_check_and_apply(tmp_path: Path) -> None:
    root = tree(tmp_path, net__ipv4__ip_forward="0", net__ipv4__conf__all__arp_ignore="1")
    found = {finding.key: finding for finding in kernel.check(profile(), root)}
    assert not found["net.ipv4.ip_forward"].ok
    assert found["net.ipv4.conf.all.arp_ignore"].ok
    assert found["net.netfilter.nf_conntrack_udp_timeout"].actual is None
    assert "not loaded" in found["net.netfilter.nf_conntrack_udp_timeout"].note
    kernel.apply(profile(), root)
    assert (root / "net/ipv4/ip_forward").read_text() == "1\n"
    assert not (root / "net/netfilter").exists()


def test_interfaces_that_exist_get_their_own_line(tmp_path: Path) -> None:
    root = tree(tmp_path, net__ipv4__conf__all__rp_filter="0", net__ipv4__conf__eth0__rp_filter="2")
    vlan = root / "net/ipv4/conf/eth0.7/rp_filter"
    vlan.parent.mkdir()
    vlan.write_text("1\n")
    settings = profile(interfaces=kernel.interfaces(root))
    wrong = [finding.key for finding in kernel.check(settings, root) if not finding.ok]
    assert wrong == ["net.ipv4.conf.eth0.rp_filter", "net.ipv4.conf.eth0/7.rp_filter"]
    kernel.apply(settings, root)
    assert vlan.read_text() == "0\n"


def test_a_refused_write_names_the_key(tmp_path: Path) -> None:
    root = tree(tmp_path, net__ipv4__ip_forward="0")

    class ReadOnly(type(root)):  # type: ignore[misc]
        def write_text(self, *args: object, **kwargs: object) -> int:
            raise OSError(30, "Read-only file system")

    with pytest.raises(DataPlaneError, match=r"net\.ipv4\.ip_forward = 1: Read-only"):
        kernel.apply(profile(), ReadOnly(root))
