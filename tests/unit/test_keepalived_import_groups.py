"""keepalived.conf -> document: VRRP instances become VIP groups."""

from __future__ import annotations

from lbnode.config.keepalived.importer import Source, import_keepalived
from tests.unit.keepalived_conf import load, no_files, told


def test_addresses_of_a_group() -> None:
    text = """vrrp_instance V {
        interface eth0
        virtual_router_id 5
        virtual_ipaddress {
            192.0.2.1/24 label eth0:1
            192.0.2.1/24
        }
        virtual_ipaddress_excluded {
            2001:db8::1
        }
    }"""
    group = load(text).document["vip-groups"]["V"]
    assert group["addresses"] == ["192.0.2.1/24 dev eth0", "2001:db8::1/128 dev eth0"]
    lines = "\n".join(told(text))
    assert "k.conf:5:13: 192.0.2.1/24 label eth0:1: without label" in lines
    assert "error: k.conf:6:13: 192.0.2.1/24: this address stands twice" in lines
    assert "they do not hear each other" in lines and "version" not in group


def test_use_vmac() -> None:
    text = "vrrp_instance V {\nvirtual_router_id 5\nuse_vmac%s\nvirtual_ipaddress {\n192.0.2.1\n}\n}\n"
    for arguments, virtual_mac in (("", True), (" vrrp.5", True), (" vrrp.5 02:00:00:00:00:05", None)):
        imported = load(text % arguments)
        assert imported.document["vip-groups"]["V"].get("virtual_mac") is virtual_mac
    assert any("use_vmac vrrp.5: without vrrp.5" in line for line in told(text % " vrrp.5"))
    assert any("another MAC address than RFC 9568's" in line for line in told(text % " vrrp.5 02:00:00:00:00:05"))
    assert any("vmac_xmit_base: no equal yet" in line for line in told(text % "\nvmac_xmit_base"))


def test_version_2_is_keepaliveds_default() -> None:
    text = "vrrp_instance V {\nvirtual_router_id 5\nadvert_int 1.4\nvirtual_ipaddress {\n192.0.2.1\n}\n}\n"
    group = load(text).document["vip-groups"]["V"]
    assert (group["version"], group["advert_interval"]) == (2, 1)
    group = load(f"global_defs {{\nvrrp_version 3\n}}\n{text}").document["vip-groups"]["V"]
    assert ("version" in group, group["advert_interval"]) == (False, 1.4)


def test_unicast_peers_of_both_gateways_come_together() -> None:
    text = """vrrp_instance V {
        virtual_router_id 5
        @gw1 unicast_src_ip 192.0.2.2
        @gw2 unicast_src_ip 192.0.2.3
        unicast_peer {
            @^gw1 192.0.2.2
            @^gw2 192.0.2.3 min_ttl 255
        }
        virtual_ipaddress {
            192.0.2.1/24 dev eth0
        }
    }"""
    imported = import_keepalived([Source("gw1", "k", text), Source("gw2", "k", text)], no_files)
    assert imported.document["vip-groups"]["V"]["unicast_peers"] == ["192.0.2.2", "192.0.2.3"]
    assert any("without min_ttl 255" in problem.message for problem in imported.problems)
