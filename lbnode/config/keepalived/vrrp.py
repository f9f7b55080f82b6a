"""vrrp_instance and vrrp_sync_group -> VIP groups: keepalived.conf(5), VRRPD CONFIGURATION. Pure.

A sync group keeps several instances in step; in lbnode addresses that move together are one VIP group, which is one
VRRP instance, whatever interfaces and families they are of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbnode.config.keepalived.arguments import address, number, only, seconds, text, tidy
from lbnode.config.keepalived.draft import Draft, name_for
from lbnode.config.keepalived.ledger import Ledger, NoEqual, Readers
from lbnode.config.keepalived.tree import Directive
from lbnode.config.vip_group_document import vip_address
from lbnode.model import Address, VipAddress

DEFAULT_PRIORITY, DEFAULT_INTERVAL_S = 100, 1.0
ADDRESS_OWNER, MAX_PRIORITY = 255, 254


_WITH_VALUE = ("dev", "brd", "broadcast", "label", "scope", "peer", "preferred_lft", "track_group")  # of an address


@dataclass(slots=True)
class Instance:
    ledger: Ledger
    directive: Directive
    name: str
    vrid: int | None = None
    interface: str | None = None
    priority: int = DEFAULT_PRIORITY
    interval_s: float = DEFAULT_INTERVAL_S
    preempt: bool = True
    virtual_mac: bool = False  # use_vmac
    version: int | None = None
    source: str | None = None  # unicast_src_ip
    peers: list[str] = field(default_factory=list)  # unicast_peer
    sync_interface: str | None = None  # lvs_sync_daemon_interface
    addresses: list[tuple[Directive, VipAddress]] = field(default_factory=list)


class Instances:
    """Reads instances, then sync groups; `finish` makes VIP groups of them."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.by_name: dict[str, Instance] = {}
        self.default_version = 2  # vrrp_version of global_defs
        self._groups: dict[str, tuple[Directive, list[Instance]]] = {}
        self._in_group: dict[str, str] = {}

    def read_instance(self, directive: Directive) -> None:
        name = text(directive)
        if name in self.by_name:
            raise NoEqual(f"there is a vrrp_instance {name} already")
        instance = Instance(self._draft.ledger, directive, name)
        instance.ledger.read(directive.items, _INSTANCE, instance, "vrrp_instance")
        for item, vip in instance.addresses:
            if vip.interface is None and instance.interface is None:
                instance.ledger.note(item, "no interface given: where its network is", "add: dev NAME")
        if instance.vrid is None:
            raise NoEqual("virtual_router_id is missing")
        if not instance.addresses:
            raise NoEqual("has no addresses", "a VIP group is about addresses")
        self.by_name[name] = instance

    def read_sync_group(self, directive: Directive) -> None:
        name = text(directive)
        if name in self._groups:
            raise NoEqual(f"there is a vrrp_sync_group {name} already")
        members: list[Instance] = []
        for item in directive.items:
            if item.name == "group":
                for line in item.items:
                    for word in line.words:
                        self._member(line, word, name, members)
                self._draft.ledger.take(item)
        rest = (item for item in directive.items if item.name != "group")
        self._draft.ledger.read(rest, {}, None, "vrrp_sync_group")
        if not members:
            raise NoEqual("has no members", "group { ... } names vrrp_instances")
        self._groups[name] = (directive, members)

    def _member(self, line: Directive, word: str, group: str, members: list[Instance]) -> None:
        ledger = self._draft.ledger
        if word not in self.by_name:
            ledger.lacks(line, f"there is no vrrp_instance {word}, or it has no equal")
        elif word in self._in_group:
            ledger.lacks(line, f"{word} is in the group {self._in_group[word]} already")
        else:
            members.append(self.by_name[word])
            self._in_group[word] = group
            ledger.take(line)

    def finish(self) -> None:
        for name, (directive, members) in self._groups.items():
            self._put(name, directive, members)
        for name, instance in self.by_name.items():
            if name not in self._in_group:
                self._put(name, instance.directive, [instance])

    def _put(self, name: str, directive: Directive, members: Sequence[Instance]) -> None:
        first = members[0]
        self._tell_differences(directive, members)
        document: dict[str, Any] = {"vrid": first.vrid}
        if first.interface:
            document["interface"] = first.interface
        addresses = self._addresses(members)
        document |= {
            "addresses": [str(vip) for vip in addresses],
            "priorities": {self._draft.node: first.priority},
            "advert_interval": tidy(first.interval_s),
            "preempt": first.preempt,
        }
        ledger = first.ledger
        if first.virtual_mac:
            document["virtual_mac"] = True
        if (first.version or self.default_version) == 2:
            _speak_version_2(document, addresses, directive, ledger)
        if first.peers:
            own = [] if first.source is None else [first.source]
            document["unicast_peers"] = sorted({*own, *first.peers})
            if not own:
                hint = "add the address this gateway sends from to unicast_peers"
                ledger.note(directive, "unicast_peer without unicast_src_ip", hint)
        elif first.source is not None:
            ledger.lacks(directive, "unicast_src_ip without unicast_peer", "lbnode sends from the interface's address")
        try:
            self._draft.put(f"vip-groups/{name_for(name, directive, ledger)}", document, directive)
        except NoEqual as error:
            ledger.lacks(directive, error.message, error.hint)

    def _addresses(self, members: Sequence[Instance]) -> list[VipAddress]:
        """Each on the interface that its instance or its own line names."""
        found: dict[Address, VipAddress] = {}
        for member in members:
            for item, vip in member.addresses:
                if vip.address in found:
                    member.ledger.lacks(item, "this address stands twice", "the first one counts")
                else:
                    found[vip.address] = VipAddress(vip.address, vip.prefix_len, vip.interface or member.interface)
        return list(found.values())

    def _tell_differences(self, directive: Directive, members: Sequence[Instance]) -> None:
        """What only the first member keeps."""
        facts: Mapping[str, Callable[[Instance], Any]] = {
            "virtual_router_id": lambda member: member.vrid, "interface": lambda member: member.interface,
            "priority": lambda member: member.priority, "advert_int": lambda member: tidy(member.interval_s),
            "preempt": lambda member: member.preempt, "use_vmac": lambda member: member.virtual_mac,
        }  # fmt: skip
        for what, fact in facts.items():
            values = [fact(member) for member in members]
            if len(set(values)) > 1:
                others = ", ".join(str(value) for value in dict.fromkeys(values) if value != values[0])
                message = f"{what} is that of {members[0].name}, {values[0]}, for all (not used any more: {others})"
                self._draft.ledger.note(directive, message, "one VIP group is one VRRP instance")


def _speak_version_2(
    document: dict[str, Any], addresses: Sequence[VipAddress], directive: Directive, ledger: Ledger
) -> None:
    """keepalived's default, for IPv4; RFC 3768 knows whole seconds and no IPv6."""
    families = {vip.address.version for vip in addresses}
    if families == {6}:
        return  # always version 3
    if families == {4, 6}:
        message = "keepalived speaks VRRPv2 here, lbnode VRRPv3 for both families: they do not hear each other"
        ledger.note(directive, message, "replace all gateways at one time, or set vrrp_version 3 in keepalived before")
        return
    document["version"] = 2
    document["advert_interval"] = max(1, round(document["advert_interval"]))
    ledger.note(directive, "speaks VRRPv2, as keepalived does", "take out version when every gateway runs lbnode")


# --- readers -------------------------------------------------------------------------------------------------


def _interface(instance: Instance, directive: Directive) -> None:
    instance.interface = text(directive)


def _vrid(instance: Instance, directive: Directive) -> None:
    instance.vrid = number(directive, 1, 255)


def _priority(instance: Instance, directive: Directive) -> None:
    value = number(directive, 1, ADDRESS_OWNER)
    if value == ADDRESS_OWNER:
        hint = "255 is for an address that its owner has on its interface always"
        instance.ledger.note(directive, f"becomes {MAX_PRIORITY}, the highest in lbnode", hint)
    instance.priority = min(value, MAX_PRIORITY)


def _advert_int(instance: Instance, directive: Directive) -> None:
    value = seconds(directive, 0.01, 255)
    kept = min(max(round(value, 2), 0.01), 40.95)  # RFC 9568 section 5.2.7: 12 bits of centiseconds
    if kept != value:
        instance.ledger.note(directive, f"becomes {kept:g} s", "VRRPv3 carries hundredths of a second up to 40.95 s")
    instance.interval_s = kept


def _nopreempt(instance: Instance, directive: Directive) -> None:
    only(directive, 0)
    instance.preempt = directive.name == "preempt"


def _use_vmac(instance: Instance, directive: Directive) -> None:
    """[NAME] [MAC]"""
    words = only(directive, 0, 2)
    if any(":" in word for word in words):
        raise NoEqual("another MAC address than RFC 9568's", "without one lbnode sets virtual_mac")
    if words:
        instance.ledger.note(directive, f"without {' '.join(words)}", "lbnode names the interface by itself")
    instance.virtual_mac = True


def _version(instance: Instance, directive: Directive) -> None:
    instance.version = number(directive, 2, 3)


def _addresses(instance: Instance, directive: Directive) -> None:
    for item in directive.items:
        try:
            instance.addresses.append((item, _address(item, instance.ledger)))
        except NoEqual as error:
            instance.ledger.lacks(item, error.message, error.hint)
        else:
            instance.ledger.take(item)
    if directive.name.endswith("_excluded"):
        hint = "an advertisement holds up to 255 addresses"
        instance.ledger.note(directive, "lbnode advertises these, too", hint)


def _address(directive: Directive, ledger: Ledger) -> VipAddress:
    """IPADDR[/MASK] [dev NAME] and more, as ip-address(8) has it."""
    word, *options = directive.words
    length = 128 if ":" in word else 32
    interface = None
    dropped = []
    while options:
        option = options.pop(0)
        value = options.pop(0) if option in _WITH_VALUE and options else None
        if option == "dev" and value is not None:
            interface = value
        else:
            dropped.append(option)
    if dropped:
        ledger.note(directive, f"without {', '.join(dropped)}", "lbnode keeps address, prefix length and interface")
    written = word if "/" in word else f"{word}/{length}"
    try:
        return vip_address(f"{written} dev {interface}" if interface else written)
    except ValueError as error:
        raise NoEqual(str(error)) from None


def _unicast_source(instance: Instance, directive: Directive) -> None:
    instance.source = str(address(text(directive)))


def _unicast_peers(instance: Instance, directive: Directive) -> None:
    """IPADDR [min_ttl N] [max_ttl N]"""
    for item in directive.items:
        try:
            instance.peers.append(str(address(item.name)))
        except NoEqual as error:
            instance.ledger.lacks(item, error.message, error.hint)
            continue
        instance.ledger.take(item)
        if item.arguments:
            instance.ledger.lacks(
                item, f"without {' '.join(item.arguments)}", "lbnode takes a TTL of 255 only (RFC 9568)"
            )


def _sync_daemon(instance: Instance, directive: Directive) -> None:
    """Of keepalived 1.2; today it stands in global_defs."""
    instance.sync_interface = text(directive)


_INSTANCE: Readers[Instance] = {
    "interface": _interface, "virtual_router_id": _vrid, "priority": _priority, "advert_int": _advert_int,
    "nopreempt": _nopreempt, "preempt": _nopreempt, "use_vmac": _use_vmac, "version": _version,
    "virtual_ipaddress": _addresses, "virtual_ipaddress_excluded": _addresses,
    "unicast_src_ip": _unicast_source, "unicast_peer": _unicast_peers, "lvs_sync_daemon_interface": _sync_daemon,
}  # fmt: skip
