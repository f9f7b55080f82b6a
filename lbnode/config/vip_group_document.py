"""vip-groups/NAME: which fields there are. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lbnode.config.check_document import SCRIPTS
from lbnode.config.fields import NAME, Document, invalid
from lbnode.model import Address, VipAddress


class TrackDocument(Document):
    """One of the seven, and what it is worth."""

    gateway: str | None = None
    interface: str | None = None
    dataplane: Literal[True] | None = None
    sync: Literal[True] | None = None
    service: str | None = None
    script: str | None = None
    file: str | None = None
    weight: Annotated[int, Field(ge=1, le=253)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    interval: Annotated[float, Field(ge=0.1, le=3600)] = 1.0

    @model_validator(mode="after")
    def _one_thing(self) -> TrackDocument:
        kinds = ("gateway", "interface", "dataplane", "sync", "service", "script", "file")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise invalid(f"{len(given)} things to track in one entry", f"give one of {', '.join(kinds)}")
        if self.gateway is not None:
            try:
                ip_address(self.gateway)
            except ValueError as error:
                raise invalid(f"gateway: {error}", "an address of the network, like 192.0.2.254") from None
        if self.interface is not None:
            interface_name(self.interface)
        if self.file is not None and not self.file.startswith("/"):
            raise invalid(f"{self.file!r} does not begin with /", "give the whole path")
        if self.script is not None and not NAME.fullmatch(self.script):
            raise invalid(
                f"{self.script!r} is not the name of a file", f"a program in {SCRIPTS} on every gateway, no path"
            )
        return self


class VipGroupDocument(Document):
    """vip-groups/NAME"""

    vrid: Annotated[int, Field(ge=1, le=255)]
    addresses: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    priorities: Annotated[dict[str, Annotated[int, Field(ge=1, le=254)]], Field(min_length=1)]
    interface: str | None = None
    advert_interval: Annotated[float, Field(ge=0.01, le=40.95)] = 0.1
    preempt: bool = False
    preempt_delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    startup_delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    version: Literal[2, 3] = 3
    checksum: Literal["auto", "rfc9568", "pseudo-header"] = "auto"
    unicast_peers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    authentication: Literal["auto", "off", "receive-only", "permissive", "enforce"] = "auto"
    virtual_mac: bool = False
    policy: Literal["availability", "consistency"] = "availability"
    track: Annotated[tuple[TrackDocument, ...], Field(strict=False)] = ()
    local_addresses: tuple[str, ...] = ()  # of `addresses`, without prefix: full NAT's sources

    @field_validator("addresses", mode="before")
    @classmethod
    def _addresses_are_a_list(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise invalid(f"{value!r} is not a list of addresses", 'example: ["192.0.2.10/24"]')
        parsed = [vip_address(item) for item in value]
        if len({vip.address for vip in parsed}) < len(parsed):
            raise invalid("the same address twice")
        return tuple(value)

    @field_validator("local_addresses", mode="before")
    @classmethod
    def _local_addresses_are_a_list(cls, value: Any) -> Any:
        local_addresses(value)
        return tuple(value)

    @model_validator(mode="after")
    def _local_addresses_move_with_the_group(self) -> VipGroupDocument:
        floating = {vip_address(text).address for text in self.addresses}
        for address in local_addresses(self.local_addresses):
            if address not in floating:
                raise invalid(f"local_addresses: {address} is none of the group's addresses", "add it there, too")
        return self

    @field_validator("interface")
    @classmethod
    def _interface_is_a_name(cls, value: str | None) -> str | None:
        return None if value is None else interface_name(value)

    @field_validator("advert_interval")
    @classmethod
    def _interval_is_in_centiseconds(cls, value: float) -> float:
        if abs(value * 100 - round(value * 100)) > 1e-6:  # RFC 9568 section 5.2.7: Max Advertise Interval
            raise invalid(f"{value!r} is not a multiple of 0.01", "VRRP carries hundredths of a second")
        return value

    @field_validator("unicast_peers")
    @classmethod
    def _peers_are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ip_address(text)
            except ValueError as error:
                raise invalid(str(error), "the addresses from which the members send: [192.0.2.2, 192.0.2.3]") from None
        return value

    @model_validator(mode="after")
    def _version_2_has_its_limits(self) -> VipGroupDocument:
        if self.version == 2:  # RFC 3768
            if self.advert_interval % 1 or self.advert_interval < 1:
                raise invalid("version 2 with an interval of less than a second", "set advert_interval to 1")
            if any(":" in address for address in self.addresses):
                raise invalid("version 2 with IPv6 addresses", "put those into a group of their own with version 3")
        return self


MAX_LOCAL_ADDRESSES = 16  # of one family, in one place: struct pool of the XDP/tcx data plane


def local_addresses(value: Any) -> tuple[Address, ...]:
    """What full NAT takes as sources: a list of addresses without prefix."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise invalid(f"{value!r} is not a list of addresses", 'example: ["198.51.100.4"]')
    try:
        parsed = tuple(ip_address(item) for item in value)
    except ValueError as error:
        raise invalid(str(error), "local addresses have no prefix: 198.51.100.4") from None
    for address in parsed:
        if address.is_multicast or address.is_unspecified or address.is_loopback:
            raise invalid(f"{address} is not a unicast address that a server could answer")
    if len(set(parsed)) < len(parsed):
        raise invalid("the same address twice")
    for version in (4, 6):
        if sum(address.version == version for address in parsed) > MAX_LOCAL_ADDRESSES:
            raise invalid(f"more than {MAX_LOCAL_ADDRESSES} addresses of IPv{version}")
    return parsed


def interface_name(name: str) -> str:
    if not re.fullmatch(r"[^\s/:]{1,15}", name) or name in (".", ".."):  # dev_valid_name() in Linux
        raise invalid(f"{name!r} is not an interface name", "at most 15 characters, no space, slash or colon")
    return name


def vip_address(text: str) -> VipAddress:
    """`192.0.2.10/24` or `198.51.100.1/24 dev eth1`."""
    match = re.fullmatch(r"([0-9a-fA-F:.]+)/(\d{1,3})(?: dev (\S+))?", text)
    try:
        if match is None:
            raise ValueError("the form is ADDRESS/PREFIX, optionally followed by ' dev INTERFACE'")
        address, prefix = ip_address(match[1]), int(match[2])
    except ValueError as error:
        raise invalid(f"{text!r} is not a floating address: {error}", "example: 192.0.2.10/24") from None
    if prefix > address.max_prefixlen:
        raise invalid(f"{text!r}: a prefix of {prefix} bits is longer than the address")
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise invalid(f"{text!r} is not a unicast address that could move between nodes")
    return VipAddress(address, prefix, interface_name(match[3]) if match[3] else None)
