"""`/proc/net/ip_vs_conn`: the kernel's connections, one a line. Pure.

    Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
    TCP C6336464 A2C4 C633640A 0050 C6336415 0050 ESTABLISHED     899
    UDP C6336464 0000 C633640A 13C4 C6336415 13C4 ASSURED          56 sip 3848276298@client.example

Addresses and ports are hexadecimal; IPv6 addresses have their colons (net/netfilter/ipvs/ip_vs_conn.c).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from lbnode.model import Address, Connection, L4Protocol

_PROTOCOLS = {str(protocol).upper(): protocol for protocol in L4Protocol} | {"IP": None}


def parse_connection(line: str) -> Connection | None:
    """None for what is no connection of a protocol we know, as the title.

    A template of a persistent service has port 0 on the client's side. That of a firewall mark is of the protocol IP
    and has the mark in place of the virtual address.
    """
    fields = line.split()
    if len(fields) < 9 or fields[0] not in _PROTOCOLS:
        return None
    try:
        client, virtual, server = ((_address(fields[i]), int(fields[i + 1], 16)) for i in (1, 3, 5))
        expires_s = float(int(fields[8]))
    except ValueError:
        return None
    engine = fields[9:11] if len(fields) >= 11 else ("", "")
    return Connection(_PROTOCOLS[fields[0]], client, virtual, server, fields[7], expires_s, *engine)


def parse_lines(text: str) -> list[Connection]:
    """Whole lines."""
    return [found for line in text.splitlines() if (found := parse_connection(line)) is not None]


def _address(text: str) -> Address:
    return IPv6Address(text) if ":" in text else IPv4Address(int(text, 16))
